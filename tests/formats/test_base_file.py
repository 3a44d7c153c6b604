"""A saved base: what is written is read again, and what is damaged is said to be."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from slmkit.errors import FormatError
from slmkit.formats import base_file
from slmkit.formats.base_file import Header, Kept

N_ROWS, N_VOCAB = 4, 50


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two chunks."""
    path = tmp_path / "base.slm"
    chance = np.random.default_rng(0)
    with base_file.writing(path) as writer:
        for _ in range(2):
            logits = chance.normal(0, 3, (N_ROWS, N_VOCAB)).astype(np.float32)
            log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            writer.add(Kept.of(np.arange(8, dtype=np.int32), log_probs, log_probs[:, 0]))
        order = (("words", 0), ("words", 1))
        writer.finish(Header("org/m:F16", "sha256:0", 1, "abc", 8, N_VOCAB, order, {"engine": "x"}))
    return path


def read(path: Path) -> list[Kept]:
    with base_file.reading(path) as file:
        n_chunks = len(file.header.order)
        assert [file.tokens(number).tolist() for number in range(n_chunks)] == [list(range(8))] * n_chunks
        return [file.chunk(number) for number in range(n_chunks)]


def test_what_is_written_is_read(saved: Path) -> None:
    assert [len(kept.counts) for kept in read(saved)] == [N_ROWS, N_ROWS]


def test_one_that_was_not_finished_is_none(tmp_path: Path) -> None:
    with base_file.writing(tmp_path / "base.slm"):
        pass
    with pytest.raises(FormatError, match="no baseline"):
        read(tmp_path / "base.slm")


def test_whichever_byte_is_flipped_it_is_a_damaged_file(saved: Path) -> None:
    whole, chance = saved.read_bytes(), random.Random(0)
    n_damaged = 0
    for at in chance.sample(range(len(whole)), 1500):
        content = bytearray(whole)
        content[at] ^= 1 << chance.randrange(8)
        saved.write_bytes(content)
        try:
            read(saved)
        except FormatError:
            n_damaged += 1
    assert n_damaged > 1000
