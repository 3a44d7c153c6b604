"""The YAML at the head of a README.md: what a model card says of its model to machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
MOST_CHARACTERS = 1_000_000


def read_front_matter(path: Path) -> dict[str, Any]:
    """The keys and values; none where there is no such file, or no sense in it."""
    import yaml

    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = _FRONT.match(file.read(MOST_CHARACTERS))
        values = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):  # a card is written by hand
        return {}
    return values if isinstance(values, dict) else {}


def front_matter(values: Mapping[str, Any]) -> str:
    """These keys and values, in their order, as the head of a README.md; those that are `None` are left out."""
    import yaml

    known = {key: value for key, value in values.items() if value is not None}
    return f"---\n{yaml.safe_dump(known, sort_keys=False, allow_unicode=True, width=1000)}---\n"
