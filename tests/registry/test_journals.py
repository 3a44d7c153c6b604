"""Journals of interrupted work: begun anew, continued, or continued if there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.errors import UsageError
from slmkit.registry.journals import journal

KEY = {"what": "a test"}


def write(home: Path, resume: bool | None, *records: str, done: bool = False) -> list[str]:
    """What was there before."""
    with journal(home, KEY, resume=resume) as kept:
        before = [record["name"] for record in kept.records]
        for name in records:
            kept.add({"name": name})
        kept.done = done
    return before


def test_continued_if_there_is_one(tmp_path: Path) -> None:
    assert write(tmp_path, None, "a") == []
    assert write(tmp_path, None, "b") == ["a"]
    assert write(tmp_path, True, "c") == ["a", "b"]
    assert write(tmp_path, False, "d") == []
    assert write(tmp_path, None, done=True) == ["d"]
    assert write(tmp_path, None) == []


def test_nobody_is_told_to_go_on_with_nothing(tmp_path: Path) -> None:
    with journal(tmp_path, KEY, resume=False) as kept:
        assert kept.is_empty
        kept.add({"name": "a"})
        assert not kept.is_empty
    with journal(tmp_path, KEY, resume=True) as kept:
        assert not kept.is_empty


def test_there_must_be_one_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume"):
        write(tmp_path, True)


def test_what_raises_keeps_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), journal(tmp_path, KEY, resume=None) as kept:
        kept.add({"name": "a"})
        raise KeyboardInterrupt
    assert write(tmp_path, None) == ["a"]


def test_one_at_a_time(tmp_path: Path) -> None:
    with journal(tmp_path, KEY, resume=None), pytest.raises(UsageError, match="another slmkit"):
        write(tmp_path, None)
