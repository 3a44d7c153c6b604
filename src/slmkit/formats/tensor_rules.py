"""Rules for single tensors, as text: `ffn_down=Q6_K`, and files with one of them a line.

Both as llama-quantize reads them (`--tensor-type`, `--tensor-type-file` of tools/quantize/quantize.cpp, 0c1e57098), and
comments after `#` as well.
"""

from __future__ import annotations

import re
from pathlib import Path

from slmkit.core.quantize import Rule
from slmkit.errors import UsageError
from slmkit.formats.gguf.types import weight_type

_LETTER = re.compile(r"\\.|[A-Z]")


def parse_rule(text: str) -> Rule:
    """`PATTERN=TYPE`; raises `UsageError`, `UnknownTypeError`. Names of tensors have small letters, so the pattern
    gets them.
    """
    pattern, equals, kind = text.strip().rpartition("=")
    if not equals:
        raise UsageError(f"not a rule: {text!r}", hint="PATTERN=TYPE: `ffn_down=Q6_K`, say")
    small = _LETTER.sub(lambda m: m[0] if m[0].startswith("\\") else m[0].lower(), pattern.strip())
    return Rule(small, weight_type(kind).name)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Those of a file in their order; raises `UsageError` with its name and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the rules in {path}: {error}") from error
    rules = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            try:
                rules.append(parse_rule(text))
            except UsageError as error:
                raise UsageError(f"{path}:{number}: {error.message}", hint=error.hint) from error
    return tuple(rules)
