"""Temporary places of the registry, interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from slmkit.registry import atomic


@pytest.fixture
def interrupted_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives when a folder's second file is to be deleted."""
    real, calls = os.unlink, []

    def unlink(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments, **options)

    monkeypatch.setattr(os, "unlink", unlink)


def _fill(folder: Path) -> None:
    for name in "abc":
        (folder / name).touch()


@pytest.mark.usefixtures("interrupted_removal")
def test_ctrl_c_while_a_temporary_folder_is_deleted_leaves_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic.scratch(tmp_path) as folder:
        _fill(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("interrupted_removal")
def test_nor_while_what_an_earlier_writer_left_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / f"{atomic.PARTIAL}1-x"
    left.mkdir()
    _fill(left)
    with pytest.raises(KeyboardInterrupt):
        atomic.clear_partials(tmp_path)
    assert list(tmp_path.iterdir()) == []
