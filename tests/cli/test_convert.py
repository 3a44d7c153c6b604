"""`slmkit convert` as users run it: verified, checked beforehand, in shards, with a name for the pre-tokenizer."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import slmkit
from slmkit.cli.app import app
from slmkit.core.artifact import Artifact
from slmkit.formats.safetensors import HEAD_BYTES, Entry, read_checkpoint, write_file
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import MODEL, Start, leftovers, wait_until
from tests.conftest import Run
from tests.hubserver import HubServer

TYPES = ("f16", "bf16", "f32", "q8_0", "tq1_0", "tq2_0")


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkpoint that tests may spoil: `local/small`."""
    return factories.make_llama(tmp_path / "small", n_layers=1, hidden=64)


def reach(hub: HubServer) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_process(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="slmkit")


def spoil(folder: Path, tensor: str, value: float) -> None:
    """Every number of one tensor becomes `value`."""
    entries = []
    for t in read_checkpoint(folder).values():
        chunks = list(t.chunks())
        if t.name == tensor:
            whole = np.full(t.n_elements, value, np.float32)
            chunks = [(whole.view(np.uint32) >> np.uint32(16)).astype(np.uint16)]
        entries.append(Entry(t.name, t.dtype, t.shape, chunks))
    write_file(folder / "model.safetensors", entries)


def made(registry: Registry, model: str, variant: str = "F16") -> Artifact:
    found = registry.find(model, variant)
    assert found is not None
    return found


def nothing_left(folder: Path) -> bool:
    return list(folder.rglob("*.gguf")) == leftovers(folder) == []


# ------------------------------------------------------------------ verify


def test_what_was_made_has_been_seen_to_work(slmkit: Run, small: Path, registry: Registry) -> None:
    done = slmkit("convert", small, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verified"] is True
    assert made(registry, "local/small").facts["verified"] is True


@pytest.mark.parametrize(
    ("tensor", "value", "why"),
    [
        ("model.layers.0.mlp.up_proj.weight", np.nan, "cannot load"),
        ("lm_head.weight", 0.0, "the same for every token"),
        ("model.layers.0.mlp.down_proj.weight", 3e38, "not finite"),
        ("model.embed_tokens.weight", 0.05, "the same whatever its input is"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--split-max-size", "50K"], ["-o", "out/x.gguf"]], ids=["", "split", "out"])
def test_a_file_that_does_not_work_is_an_error_and_goes(
    slmkit: Run, small: Path, registry: Registry, tmp_path: Path, tensor: str, value: float, why: str, more: list[str]
) -> None:
    spoil(small, tensor, value)
    done = slmkit("convert", small, "--type", "bf16", *more)
    assert (done.returncode, done.stdout) == (1, "")
    error, hint = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
    assert error.startswith("error: the file that was made does not work: ")
    assert why in error
    assert "--no-verify" in hint
    assert registry.artifacts() == []
    assert nothing_left(registry.home)
    assert nothing_left(tmp_path / "cwd")


def test_no_verify_keeps_it_until_somebody_looks(slmkit: Run, small: Path, registry: Registry) -> None:
    spoil(small, "lm_head.weight", 0.0)
    done = slmkit("convert", small, "--no-verify", "--json")
    assert (done.returncode, json.loads(done.stdout)["verified"]) == (0, False)
    again = slmkit("convert", small, "--no-verify")
    assert "is there already" in again.stderr
    looked = slmkit("convert", small)
    assert looked.returncode == 1
    assert "does not work: the model's output is the same for every token" in looked.stderr
    assert made(registry, "local/small").facts["verified"] is False


def test_what_is_there_is_verified_once(slmkit: Run, small: Path, registry: Registry) -> None:
    assert slmkit("convert", small, "--no-verify").returncode == 0
    before = made(registry, "local/small")
    assert slmkit("convert", small).returncode == 0
    after = made(registry, "local/small")
    assert (after.digest, after.created, after.facts["verified"]) == (before.digest, before.created, True)


def test_without_the_engine_it_is_a_warning(small: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "llama_cpp" else real(name, *a))
    done = in_process("convert", small)
    assert done.exit_code == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert warning.startswith("warning: not verified: the engine llama-cpp-python is not installed; install it: ")
    assert made(registry, "local/small").facts["verified"] is False


def test_ctrl_c_leaves_nothing(start: Start, tmp_path: Path, registry: Registry) -> None:
    checkpoint = factories.make_llama(tmp_path / "larger", hidden=1024, n_layers=4)
    process = start("convert", checkpoint, "--type", "q8_0", "--split-max-size", "10M")
    wait_until(process, lambda: bool(leftovers(registry.home)))
    process.send_signal(2)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert nothing_left(registry.home)
    assert registry.artifacts() == []


# ------------------------------------------------------------------ check


def sizes(done: Any) -> dict[str, int]:
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)["size_bytes"]
    return found


def test_check_knows_every_size_to_the_byte(slmkit: Run, checkpoint: Path, tmp_path: Path, registry: Registry) -> None:
    promised = sizes(slmkit("convert", "--check", checkpoint, "--json"))
    assert promised.keys() == set(TYPES)
    assert registry.artifacts() == []
    for outtype in TYPES:
        target = tmp_path / f"{outtype}.gguf"
        done = in_process("convert", checkpoint, "--type", outtype, "-o", target, "--no-verify")
        assert done.exit_code == 0, done.stderr
        assert target.stat().st_size == promised[outtype], outtype


def test_check_says_what_it_will_be(slmkit: Run, checkpoint: Path) -> None:
    done = slmkit("convert", "--check", checkpoint)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"{checkpoint} converts: LlamaForCausalLM to llama, 1.4M parameters in 21 tensors, context 2,048 tokens, "
        "tokenizer llama (default)"
    )
    assert [line.split()[0] for line in lines[1:]] == ["f16", "bf16", "f32", "q8_0", "tq1_0", "tq2_0"]
    assert [line.split()[0] for line in lines if line.endswith("auto")] == ["bf16"]


def test_check_tells_what_is_left_out(slmkit: Run, small: Path) -> None:
    config = json.loads((small / "config.json").read_text("utf-8"))
    factories.write_json(small / "config.json", {**config, "sliding_window": 16})
    done = slmkit("convert", "--check", small)
    assert done.returncode == 0
    assert "the sliding window of 16 tokens is not applied" in done.stdout.splitlines()[-1]


def test_check_asks_the_hub_for_headers_only(slmkit: Run, hub: HubServer, checkpoint: Path, tmp_path: Path) -> None:
    sharded = factories.split_shards(checkpoint, tmp_path / "tiny", 3)
    content = files_of(sharded)
    hub.add("org/tiny", {**content, "LICENSE": b"x", "vocab.json": b"{}", "pytorch_model.bin": b"no"})
    promised = sizes(slmkit("convert", "--check", "org/tiny", "--json", env=reach(hub)))

    shards = [name for name in content if name.endswith(".safetensors")]
    assert len(shards) == 3
    headers = {name: HEAD_BYTES + struct.unpack("<Q", content[name][:HEAD_BYTES])[0] for name in shards}
    for name in shards:
        seen = hub.seen(name, host="storage")
        assert [s.range for s in seen] == ["bytes=0-7", f"bytes=8-{headers[name] - 1}"]
        assert sum(s.sent_bytes for s in seen) == headers[name] < len(content[name]) / 100
        assert all(s.token is None for s in seen)
    assert hub.seen("LICENSE") == hub.seen("pytorch_model.bin") == []

    hub.forget()
    done = slmkit("convert", "org/tiny", "--no-verify", "--json", env=reach(hub))
    assert json.loads(done.stdout)["size_bytes"] == promised["f16"]
    assert hub.seen("tokenizer.model") == []  # it is in the cache since the check


def test_check_off_a_server_that_knows_no_ranges(slmkit: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/tiny", files_of(checkpoint))
    known = sizes(slmkit("convert", "--check", "org/tiny", "--json", env=reach(hub)))
    hub.fail("model.safetensors", host="storage", ignore_range=True)
    assert sizes(slmkit("convert", "--check", "org/tiny", "--json", env=reach(hub))) == known


def test_check_tries_again_after_a_passing_failure(slmkit: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/tiny", files_of(checkpoint))
    hub.fail("model.safetensors", host="storage", times=1, status=503, headers={"Retry-After": "0"})
    hub.fail("model.safetensors", host="storage", times=1, cut_after=3)
    assert sizes(slmkit("convert", "--check", "org/tiny", "--json", env=reach(hub)))


def test_check_of_an_architecture_that_does_not_convert_costs_one_small_file(
    slmkit: Run, hub: HubServer, small: Path
) -> None:
    config = json.loads((small / "config.json").read_text("utf-8"))
    factories.write_json(small / "config.json", {**config, "architectures": ["NeverHeardOfForCausalLM"]})
    hub.add("org/other", files_of(small))
    done = slmkit("convert", "--check", "org/other", env=reach(hub))
    assert done.returncode == 3
    assert done.stdout.startswith("org/other does not convert: ")
    assert "NeverHeardOfForCausalLM" in done.stdout
    assert done.stderr.startswith("error: org/other does not convert (convert.arch)\nhint: llama.cpp's own converter ")
    assert "--converter upstream" in done.stderr
    assert {s.path.rpartition("/")[2] for s in hub.log if "/resolve/" in s.path} == {"config.json"}


def damaged_length(content: dict[str, bytes]) -> None:
    content["model.safetensors"] = struct.pack("<Q", 10**14) + content["model.safetensors"][8:]


def no_json(content: dict[str, bytes]) -> None:
    content["model.safetensors"] = content["model.safetensors"].replace(b'"dtype"', b'"dtype', 1)


def cut(content: dict[str, bytes]) -> None:
    content["model.safetensors"] = content["model.safetensors"][:-10]


def tiny_file(content: dict[str, bytes]) -> None:
    content["model.safetensors"] = b"no"


def pickled(content: dict[str, bytes]) -> None:
    content["pytorch_model.bin"] = content.pop("model.safetensors")


def no_tokenizer(content: dict[str, bytes]) -> None:
    del content["tokenizer.model"]


@pytest.mark.parametrize(
    ("damage", "code", "why"),
    [
        (damaged_length, "format.safetensors", "org/tiny/model.safetensors is not a safetensors file"),
        (no_json, "format.safetensors", "org/tiny/model.safetensors is damaged: its header is not JSON"),
        (cut, "format.safetensors", "org/tiny/model.safetensors ends inside tensor"),
        (tiny_file, "format.safetensors", "org/tiny/model.safetensors has 2 bytes"),
        (pickled, "hub.file", "only as pickles"),
        (no_tokenizer, "format.tokenizer", "has no tokenizer.json"),
    ],
)
def test_check_says_exactly_why_not(slmkit: Run, hub: HubServer, small: Path, damage: Any, code: str, why: str) -> None:
    content = files_of(small)
    damage(content)
    hub.add("org/tiny", content)
    done = slmkit("convert", "--check", "org/tiny", "--json", env=reach(hub))
    assert done.returncode == 3
    told = json.loads(done.stdout)
    assert told["converts"] is False
    assert told["reason"]["error"] == code
    assert why in told["reason"]["message"]
    assert json.loads(done.stderr)["error"] == "verdict"


def test_check_of_what_cannot_be_looked_at_is_no_answer(slmkit: Run, hub: HubServer, small: Path) -> None:
    hub.add("org/gated", files_of(small), gated=True)
    for ref, code in (("org/gated", "hub.gated"), ("org/none", "hub.not-found")):
        done = slmkit("convert", "--check", ref, "--json", env=reach(hub))
        assert (done.returncode, done.stdout) == (1, "")
        assert json.loads(done.stderr)["error"] == code


def test_check_of_what_is_here_asks_nobody(slmkit: Run, hub: HubServer, small: Path, registry: Registry) -> None:
    hub.add("org/small", files_of(small))
    assert slmkit("pull", "org/small", env=reach(hub)).returncode == 0
    hub.forget()
    known = sizes(slmkit("convert", "--check", "org/small", "--json", env=reach(hub)))
    assert slmkit("rm", "org/small").returncode == 0
    assert sizes(slmkit("convert", "--check", "org/small", "--json")) == known  # off the cache, offline
    assert hub.log == []

    assert slmkit("adopt", small).returncode == 0
    found = sizes(slmkit("convert", "--check", "local/small", "--json"))
    assert found == sizes(slmkit("convert", "--check", small, "--json"))
    assert [a.ref for a in registry.artifacts()] == ["local/small"]


def test_check_offline_of_what_is_not_here(slmkit: Run, hub: HubServer, small: Path) -> None:
    hub.add("org/small", files_of(small))
    assert json.loads(slmkit("convert", "--check", "org/small", "--json").stderr)["error"] == "hub.offline"
    assert slmkit("convert", "--check", "org/small", env=reach(hub)).returncode == 0
    done = slmkit("convert", "--check", "org/small", "--json")  # the small files are in the cache, the headers are not
    assert (done.returncode, json.loads(done.stderr)["error"]) == (1, "hub.offline")
    no_pull = slmkit("convert", "--check", "org/small", "--no-pull", "--json", env=reach(hub))
    assert json.loads(no_pull.stderr)["error"] == "registry.not-found"


@pytest.mark.parametrize(
    "more", [["-o", "x.gguf"], ["--force"], ["--split-max-size", "1G"], ["--converter", "upstream"]], ids=lambda m: m[0]
)
def test_check_makes_nothing(small: Path, more: list[str]) -> None:
    done = in_process("convert", "--check", small, *more, "--json")
    assert (done.exit_code, json.loads(done.stderr)["error"]) == (2, "usage")


def test_check_of_no_folder() -> None:
    assert in_process("convert", "--check", "./nothing").exit_code == 2
    assert in_process("convert", "--check", "./nothing.gguf").exit_code == 2


def test_the_same_from_python(checkpoint: Path, tmp_path: Path) -> None:
    found = slmkit.check_convert(str(checkpoint))
    assert (found.converts, found.architecture, found.auto) == (True, "llama", "bf16")
    spec = slmkit.ConvertSpec(split_max_bytes=1_000_000, verify=False)
    made = slmkit.convert(str(checkpoint), outtype="auto", spec=spec, target=tmp_path / "x.gguf")
    assert (len(made.files), made.facts["verified"], made.variant) == (4, False, "BF16")
    with pytest.raises(slmkit.SlmkitError, match="no pre-tokenizer"):
        slmkit.convert(str(checkpoint), spec=slmkit.ConvertSpec(pre="nonsense"))


# ------------------------------------------------------------------ shards


def test_shards_are_one_artifact(slmkit: Run, checkpoint: Path, registry: Registry) -> None:
    done = slmkit("convert", checkpoint, "--split-max-size", "1M", "--json")
    assert done.returncode == 0, done.stderr
    names = [f"tiny-llama-F16-0000{n}-of-00004.gguf" for n in (1, 2, 3, 4)]
    values = json.loads(done.stdout)
    assert values["files"] == names
    assert (values["n_tensors"], values["verified"]) == (21, True)
    artifact = made(registry, MODEL)
    assert artifact.provenance.parameters["split_max_bytes"] == 1_000_000
    assert sorted(p.name for p in artifact.root.glob("*.gguf")) == names

    assert slmkit("quantize", MODEL, "-t", "Q4_0").returncode == 0
    quantized = made(registry, MODEL, "Q4_0")
    assert (quantized.provenance.parents, quantized.facts["n_tensors"]) == ((artifact.digest,), 21)
    assert "1.4M" in slmkit("show", f"{MODEL}:F16").stdout
    assert slmkit("verify").stdout == "2 of 2 sound\n"
    bench = slmkit("bench", f"{MODEL}:F16", "-p", "4", "-n", "2", "-r", "1", "--threads", "1", "--json")
    assert json.loads(bench.stdout)["rows"][0]["failure"] is None
    assert slmkit("export", f"{MODEL}:F16", "folder").returncode == 0

    (artifact.root / names[2]).unlink()
    assert slmkit("verify", f"{MODEL}:F16").returncode == 3
    assert slmkit("rm", MODEL).returncode == 0
    assert nothing_left(registry.home)


def test_another_way_to_split_takes_the_place_of_the_one_before(
    slmkit: Run, checkpoint: Path, registry: Registry
) -> None:
    def there(*more: str) -> int:
        done = slmkit("convert", checkpoint, "--no-verify", *more)
        assert done.returncode == 0, done.stderr
        artifact = made(registry, MODEL)
        assert sorted(p.name for p in artifact.root.glob("*.gguf")) == sorted(f.name for f in artifact.files)
        return len(artifact.files)

    assert there() == 1
    assert there("--split-max-size", "1M") == 4
    assert there("--split-max-size", "1500K") == 3
    assert there() == 3  # whoever does not ask for a way to split is content with any
    assert there("--force") == 1
    assert there("--split-max-size", "1G") == 1


def test_shards_of_ones_own(slmkit: Run, checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    done = slmkit("convert", checkpoint, "--split-max-size", "2M", "-o", "out/mine.gguf")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "cwd" / "out"
    assert done.stdout.startswith(f"{folder / 'mine-00001-of-00002.gguf'}  2.8 MiB  ")
    assert done.stdout.endswith(", 2 shards\n")
    assert sorted(p.name for p in folder.iterdir()) == ["mine-00001-of-00002.gguf", "mine-00002-of-00002.gguf"]
    assert registry.artifacts() == []


@pytest.mark.parametrize("size", ["2T", "-1", "0", "1.5G", "G", ""])
def test_sizes_that_are_none(small: Path, size: str) -> None:
    done = in_process("convert", small, "--split-max-size", size, "--json")
    assert (done.exit_code, json.loads(done.stderr)["error"]) == (2, "usage")


# ------------------------------------------------------------------ types and pre-tokenizers


def test_types(slmkit: Run, small: Path, registry: Registry) -> None:
    assert "f16|bf16|f32|q8_0|tq1_0|tq2_0|auto" in slmkit("convert", "--help", env={"COLUMNS": "200"}).stdout
    wrong = in_process("convert", small, "--type", "q9")
    assert wrong.exit_code == 2
    assert "one of auto, f16, bf16, f32, q8_0, tq1_0, tq2_0" in wrong.stderr
    assert slmkit("convert", small, "--type", "auto").stdout.startswith("local/small:BF16 ")
    assert made(registry, "local/small", "BF16").provenance.parameters["type"] == "BF16"


def write_strange_tokenizer(folder: Path) -> None:
    """512 byte-level tokens, split in a way that nobody has a name for."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pairs = [(a, b) for a in "abcdefghijklmnop" for b in "abcdefghijklmnop"]
    vocab = {text: i for i, text in enumerate([*letters, *(a + b for a, b in pairs)])}
    assert len(vocab) == 512
    split = {"type": "Split", "pattern": {"Regex": "[a-m]+|[^a-m]+"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": vocab, "merges": [[a, b] for a, b in pairs]}
    steps = {"type": "Sequence", "pretokenizers": [split, level]}
    whole = {"version": "1.0", "added_tokens": [], "pre_tokenizer": steps, "decoder": level, "model": model}
    (folder / "tokenizer.model").unlink()
    factories.write_json(folder / "tokenizer.json", whole)
    factories.write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def test_a_person_who_knows_names_the_pre_tokenizer(slmkit: Run, small: Path, registry: Registry) -> None:
    write_strange_tokenizer(small)
    unknown = slmkit("convert", small)
    assert unknown.returncode == 1
    assert "splits text in a way that llama.cpp has no name for" in unknown.stderr
    assert "--pre NAME" in unknown.stderr.splitlines()[-1]
    assert slmkit("convert", "--check", small).returncode == 3

    checked = json.loads(slmkit("convert", "--check", small, "--pre", "smollm", "--json").stdout)
    assert checked["tokenizer"] == "gpt2 (smollm)"
    done = slmkit("convert", small, "--pre", "smollm", "--json")
    assert done.returncode == 0, done.stderr
    artifact = made(registry, "local/small")
    assert artifact.provenance.parameters["pre"] == "smollm"
    assert artifact.size_bytes == checked["size_bytes"]["f16"]

    assert slmkit("convert", small, "--pre", "gpt-2").returncode == 0  # another name is another file
    assert made(registry, "local/small").provenance.parameters["pre"] == "gpt-2"
    assert slmkit("quantize", small, "-t", "Q8_0").returncode == 0


def test_a_name_that_llama_cpp_does_not_know(small: Path) -> None:
    for more in ([], ["--check"]):
        done = in_process("convert", small, "--pre", "smolm", *more)
        assert done.exit_code == 2
        assert done.stderr.startswith("error: llama.cpp has no pre-tokenizer 'smolm'\nhint: did you mean `smollm`")


def test_a_tokenizer_that_needs_no_name(small: Path) -> None:
    done = in_process("convert", small, "--pre", "smollm")
    assert done.exit_code == 2
    assert "is no byte-level BPE" in done.stderr
