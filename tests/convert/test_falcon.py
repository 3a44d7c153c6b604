"""Falcon where llama.cpp's converter fails (7B in transformers' words) or loses the rotary base (11B)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.errors import ConvertError
from slmkit.ops.convert import convert
from tests.convert.conftest import TOKENIZER_FILES
from tests.convert.engine import logits
from tests.convert.families import TOLERANCE
from tests.convert.families.falcon import Falcon, falcon_7b, new_decoder
from tests.convert.test_logits import TOKENS


def _falcon_11b(folder: Path) -> Path:
    more = {"num_ln_in_parallel_attn": 1, "rope_theta": 500042.0, "max_position_embeddings": 8192}
    return new_decoder(folder, ("input_layernorm",), **more, ffn_hidden_size=256)


@pytest.mark.parametrize("make", [falcon_7b, _falcon_11b])
def test_logits(make: Callable[[Path], Path], smollm2: Path, tmp_path: Path) -> None:
    for name in TOKENIZER_FILES:
        (tmp_path / name).write_bytes((smollm2 / name).read_bytes())
    checkpoint = make(tmp_path)
    convert(checkpoint, tmp_path / "out.gguf", outtype="f32")
    found, wanted = logits(tmp_path / "out.gguf", TOKENS), Falcon(checkpoint).logits(TOKENS)
    assert np.abs(found - wanted).max() / wanted.std() < TOLERANCE


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alibi": True}, "`alibi` True"),
        ({"bias": True}, "`bias` True"),
        ({"parallel_attn": False}, "`parallel_attn` False"),
        ({"activation": "relu"}, "GELU, not relu"),
        ({"num_kv_heads": 1}, r"128 rows of `blk\.0\.attn_qkv\.weight` are not 4 heads in 1 groups"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "no `dynamic` rope scaling"),
    ],
)
def test_what_llama_cpp_cannot_run_is_refused(changes: dict[str, Any], match: str, tmp_path: Path) -> None:
    new_decoder(tmp_path, **changes)
    with pytest.raises(ConvertError, match=match):
        convert(tmp_path, tmp_path / "out.gguf")


def test_two_norms_are_required(tmp_path: Path) -> None:
    new_decoder(tmp_path, ("ln_mlp",))
    with pytest.raises(ConvertError, match=r"lacks 4 tensors: blk\.0\.attn_norm_2\.weight"):
        convert(tmp_path, tmp_path / "out.gguf")
