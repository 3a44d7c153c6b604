"""GGUFs on the Hub without their weights: the header's bytes and no more, however large the file is."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from slmkit import errors
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.model import open_model
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, GgmlType, ValueType
from slmkit.hub import hollows
from slmkit.hub.client import HubClient
from slmkit.hub.download import download
from slmkit.hub.hollows import FIRST_BYTES, fetch_hollows
from tests.hubserver import HubServer
from tests.ops.ggufs import Gguf, text

NAME = "x-Q4_0.gguf"
F32 = GGML_TYPES_BY_NAME["F32"]
FACTORS = "rope_freqs.weight"


def content(tmp_path: Path, header_bytes: int, data_bytes: int = 8 << 20) -> bytes:
    """Of a file whose header has a long text, and whose small tensor comes last."""
    note = struct.pack("<I", ValueType.STRING) + text("x" * header_bytes)
    tensors: list[tuple[str, tuple[int, ...], GgmlType]] = [("big", (data_bytes // 4,), F32), (FACTORS, (4,), F32)]
    data = {FACTORS: struct.pack("<4f", 1, 2, 3, 4)}
    return Gguf({"note": note}, tensors, data=data).write(tmp_path / "whole.gguf").read_bytes()


def fetched(client: HubClient, folder: Path, *wanted: str) -> Path:
    snapshot = client.snapshot("org/x")
    folder.mkdir(exist_ok=True)
    return fetch_hollows(client, snapshot, snapshot.files, folder, wanted)


@pytest.mark.parametrize("header_bytes", [10, FIRST_BYTES + 1, 3 * FIRST_BYTES])
def test_the_range_grows_until_the_header_is_whole(
    hub: HubServer, client: HubClient, tmp_path: Path, header_bytes: int
) -> None:
    whole = content(tmp_path, header_bytes)
    hub.add("org/x", {NAME: whole})
    path = fetched(client, tmp_path / "f", FACTORS)
    a, b = read_header(path), read_header(tmp_path / "whole.gguf")
    assert (a.metadata, a.tensors, a.data_offset) == (b.metadata, b.tensors, b.data_offset)
    assert path.stat().st_size == len(whole)
    assert path.stat().st_blocks * 512 <= 2 * (header_bytes + FIRST_BYTES)
    small = open_model(path).tensors[1]
    assert small.read(0, 16) == struct.pack("<4f", 1, 2, 3, 4)

    *head, last = hub.seen(NAME, host="storage")
    assert last.sent_bytes == 16
    limit = FIRST_BYTES
    while limit < b.data_offset:
        limit *= 2
    assert sum(seen.sent_bytes for seen in head) == limit
    assert [seen.range for seen in head][:2] == ["bytes=0-1048575", "bytes=1048576-2097151"][: len(head)]


def test_a_server_that_knows_no_ranges_is_not_read_to_its_end(
    hub: HubServer, client: HubClient, tmp_path: Path
) -> None:
    whole = content(tmp_path, FIRST_BYTES + 1, 96 << 20)
    hub.add("org/x", {NAME: whole})
    hub.fail(NAME, host="storage", ignore_range=True)
    path = fetched(client, tmp_path / "f")
    assert read_header(path).tensors == read_header(tmp_path / "whole.gguf").tensors
    assert sum(seen.sent_bytes for seen in hub.seen(NAME, host="storage")) < len(whole) / 2


def test_what_the_cache_has_is_read_there(hub: HubServer, client: HubClient, tmp_path: Path) -> None:
    hub.add("org/x", {NAME: content(tmp_path, 10)})
    snapshot = client.snapshot("org/x")
    root = download(client, snapshot, snapshot.files).root
    hub.forget()
    assert fetch_hollows(client, snapshot, snapshot.files, tmp_path) == root / NAME
    assert hub.log == []


def test_damage_ends_it_at_once(
    hub: HubServer, client: HubClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(tmp_path, 3 * FIRST_BYTES)
    beyond = whole[:24] + struct.pack("<Q", 1 << 60) + whole[32:]  # a key longer than the file
    for damaged in (b"", b"<html>", whole[:100], beyond):
        hub.forget()
        hub.add("org/x", {NAME: damaged})
        with pytest.raises(errors.GgufError, match=r"is damaged|is not a GGUF"):
            fetched(client, tmp_path / "f")
        assert sum(seen.sent_bytes for seen in hub.seen(NAME, host="storage")) <= FIRST_BYTES
    hub.add("org/x", {NAME: whole})
    monkeypatch.setattr(hollows, "MOST_BYTES", 2 << 20)
    with pytest.raises(errors.GgufError, match="does not end within 2 MiB"):
        fetched(client, tmp_path / "f")
