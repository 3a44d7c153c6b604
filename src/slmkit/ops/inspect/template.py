"""Chat templates: each is other people's code, and tried in a process of its own, with little memory and time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmkit.ops.inspect.vocabulary import Vocabulary

KEY = "tokenizer.chat_template"
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Template:
    """`takes` are the kinds of messages that it has a place for: `system`, `tools`, `tool calls`.

    `remarks` are no faults, but good to know.
    """

    key: str
    takes: tuple[str, ...]
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def read_templates(metadata: Mapping[str, Any], vocabulary: Vocabulary | None) -> tuple[Template, ...]:
    """All that the metadata has; the usual one is `tokenizer.chat_template`."""
    found = {k: v for k, v in metadata.items() if k.startswith(KEY) and isinstance(v, str)}
    return tuple(_try(key, text, vocabulary) for key, text in found.items())


def _try(key: str, text: str, vocabulary: Vocabulary | None) -> Template:
    request = {
        "template": text,
        "bos": vocabulary.bos if vocabulary else "",
        "eos": vocabulary.eos if vocabulary else "",
        "stops": list(vocabulary.stops) if vocabulary else [],
        "add_bos": vocabulary.add_bos if vocabulary else False,
    }
    command = [sys.executable, "-P", "-m", "slmkit.ops.inspect.rendering"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        answer = (
            json.loads(done.stdout) if done.returncode == 0 else {"problems": ["it needs more memory than it gets"]}
        )
    except subprocess.TimeoutExpired:
        answer = {"problems": [f"it does not come to an end within {TIMEOUT_S:g} s"]}
    takes, remarks, problems = (tuple(answer.get(name, ())) for name in ("takes", "remarks", "problems"))
    return Template(key, takes, remarks, problems)


def _died(stderr: str) -> str:
    lines = stderr.strip().splitlines() or ["no reason was given"]
    return f"it could not be tried: {lines[-1]}"
