"""The head of a README.md: what is written is read back, and what is none is nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slmkit.formats.model_card import front_matter, read_front_matter

words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=8)
"""Control characters apart: PyYAML takes the next line of Latin-1 for a space."""
values = st.dictionaries(words, words | st.lists(words, max_size=3), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values)
def test_what_is_written_is_read_back(tmp_path: Path, found: dict[str, object]) -> None:
    path = tmp_path / "README.md"
    path.write_bytes((front_matter(found) + "\n# Title\n\n---\n").encode("utf-8", "surrogatepass"))
    assert read_front_matter(path) == found


def test_the_order_stays_and_nothing_is_left_out() -> None:
    assert front_matter({"b": "x", "a": None, "c": ["y"]}) == "---\nb: x\nc:\n- y\n---\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# Title\n",
        "---\nlicense: [\n---\n",
        "---\n- a\n---\n",
        "---\nlicense: mit\n",
        "---\n--- x\n",
        "a\n---\nb: 1\n---\n",
    ],
)
def test_what_is_no_front_matter_is_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    assert read_front_matter(path) == {}
    assert read_front_matter(tmp_path / "none.md") == {}


def test_what_windows_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n# x\r\n")
    assert read_front_matter(path) == {"license": "mit"}
