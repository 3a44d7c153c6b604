"""`slmkit convert` in trouble: bad checkpoints, Ctrl-C in the middle of a large one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import Start, leftovers, wait_until
from tests.cli.test_trouble import interrupt
from tests.conftest import Run

LARGE = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 8}
MEBIBYTE = 1 << 20


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A gigabyte of weights, all zero, which take no room on the disk."""
    folder = factories.make_llama(tmp_path / "large", n_layers=1, hidden=64)
    path = folder / "config.json"
    config = {**json.loads(path.read_text("utf-8")), **LARGE}
    factories.write_json(path, config)
    table, at = {}, 0
    for name, shape in factories.tensor_shapes(config).items():
        end = at + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        table[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(table).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    return folder


@pytest.mark.parametrize("arguments", [(), ("-o", "out/large.gguf"), ("--type", "q8_0")])
def test_ctrl_c_in_the_middle_leaves_nothing(
    start: Start, large: Path, registry: Registry, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    process = start("convert", large, *arguments)

    def halfway() -> bool:
        return any(p.stat().st_size > MEBIBYTE for p in tmp_path.rglob("*.gguf"))

    wait_until(process, halfway)
    out, err = interrupt(process)
    assert (process.returncode, out) == (130, "")
    assert "interrupted: what was finished is kept" in err
    assert "Traceback" not in err
    assert leftovers(tmp_path) == []
    assert list(tmp_path.rglob("*.gguf")) == []
    assert registry.artifacts() == []


@pytest.mark.parametrize("as_json", [False, True])
def test_a_damaged_checkpoint_is_one_line(slmkit: Run, registry: Registry, tmp_path: Path, as_json: bool) -> None:
    folder = factories.make_llama(tmp_path / "damaged", n_layers=1, hidden=64)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    done = slmkit("convert", folder, *(["--json"] if as_json else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{path} ends inside tensor `lm_head.weight`" in done.stderr
    assert "Traceback" not in done.stderr
    assert registry.artifacts() == []
    assert list(tmp_path.rglob("*.gguf")) == []


def test_names_cannot_command_the_terminal(slmkit: Run, tmp_path: Path) -> None:
    folder = factories.make_llama(tmp_path / "hostile", n_layers=1, hidden=64)
    config = (folder / "config.json").read_text("utf-8")
    (folder / "config.json").write_text(config.replace("LlamaForCausalLM", "Llama\\u001b[2J"), encoding="utf-8")
    done = slmkit("convert", folder)
    assert done.returncode == 1
    assert r"Llama\x1b[2J" in done.stderr
    assert "\x1b" not in done.stderr
    (folder / "config.json").write_text(config, encoding="utf-8")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"lm_head.weight"', b'"lm\\u001b[2Jabc"', 1))
    done = slmkit("convert", folder)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "is no text" in done.stderr
