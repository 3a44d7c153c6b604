"""The pipeline: in order, bounded, hashed and flushed beside the writing, and clean when something goes wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from slmkit.core.progress import Task, Unit
from slmkit.errors import DiskFullError, SafetensorsError
from slmkit.formats.gguf import output
from slmkit.formats.gguf.header import check_structure
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry
from slmkit.ops.convert import convert, stream
from slmkit.ops.convert.finite import Watch
from slmkit.ops.convert.weights import Generated, Transposed
from slmkit.ops.describe import gguf_facts
from tests.factories import make_llama

KIB = 1 << 10


Work = tuple[Callable[[], memoryview], int]


def sleepy(n: int, log: list[int]) -> memoryview:
    """Later ones are ready first."""
    time.sleep(0.001 * (n % 3))
    log.append(n)
    return memoryview(bytes([n]) * KIB)


def pieces(first: int, last: int, log: list[int]) -> list[Work]:
    return [(partial(sleepy, n, log), KIB) for n in range(first, last)]


def threads() -> set[str]:
    return {t.name.split("_")[0] for t in threading.enumerate()} & {"encode", "hash", "flush"}


def test_results_come_in_order_whoever_is_first() -> None:
    log: list[int] = []
    out = list(stream.in_order(pieces(0, 40, log), threads=3, ahead_bytes=5 * KIB))
    assert [data[0] for data in out] == list(range(40))
    assert sorted(log) == list(range(40))
    assert not threads()


def test_no_more_is_made_than_may_wait() -> None:
    log: list[int] = []
    for taken, _ in enumerate(stream.in_order(pieces(0, 40, log), threads=3, ahead_bytes=5 * KIB), 1):
        time.sleep(0.002)
        assert len(log) <= taken + 5


def test_a_piece_larger_than_what_may_wait_goes_alone() -> None:
    work = [(lambda: memoryview(b"x" * KIB), KIB)] * 3
    assert len(list(stream.in_order(work, threads=2, ahead_bytes=1))) == 3


def test_an_error_ends_it() -> None:
    def broken() -> memoryview:
        raise ValueError("third")

    log: list[int] = []
    work: list[Work] = [*pieces(0, 2, log), (broken, KIB), *pieces(3, 100, log)]
    coming = stream.in_order(work, threads=2, ahead_bytes=4 * KIB)
    assert [next(coming)[0], next(coming)[0]] == [0, 1]
    with pytest.raises(ValueError, match="third"):
        next(coming)
    assert len(log) < 10
    assert not threads()


def test_a_consumer_that_stops_ends_it() -> None:
    log: list[int] = []
    coming = stream.in_order(pieces(0, 99, log), threads=2, ahead_bytes=4 * KIB)
    next(coming)
    coming.close()
    assert len(log) < 10
    assert not threads()


def test_a_transposed_tensor_is_not_read_once_for_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "CHUNK_ELEMENTS", 64)
    x = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    reads: list[int] = []

    class Counted(Generated):
        def read(self, start: int, stop: int) -> np.ndarray:
            reads.append(start)
            return super().read(start, stop)

    entry = Entry("t.weight", (32, 64), GGML_TYPES_BY_NAME["F16"])
    data = b"".join(stream.encoded([entry], [Transposed(Counted(x))], Watch()))
    assert data == x.T.astype(np.float16).tobytes()
    assert reads == [0]


# ------------------------------------------------------------------ the file


def test_what_is_written_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    fsynced: list[int] = []
    monkeypatch.setattr(output, "FLUSH_BYTES", 64 * KIB)
    monkeypatch.setattr(output, "_flush", lambda handle: flushed.append(os.fstat(handle).st_size))
    monkeypatch.setattr("slmkit.formats.gguf.output.os.fsync", lambda handle: fsynced.append(os.fstat(handle).st_size))
    chunks = [os.urandom(n) for n in (1, 0, 100_000, 3, 50 * KIB, 300_000)]
    path = tmp_path / "x"
    with path.open("wb", buffering=0) as file, output.Output(file) as out:
        for chunk in chunks:
            out.write(chunk)
            time.sleep(0.01)
        digest = out.finish()
    data = b"".join(chunks)
    assert path.read_bytes() == data
    assert digest == hashlib.sha256(data).hexdigest()
    assert len(flushed) == 2, "after 100,001 and after the last: in between there was too little new data"
    assert fsynced == [len(data)], "what is left is flushed once, at the end"
    assert not threads()


@pytest.mark.parametrize("when", ["_flush", "os.fsync"])
def test_a_disk_that_fills_up_unseen(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say it only when they are asked to flush."""

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint = make_llama(tmp_path / "llama", n_layers=2, hidden=128)
    monkeypatch.setattr(output, "FLUSH_BYTES", 64 * KIB)
    monkeypatch.setattr(f"slmkit.formats.gguf.output.{when}", full)
    target = tmp_path / "out.gguf"
    with pytest.raises(DiskFullError):
        convert(checkpoint, target, outtype="bf16")
    assert not target.exists()
    assert not threads()


# ------------------------------------------------------------------ the whole


def test_facts_are_those_of_the_file(tmp_path: Path) -> None:
    checkpoint = make_llama(tmp_path / "llama", n_layers=1, hidden=64)
    for outtype in ("f16", "bf16", "q8_0", "f32"):
        report = convert(checkpoint, tmp_path / "out.gguf", outtype=outtype)
        assert report.facts == gguf_facts(tmp_path / "out.gguf")
        assert list(report.facts["params_by_type"]) == list(gguf_facts(tmp_path / "out.gguf")["params_by_type"])
        check_structure(tmp_path / "out.gguf")


class Meddling:
    """A progress that does something when the first data has been written."""

    def __init__(self, meddle: object) -> None:
        self.meddle = meddle

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        yield self

    def advance(self, amount: int = 1) -> None:
        meddle, self.meddle = self.meddle, None
        if callable(meddle):
            meddle()

    def set_total(self, total: int) -> None: ...
    def describe(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def test_a_checkpoint_that_shrinks_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error, where a mapped file would end the process with SIGBUS."""
    monkeypatch.setattr(stream, "AHEAD_BYTES", 64 * KIB)
    checkpoint = make_llama(tmp_path / "llama", n_layers=4, hidden=256)
    weights = checkpoint / "model.safetensors"
    target = tmp_path / "out.gguf"
    with pytest.raises(SafetensorsError, match=r"model\.safetensors ends inside tensor `model\.layers\.\d"):
        convert(checkpoint, target, progress=Meddling(lambda: os.truncate(weights, 400_000)))
    assert not target.exists()


def test_a_checkpoint_that_vanishes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "AHEAD_BYTES", 64 * KIB)
    checkpoint = make_llama(tmp_path / "llama", n_layers=4, hidden=256)
    target = tmp_path / "out.gguf"
    with pytest.raises(SafetensorsError, match=r"cannot read .*model\.safetensors: No such file"):
        convert(checkpoint, target, progress=Meddling((checkpoint / "model.safetensors").unlink))
    assert not target.exists()


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    checkpoint = make_llama(tmp_path / "llama", n_layers=2, hidden=256)
    target = tmp_path / "out.gguf"
    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, target, progress=Meddling(interrupt))
    assert not target.exists()
    assert not threads()
