from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from slmkit import errors
from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT, Task, Unit
from slmkit.core.refs import ModelRef
from slmkit.formats.gguf.split import numbers
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, Value, string, write_gguf
from slmkit.hub.client import HubClient
from slmkit.hub.transport import Backoff
from slmkit.ops.convert import check_supported
from slmkit.ops.pull import pull
from slmkit.registry.store import Registry
from tests.hubserver import HubServer

CHECKPOINT = {
    "README.md": b"---\nlicense: mit\n---\n",
    "config.json": b"{}",
    "model.safetensors": b"w" * 5000,
    "pytorch_model.bin": b"p" * 5000,
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"o" * 5000,
}


def _gguf(n_weights: int, name: str = "output_norm", shard: Mapping[str, Value] | None = None) -> bytes:
    """A sound GGUF of one tensor."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        entry = Entry(f"{name}.weight", (n_weights,), GGML_TYPES_BY_NAME["F32"])
        metadata = {"general.architecture": string("llama"), **(shard or {})}
        write_gguf(path, metadata, [entry], [bytes(4 * n_weights)])
        return path.read_bytes()


GGUF = {
    "m-Q8_0.gguf": _gguf(800),
    "Q4_0/m-Q4_0-00001-of-00002.gguf": _gguf(700, "output", numbers(0, 2, 2)),
    "Q4_0/m-Q4_0-00002-of-00002.gguf": _gguf(500, "output_norm", numbers(1, 2, 2)),
}
REF = ModelRef.parse("org/model")


class Remarks:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> AbstractContextManager[Task]:
        return SILENT.task(label, total, unit, done=done)

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


class Bench:
    """A registry, a hub, and pulling between them."""

    def __init__(self, hub: HubServer, folder: Path) -> None:
        self.hub = hub
        self.registry = Registry(folder / "slmkit")
        self.folder = folder
        self.remarks = Remarks()

    def pull(self, ref: str = "org/model", **options: object) -> Artifact:
        client = HubClient(
            endpoint=self.hub.url,
            token=False,
            cache_dir=self.folder / "hub",
            offline=bool(options.pop("offline", False)),
            backoff=Backoff(tries=2, first_s=0.001),
        )
        parsed = ModelRef.parse(ref)
        return pull(parsed, self.registry, client=client, progress=self.remarks, **options)  # type: ignore[arg-type]

    def transfers(self) -> list[str]:
        return [seen.path for seen in self.hub.log if seen.host == "storage" or "/resolve/" in seen.path]


@pytest.fixture
def bench(hub: HubServer, tmp_path: Path) -> Bench:
    return Bench(hub, tmp_path)


def test_a_checkpoint_is_registered_where_it_lies(bench: Bench) -> None:
    repo = bench.hub.add("org/model", CHECKPOINT)
    got = bench.pull()
    assert (got.model, got.variant, got.owned, got.is_checkpoint) == ("org/model", None, False, True)
    assert {file.name for file in got.files} == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
    for file in got.files:
        assert hashlib.sha256((got.root / file.name).read_bytes()).hexdigest() == file.sha256
    provenance = got.provenance
    assert (provenance.action, provenance.repo, provenance.commit) == ("pull", "org/model", repo.commit)
    assert set(provenance.tools) == {"slmkit", "huggingface_hub"}
    assert got.root.is_relative_to(bench.folder / "hub")
    assert bench.registry.find("org/model", None) == got


def test_a_gguf_with_all_its_shards(bench: Bench) -> None:
    bench.hub.add("org/model", GGUF)
    got = bench.pull("org/model:q4_0")
    shards = [content for name, content in GGUF.items() if "Q4_0" in name]
    assert (got.ref, got.size_bytes) == ("org/model:Q4_0", sum(map(len, shards)))
    assert got.facts["n_params"] == 1200
    assert got.path.name == "m-Q4_0-00001-of-00002.gguf"
    assert (got.path.parent / "m-Q4_0-00002-of-00002.gguf").read_bytes() == shards[1]
    assert not [path for path in bench.transfers() if "Q8_0" in path]


def test_again_it_says_so_and_downloads_nothing(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    first = bench.pull()
    bench.hub.forget()
    assert bench.pull() == first
    assert bench.transfers() == []
    assert "here already" in bench.remarks.said[-1]


def test_a_new_commit_is_pulled_and_the_same_bytes_are_not(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    first = bench.pull()
    bench.hub.add("org/model", {**CHECKPOINT, "config.json": b'{"new": 1}'})
    bench.hub.forget()
    second = bench.pull()
    assert second.provenance.commit != first.provenance.commit
    assert [path.rpartition("/")[2] for path in bench.transfers()] == ["config.json"]
    assert bench.registry.find("org/model", None) == second


def test_a_lost_file_is_fetched_again(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    got = bench.pull()
    (got.root / "config.json").resolve().unlink()
    bench.hub.forget()
    assert bench.pull().files == got.files
    assert [path.rpartition("/")[2] for path in bench.transfers()] == ["config.json"]


def test_a_failed_pull_registers_nothing(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    bench.hub.fail("model.safetensors", host="storage", cut_after=0)
    with pytest.raises(errors.HubError):
        bench.pull()
    assert bench.registry.artifacts() == []


def test_another_revision_is_another_model(bench: Bench) -> None:
    repo = bench.hub.add("org/model", CHECKPOINT)
    repo.refs["v1"] = repo.commit
    assert bench.pull(revision="v1").model == "org/model@v1"
    assert bench.pull("org/model@v1", revision="v1").model == "org/model@v1"
    with pytest.raises(errors.UsageError, match="two revisions"):
        bench.pull("org/model@v1", revision="v2")
    with pytest.raises(errors.RefError):
        bench.pull(revision="../v1")
    with pytest.raises(errors.RevisionNotFoundError):
        bench.pull(revision="v3")


def test_include_and_exclude_are_recorded_and_change_what_is_pulled(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    bench.pull()
    got = bench.pull(include=["onnx/*"], exclude=["README.md"])
    names = {file.name for file in got.files}
    assert "onnx/model.onnx" in names
    assert "README.md" not in names
    assert got.provenance.parameters == {"revision": "main", "include": ["onnx/*"], "exclude": ["README.md"]}


def test_offline(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    with pytest.raises(errors.OfflineError):
        bench.pull(offline=True)
    got = bench.pull()
    bench.hub.forget()
    assert bench.pull(offline=True) == got
    bench.registry.remove(bench.registry.plan_removal([got]))
    again = bench.pull(offline=True)  # the cache still has it
    assert (again.digest, again.provenance.commit) == (got.digest, got.provenance.commit)
    with pytest.raises(errors.OfflineError):
        bench.pull("org/model:Q4_0", offline=True)
    assert bench.hub.log == []


def test_what_was_made_here_is_not_replaced(bench: Bench) -> None:
    bench.hub.add("org/model", GGUF)
    got = bench.pull("org/model:Q8_0")
    folder = bench.registry.home / "models" / "org" / "model"
    made = Artifact("org/model", "Q8_0", folder, got.files, True, got.provenance, got.created)
    (folder / "m-Q8_0.gguf").write_bytes(GGUF["m-Q8_0.gguf"])
    bench.registry.publish(made)
    assert bench.pull("org/model:Q8_0").owned
    assert "made here" in bench.remarks.said[-1]


def test_only_the_hub_can_be_pulled_from(bench: Bench) -> None:
    with pytest.raises(errors.UsageError):
        bench.pull("./model.gguf")


def test_two_pulls_at_once_both_end_well(bench: Bench) -> None:
    bench.hub.add("org/model", CHECKPOINT)
    hold = bench.hub.hold("model.safetensors", 100)
    code = """
from slmkit.core.refs import ModelRef
from slmkit.ops.convert import check_supported
from slmkit.ops.pull import pull
from slmkit.formats.gguf.split import numbers
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, Value, string, write_gguf
from slmkit.registry.store import Registry
print(pull(ModelRef.parse("org/model"), Registry()).digest)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": bench.hub.url, "HF_HUB_CACHE": str(bench.folder / "hub"), "HF_HOME": str(bench.folder)}
    env |= {"SLMKIT_HOME": str(bench.registry.home), "NO_PROXY": "127.0.0.1,localhost"}
    children = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert hold.reached.wait(60)
    hold.go.set()
    digests = {process.communicate(timeout=60)[0] for process in children}
    found = bench.registry.find("org/model", None)
    assert found is not None
    assert digests == {f"{found.digest}\n"}
    assert len(bench.hub.seen("model.safetensors", host="storage")) == 1


def test_a_model_that_cannot_be_converted_costs_only_its_config(bench: Bench) -> None:
    """Nobody wants to download gigabytes to be told that they are of no use."""
    config = b'{"architectures": ["NobodyHasItForCausalLM"]}'
    bench.hub.add("org/model", {**CHECKPOINT, "config.json": config})
    with pytest.raises(errors.UnsupportedArchError, match="NobodyHasItForCausalLM"):
        bench.pull(inspect=check_supported)
    assert {path.rpartition("/")[2] for path in bench.transfers() if "/resolve/" in path} == {"config.json"}
    assert bench.registry.find("org/model", None) is None
    assert bench.pull().is_checkpoint  # who wants it all the same may have it
