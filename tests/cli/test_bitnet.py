"""BitNet: ternary checkpoints to TQ1_0 and TQ2_0 and back, and the format of Microsoft's that nothing here can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.formats.gguf.floats import floats
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.model import open_model
from slmkit.formats.safetensors import read_checkpoint
from slmkit.ops.diff import diff
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests.cli.conftest import leftovers
from tests.conftest import Run
from tests.convert.families.bitnet import make_bitnet, make_packed
from tests.hubserver import HubServer

SHORT = ("-p", "8", "-n", "4", "-r", "1", "--threads", "1")
TERNARY = ("TQ1_0", "TQ2_0")


def test_from_a_ternary_checkpoint_to_a_measurement(slmkit: Run, tmp_path: Path) -> None:
    folder = make_bitnet(tmp_path / "tiny-bitnet")
    done = slmkit("quantize", folder, "-t", "TQ1_0,TQ2_0")
    assert done.returncode == 0, done.stderr
    done = slmkit("convert", folder, "--type", "tq2_0", "-o", tmp_path / "direct.gguf")
    assert done.returncode == 0, done.stderr
    run = json.loads(slmkit("bench", "local/tiny-bitnet", tmp_path / "direct.gguf", *SHORT, "--json").stdout)
    assert [row["ref"] for row in run["rows"]][-1] == str(tmp_path / "direct.gguf")
    assert len(run["rows"]) == 4
    assert all(row["failure"] is None and row["blocks"][0]["tg_ns"] for row in run["rows"])
    seen = json.loads(slmkit("inspect", "local/tiny-bitnet:TQ1_0", "--json").stdout)
    assert (seen["weights"]["claimed"], seen["architecture"]) == ("TQ1_0", "bitnet")


@pytest.mark.parametrize("make", [make_bitnet, make_packed])
def test_three_values_survive(make: Callable[[Path], Path], tmp_path: Path, session: Session) -> None:
    """Of F16 the engine makes the bytes that `convert` makes of the checkpoint, and no weight changes."""
    ref = ModelRef("path", str(make(tmp_path / "ternary")))
    reports = list(verbs.quantize(ref, quant_types(TERNARY), session))
    for report in reports:
        variant = report.artifact.variant
        assert variant
        direct = verbs.convert(ref, session, outtype=variant.lower(), target=tmp_path / f"{variant}.gguf")
        matrices = [t.name for t in open_model(direct.path).tensors if t.info.type.name == variant]
        assert len(matrices) == 14
        found = {tensor.name: tensor for tensor in diff(report.artifact.path, direct.path).tensors}
        assert all(found[name].is_same for name in matrices)
        lost = {tensor.name: tensor.error for tensor in diff(report.source.path, direct.path).tensors}
        assert {lost[name] for name in matrices} == {0.0}
        for tensor in open_model(direct.path).tensors:
            if tensor.name in matrices:
                values = floats(tensor.read(0, tensor.info.size_bytes), tensor.info.type)
                assert len(np.unique(np.abs(values))) == 2


def test_back_to_a_checkpoint(slmkit: Run, tmp_path: Path, session: Session) -> None:
    """A Llama of ternary matrices comes back with its three values; what has no place in transformers says so."""
    packed = make_packed(tmp_path / "packed")
    made = verbs.convert(ModelRef("path", str(packed)), session, outtype="tq2_0", target=tmp_path / "packed-TQ2_0.gguf")
    done = slmkit("export", made.path, tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert "dequantized from TQ2_0" in done.stderr
    weights = read_checkpoint(tmp_path / "back")["model.layers.0.mlp.up_proj.weight"]
    assert len(np.unique(weights.read(0, weights.n_elements))) == 3
    again = verbs.convert(
        ModelRef("path", str(tmp_path / "back")), session, outtype="tq2_0", target=tmp_path / "again.gguf"
    )
    errors = {tensor.kind: tensor.error or 0 for tensor in diff(made.path, again.path).tensors}
    assert max(errors.values()) < 2**-8  # a checkpoint is bf16
    bitnet = make_bitnet(tmp_path / "bitnet")
    verbs.convert(ModelRef("path", str(bitnet)), session, outtype="tq2_0", target=tmp_path / "b.gguf")
    refused = slmkit("export", tmp_path / "b.gguf", tmp_path / "none")
    assert refused.returncode == 1
    assert "bitnet" in refused.stderr
    assert not (tmp_path / "none").exists()


# ------------------------------------------------------------------ i2_s


@pytest.fixture(scope="session")
def i2_s(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF with a tensor of type 36, as bitnet.cpp writes it."""
    raw = bytearray(f16.read_bytes())
    name = read_header(f16).tensors[0].name.encode()
    at = raw.index(len(name).to_bytes(8, "little") + name) + 8 + len(name)
    raw[at + 4 + 8 * int.from_bytes(raw[at : at + 4], "little")] = 36
    path = tmp_path_factory.mktemp("microsoft") / "ggml-model-i2_s.gguf"
    path.write_bytes(raw)
    return path


COMMANDS = ["adopt", "show", "inspect", "bench", "export", "split", "diff", "quantize"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_i2_s(command: str, i2_s: Path, slmkit: Run, tmp_path: Path) -> None:
    more = {
        "export": (tmp_path / "out",),
        "split": (tmp_path / "out",),
        "diff": (i2_s,),
        "quantize": ("-t", "Q4_0"),
    }
    done = slmkit(command, i2_s, *more.get(command, ()))
    assert (done.returncode, done.stdout) == (1, "")
    assert "i2_s, Microsoft's BitNet format, which only bitnet.cpp loads" in done.stderr
    assert "--type tq2_0" in done.stderr
    assert not (tmp_path / "out").exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["ggml-model-i2_s.gguf", "bitnet.gguf"])
def test_pull_explains_i2_s(name: str, i2_s: Path, slmkit: Run) -> None:
    """By the file's name before it is downloaded, else by what is in it."""
    with HubServer() as hub:
        hub.add("microsoft/bitnet-gguf", {name: i2_s.read_bytes()})
        reach = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}
        label = "i2_s" if "i2_s" in name else "bitnet"
        done = slmkit("pull", f"microsoft/bitnet-gguf:{label}", env=reach)
        fetched = bool(hub.seen(name))
    assert (done.returncode, fetched) == (1, label != "i2_s")
    assert "i2_s, Microsoft's BitNet format, which only bitnet.cpp loads" in done.stderr
    assert "--type tq2_0" in done.stderr
    assert Registry().artifacts() == []
