"""Strategies that damage files: arbitrary bytes, and documents in which one value is another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 40)
    | st.integers()
    | st.sampled_from([1 << 31, 1 << 32, 1 << 64, -(1 << 63), 10**400])
    | st.floats()
    | st.sampled_from([1e39, 1e308, float("nan")])
    | st.text(max_size=6)
    | st.sampled_from(["1", "64", "\ud800", "\x00", "\x1b[2J", "BPE", "Sequence", "default", "llama3", "yarn", "<s>"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def values(draw: st.DrawFn) -> Any:
    """Any JSON, sometimes nested deeper than a recursive function likes it."""
    value = draw(VALUES)
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 900]))):
        value = [value]
    return value


@st.composite
def damaged(draw: st.DrawFn, document: Any) -> Any:
    """`document` with something in it replaced, removed or added; unchanged parts are shared with it."""
    if isinstance(document, dict) and document and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(list(document)))
        out = dict(document)
        match draw(st.integers(0, 9)):
            case 0:
                del out[key]
            case 1:
                out[draw(st.text(max_size=8))] = out.pop(key)
            case 2:
                out[draw(st.sampled_from(list(document)))] = document[key]
            case _:
                out[key] = draw(damaged(document[key]))
        return out
    if isinstance(document, list) and document and draw(st.integers(0, 4)):
        at = draw(st.integers(0, len(document) - 1))
        return [*document[:at], draw(damaged(document[at])), *document[at + draw(st.integers(0, 1)) :]]
    return draw(values())


@st.composite
def several(draw: st.DrawFn, document: Any) -> Any:
    """`document` damaged in one to three places."""
    for _ in range(draw(st.integers(1, 3))):
        document = draw(damaged(document))
    return document


def as_json(document: Any) -> bytes:
    """With the escapes, NaNs and numbers that JSON files of the wild have."""
    return json.dumps(document).encode()


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with a part overwritten, cut out or appended."""
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, min(len(content), start + 64)))
    noise = draw(st.binary(max_size=64))
    return content[:start] + noise + content[end:] if draw(st.booleans()) else content[:start]


def read(path: Path) -> Any:
    """A JSON document."""
    return json.loads(path.read_text("utf-8"))
