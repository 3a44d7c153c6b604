"""Headers of safetensors on the Hub: what the weights' files hold, without the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmkit import errors
from slmkit.formats.safetensors import Entry, read_file, write_file
from slmkit.hub.client import HubClient
from slmkit.hub.download import download
from slmkit.hub.headers import read_headers
from tests.hubserver import HubServer

NAME = "model.safetensors"


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    entries = [Entry(f"t{i}", "F32", (64, 64), [np.zeros((64, 64), np.float32)]) for i in range(9)]
    write_file(tmp_path / NAME, entries)
    return (tmp_path / NAME).read_bytes()


def test_they_are_those_of_the_file(hub: HubServer, client: HubClient, content: bytes, tmp_path: Path) -> None:
    hub.add("org/model", {NAME: content, "config.json": b"{}"})
    snapshot = client.snapshot("org/model")
    (file,) = [f for f in snapshot.files if f.path == NAME]
    found = read_headers(client, snapshot, [file])[NAME]
    wanted = read_file(tmp_path / NAME)
    assert list(found) == list(wanted)
    assert [(t.dtype, t.shape, t.offset) for t in found.values()] == [
        (t.dtype, t.shape, t.offset) for t in wanted.values()
    ]
    assert {str(t.path) for t in found.values()} == {f"org/model/{NAME}"}

    root = download(client, snapshot, [file]).root
    hub.forget()
    here = read_headers(client, snapshot, [file])[NAME]
    assert {t.path for t in here.values()} == {root / NAME}
    assert hub.log == []


def test_a_file_that_is_shorter_than_promised(hub: HubServer, client: HubClient, content: bytes) -> None:
    hub.add("org/model", {NAME: content})
    snapshot = client.snapshot("org/model")
    hub.fail(NAME, host="storage", body=b"")
    with pytest.raises(errors.WrongBytesError, match="shorter than the Hub says"):
        read_headers(client, snapshot, snapshot.files)
    hub.faults.clear()
    hub.fail(NAME, host="storage", body=content[:100])
    with pytest.raises(errors.ConnectionCutError, match=f"only a part of the header of {NAME}"):
        read_headers(client, snapshot, snapshot.files)
