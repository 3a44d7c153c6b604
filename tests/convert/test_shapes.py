"""Tensors whose shape contradicts config.json: an error with both shapes, for every tensor of every family."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slmkit.errors import ConvertError, SlmkitError
from slmkit.formats.safetensors import read_checkpoint
from slmkit.ops.convert.architecture import open_architecture
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.origin import origins
from slmkit.ops.convert.shapes import check_shapes
from slmkit.ops.convert.stored import plain
from slmkit.ops.convert.weights import Concatenated, Generated, Reshaped, Sliced, Stacked, Weights
from tests.convert.families import cases
from tests.convert.test_errors import configure, refused, rewrite
from tests.factories import make_llama, make_qwen2

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "llama", n_layers=1, hidden=64)


def reshape(folder: Path, name: str, *shape: int) -> Path:
    """Give one tensor another shape (zeros)."""
    rewrite(folder, {name: np.zeros(shape, np.float32)}, drop=name)
    return folder


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        (Q, (128, 64), r"[64, 64]"),
        ("model.layers.0.self_attn.k_proj.weight", (64, 64), r"[32, 64]"),
        ("model.layers.0.self_attn.v_proj.weight", (32, 32), r"[32, 64]"),
        ("model.layers.0.self_attn.o_proj.weight", (64, 32), r"[64, 64]"),
        ("model.layers.0.mlp.gate_proj.weight", (64, 64), r"[128, 64]"),
        ("model.layers.0.mlp.down_proj.weight", (128, 64), r"[64, 128]"),
        ("model.layers.0.input_layernorm.weight", (63,), r"[64]"),
        ("model.norm.weight", (64, 1), r"[64]"),
        ("model.embed_tokens.weight", (512, 65), r"[512, 64]"),
        ("lm_head.weight", (500, 64), r"[512, 64]"),
    ],
)
def test_each_shape(llama: Path, name: str, shape: tuple[int, ...], wanted: str) -> None:
    error = refused(reshape(llama, name, *shape), ConvertError, "has shape")
    assert error.message == (
        f"{llama / 'model.safetensors'}: tensor `{name}` has shape {list(shape)}, but config.json makes it {wanted}"
    )


@pytest.mark.parametrize("shape", [(), (0, 64), (64, 0)])
def test_no_weights_at_all(llama: Path, shape: tuple[int, ...]) -> None:
    refused(reshape(llama, Q, *shape), ConvertError, f"`{Q}` has no rows of weights")


def test_a_bias_of_another_length(tmp_path: Path) -> None:
    folder = make_qwen2(tmp_path / "qwen2", n_layers=1, hidden=64)
    name = "model.layers.0.self_attn.q_proj.bias"
    refused(reshape(folder, name, 32), ConvertError, rf"`{name}` has shape \[32\], but config\.json makes it \[64\]")


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": 128}, {"intermediate_size": 64}, {"num_key_value_heads": 4}, {"head_dim": 32}],
)
def test_a_config_of_another_model(llama: Path, changes: dict[str, int]) -> None:
    refused(configure(llama, **changes), ConvertError, r"has shape .*, but config\.json makes it")


FAMILIES = [name for name, case in cases().items() if case.forward or name.startswith("tiny")]


def others(shape: tuple[int, ...]) -> set[tuple[int, ...]]:
    """Shapes that are wrong in one way or another."""
    first, *rest = shape
    changed = {(first + 1, *rest), (2 * first, *rest), (*shape[:-1], 2 * shape[-1]), shape[::-1]}
    return (changed | {(*shape, 1), (1, *shape), (math.prod(shape),)}) - {shape}


def is_right(name: str, shape: tuple[int, ...], stored: tuple[int, ...]) -> bool:
    """Shapes that are as good as the stored one: a kernel with other ones in it, an embedding that is cut."""
    if ".conv" in name or math.prod(stored) == 1:
        return [n for n in shape if n != 1] == [n for n in stored if n != 1]
    table = "embed_tokens" in name or name.startswith("lm_head")
    return table and len(shape) == 2 and shape[0] > stored[0] and shape[1] == stored[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_shape_of_every_family(make_case: Callable[[str], Path], name: str) -> None:
    """No other is taken, and none is a traceback. Layer 0 stands for all."""
    folder = make_case(name)
    config, stored = read_config(folder), read_checkpoint(folder)
    used = origins([t.weights for t in open_architecture(config).tensors(plain(config, stored))])
    taken = []
    for tensor in used:
        if re.search(r"\.[1-9]\d*\.", tensor.name):
            continue
        for shape in others(tensor.shape):
            architecture = open_architecture(config)
            try:
                tensors = architecture.tensors(plain(config, {**stored, tensor.name: replace(tensor, shape=shape)}))
                check_shapes(architecture, tensors)
            except SlmkitError:
                continue
            if not is_right(tensor.name, shape, tensor.shape):
                taken.append((tensor.name, tensor.shape, shape))
    assert taken == []


def test_parts_of_tensors_that_have_none() -> None:
    matrix = Generated(np.zeros((4, 2), np.float32))
    with pytest.raises(ConvertError, match=r"has shape \[4, 2\] and has no rows 2 to 5"):
        Sliced(matrix, 2, 5)
    with pytest.raises(ConvertError, match=r"cannot be \[3, 3\]"):
        Reshaped(matrix, (3, 3))
    others: list[Weights] = [Sliced(matrix, 0, 2), Generated(np.zeros((4, 2), np.float32), "F64")]
    for other in others:
        with pytest.raises(ConvertError, match="unlike"):
            Stacked([matrix, other])
    with pytest.raises(ConvertError, match="unlike"):
        Concatenated([matrix, Generated(np.zeros((4, 3), np.float32))])
