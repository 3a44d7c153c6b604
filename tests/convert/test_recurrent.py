"""Architectures with recurrent layers: what is computed from the weights, and what llama.cpp could not run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import ConvertError, VerdictError
from slmkit.formats.safetensors import Entry, read_checkpoint, write_file
from slmkit.ops.convert import convert
from slmkit.ops.convert.statespace import decay, multiplied
from slmkit.ops.quantize import quantize
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from tests.convert.engine import logits
from tests.convert.families import TOLERANCE
from tests.convert.families.falcon_h1 import FalconH1
from tests.convert.test_logits import TOKENS
from tests.factories import write_json


@dataclass(frozen=True)
class Stored:
    """A tensor of a checkpoint."""

    values: npt.NDArray[Any]
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self.values.reshape(-1)[start:stop]


def configure(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    write_json(path, {**json.loads(path.read_text("utf-8")), **changes})
    return folder


def test_decay_is_rounded_correctly() -> None:
    """The exact value lies nearer to what we say than to the float32 on either side."""
    a_log = np.random.default_rng(1).uniform(-12, 12, 3000).astype(np.float32)
    found = decay(Stored(a_log)).read(0, a_log.size)
    with localcontext(prec=40):
        for x, y in zip(a_log, found, strict=True):
            exact = -Decimal(float(x)).exp()
            off = abs(Decimal(float(y)) - exact)
            assert all(off < abs(Decimal(float(np.nextafter(y, np.float32(to)))) - exact) for to in (-np.inf, 0))


def test_decay_of_half_precision_is_rounded_to_it() -> None:
    a_log = np.array([0.7, 2.3, 12.0], np.float16)
    found = decay(Stored(a_log, "F16")).read(0, 3)
    wanted = -np.exp(a_log[:2].astype(np.float64))
    assert found.tolist() == [*wanted.astype(np.float16).tolist(), -np.inf]


@pytest.mark.parametrize(("name", "dtype"), [("F32", np.float32), ("F16", np.float16)])
def test_factors_are_multiplied_in_turn_from_any_place(name: str, dtype: type[np.floating[Any]]) -> None:
    x = np.random.default_rng(2).standard_normal((5, 7)).astype(dtype)
    rows = np.linspace(0.3, 0.8, 5, dtype=np.float32)
    first = (x.astype(np.float32) * np.float32(0.3)).astype(dtype)
    wanted = (first.astype(np.float32) * rows[:, None]).astype(dtype).astype(np.float32).reshape(-1)
    source = multiplied(Stored(x, name), 0.3, 1.0, rows)
    for start, stop in ((0, 35), (3, 5), (6, 8), (13, 30), (34, 35)):
        assert source.read(start, stop).tolist() == wanted[start:stop].tolist()


def test_without_factors_the_weights_stay_as_they_are() -> None:
    source = Stored(np.zeros((2, 2), np.float32))
    assert multiplied(source, 1.0, np.ones(2, np.float32)) is source


def test_tied_falcon_h1_gets_an_output_with_its_own_multiplier(
    make_case: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = configure(make_case("tiny-falcon-h1"), tie_word_embeddings=True)
    kept = [Entry(t.name, t.dtype, t.shape, list(t.chunks())) for t in read_checkpoint(folder).values()]
    write_file(folder / "model.safetensors", [entry for entry in kept if entry.name != "lm_head.weight"])
    convert(folder, tmp_path / "out.gguf", outtype="f32")
    found, wanted = logits(tmp_path / "out.gguf", TOKENS), FalconH1(folder).logits(TOKENS)
    assert np.abs(found - wanted).max() / wanted.std() < TOLERANCE


REFUSED = [
    ("tiny-mamba", {"hidden_act": "gelu"}, "`hidden_act` 'gelu'"),
    ("tiny-mamba", {"use_bias": True}, "`use_bias` True"),
    ("tiny-mamba", {"use_conv_bias": False}, "`use_conv_bias` False"),
    ("tiny-mamba", {"intermediate_size": 192}, "192 channels in a model of 64"),
    ("tiny-mamba", {"rms_norm": False}, "`rms_norm` False"),
    ("tiny-mamba", {"vocab_size": 500}, "500.* 504|504.* 512"),
    ("tiny-mamba2", {"n_groups": 3}, "heads of 16 in 3 groups"),
    ("tiny-mamba2", {"time_step_limit": [0.0, 0.1]}, r"`time_step_limit` \[0\.0, 0\.1\]"),
    ("tiny-mamba2", {"expand": 4}, "not as long as 256 channels"),
    ("tiny-falcon-h1", {"projectors_bias": True}, "`projectors_bias` True"),
    ("tiny-falcon-h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": True}, "`mamba_norm_before_gate`"),
    ("tiny-falcon-h1", {"mamba_rms_norm": True}, r"lacks 2 tensors: blk\.0\.ssm_norm\.weight"),
    ("tiny-falcon-h1", {"mamba_d_state": 32}, r"`mamba\.in_proj` has 230 rows, not 262"),
    ("tiny-falcon-h1", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "no `linear` rope scaling"),
    ("tiny-falcon-h1", {"ssm_multipliers": [1.0]}, "`ssm_multipliers` must be a list of 5 numbers"),
    ("tiny-lfm2", {"conv_bias": True}, "`conv_bias`"),
    ("tiny-lfm2", {"conv_L_cache": 1}, "2 tokens"),
    ("tiny-lfm2", {"head_dim": 32}, "4 heads of 32"),
    ("tiny-lfm2", {"block_multiple_of": 256}, r"shape \[160, 64\], but config.json makes it \[256, 64\]"),
    ("tiny-lfm2", {"layer_types": ["conv", "full_attention", "sliding_attention", "conv"]}, "no sliding_attention"),
    ("tiny-lfm2", {"full_attn_idxs": [0, 1]}, r"model\.layers\.0\.conv\.conv\.weight"),
]


@pytest.mark.parametrize(("name", "changes", "match"), REFUSED)
def test_what_llama_cpp_cannot_run_is_refused(
    name: str, changes: dict[str, Any], match: str, make_case: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = configure(make_case(name), **changes)
    with pytest.raises(ConvertError, match=match):
        convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_falcon_mamba_says_that_an_epsilon_differs(make_case: Callable[[str], Path], tmp_path: Path) -> None:
    from slmkit.ops.convert.plan import make_plan

    folder = make_case("falcon-mamba")
    assert not make_plan(folder).remarks
    assert "epsilon of 1e-05, the model with 1e-06" in make_plan(configure(folder, mixer_rms_eps=1e-6)).remarks[0]


def test_strict_counts_the_layers_that_are_made(make_case: Callable[[str], Path], session: Session) -> None:
    """Without the first layer, which has other tensors than the second, the names are not the source's."""
    source = verbs.convert(ModelRef("path", str(make_case("tiny-lfm2"))), session)
    for layers in ((0,), (1,)):
        spec = QuantizeSpec(prune_layers=layers)
        with pytest.raises(VerdictError, match="fall back"):
            list(quantize(source, [QUANT_TYPES["Q4_K_M"]], session.registry, SILENT, spec=spec, strict_share=0.0))
