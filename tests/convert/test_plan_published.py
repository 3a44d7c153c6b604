"""The models that people ask for first, planned from what their repositories say: real configs and tokenizers, and the
headers of weights that are a hole.
"""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.plan import ModelPlan
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.recipes import foresight
from slmkit.recipes.session import Session
from tests.convert.families import gemma
from tests.convert.families.qwen3 import attention
from tests.convert.published import published_tokenizer
from tests.convert.tensors import Shapes, standard
from tests.factories import write_json
from tests.fetch import FetchError

TYPES = "F16,Q4_0,Q5_1,Q8_0"
SHARE_OF_F16 = {"Q8_0": 34 / 64, "Q5_1": 24 / 64, "Q4_0": 18 / 64}
"""When every weight is in the type."""


def checkpoint(folder: Path, tokenizer: str, config: dict[str, Any], tensors: Shapes) -> Path:
    """A folder as it is in the repository, but that the weights take no room."""
    folder.mkdir()
    try:
        source = published_tokenizer(tokenizer)
    except FetchError as error:
        pytest.fail(str(error), pytrace=False)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    write_json(folder / "config.json", {"torch_dtype": "bfloat16", **config})
    header, end = {}, 0
    for name, shape in tensors.items():
        start, n = end, 2
        for dimension in shape:
            n *= dimension
        end = start + n
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def phi4_mini(folder: Path) -> Path:
    """microsoft/Phi-4-mini-instruct."""
    rope = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0 + i for i in range(48)]}
    c: dict[str, Any] = {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.75,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_scaling": rope,
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "vocab_size": 200064,
        "bos_token_id": 199999,
        "eos_token_id": 199999,
    }
    layer = {
        "input_layernorm.weight": (3072,),
        "mlp.down_proj.weight": (3072, 8192),
        "mlp.gate_up_proj.weight": (16384, 3072),
        "post_attention_layernorm.weight": (3072,),
        "self_attn.o_proj.weight": (3072, 3072),
        "self_attn.qkv_proj.weight": (5120, 3072),
    }
    return checkpoint(folder, "gpt4o", c, standard(c, layer))


def qwen3_06b(folder: Path) -> Path:
    """Qwen/Qwen3-0.6B."""
    c: dict[str, Any] = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "attention_bias": False,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
    }
    mlp = {f"mlp.{name}_proj.weight": (3072, 1024) for name in ("gate", "up")} | {"mlp.down_proj.weight": (1024, 3072)}
    norms = {"input_layernorm.weight": (1024,), "post_attention_layernorm.weight": (1024,)}
    return checkpoint(folder, "qwen3", c, standard(c, {**norms, **mlp, **attention(c)}))


def _gemma3(folder: Path, hidden: int, inner: int, layers: int, heads: int, kv: int, window: int, context: int) -> Path:
    c: dict[str, Any] = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "hidden_activation": "gelu_pytorch_tanh",
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "sliding_window": window,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
        "vocab_size": 262144,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    return checkpoint(folder, "gemma3", c, gemma.shapes(c))


def gemma3_270m(folder: Path) -> Path:
    """google/gemma-3-270m-it."""
    return _gemma3(folder, 640, 2048, 18, 4, 1, 512, 32768)


def gemma3_1b(folder: Path) -> Path:
    """google/gemma-3-1b-it."""
    return _gemma3(folder, 1152, 6912, 26, 4, 1, 512, 32768)


def gemma3_4b(folder: Path) -> Path:
    """The text part of google/gemma-3-4b-it."""
    return _gemma3(folder, 2560, 10240, 34, 8, 4, 1024, 131072)


MODELS = {
    "Phi-4-mini-instruct": (phi4_mini, 3_836_021_760, (7680693408, 2325149856, 2929129632, 4084610208)),
    "Qwen3-0.6B": (qwen3_06b, 596_049_920, (1198182048, 381565600, 464140960, 639446688)),
    "gemma-3-270m-it": (gemma3_270m, 268_098_176, (542834880, 241410240, 260210880, 291545280)),
    "gemma-3-1b-it": (gemma3_1b, 999_885_952, (2006573312, 720425216, 851255552, 1069306112)),
    "gemma-3-4b-it": (gemma3_4b, 3_880_099_328, (7767473984, 2363375424, 2964995904, 4130225984)),
}
"""Parameters as the Hub counts them, and bytes in each of `TYPES`."""


@pytest.mark.parametrize("name", MODELS)
def test_sizes_and_reductions(name: str, session: Session, tmp_path: Path) -> None:
    make, n_params, sizes_bytes = MODELS[name]
    folder = make(tmp_path / name)
    found = foresight.plan(ModelRef.parse(str(folder)), session, types=quant_types([TYPES]), ram_bytes=8 * 2**30)
    sizes = {row.variant: row.size_bytes or 0 for row in found.types}
    assert [sizes[variant] for variant in TYPES.split(",")] == list(sizes_bytes)
    assert found.n_params - _rope_factors(found) == n_params
    assert sizes["F16"] > 2 * n_params
    for row in found.types:
        assert row.reduction == 1 - sizes[row.variant] / sizes["F16"]
        if row.variant != "F16":  # the embedding has more bits in Q4_0 and Q5_1, vectors in all
            assert SHARE_OF_F16[row.variant] < sizes[row.variant] / sizes["F16"] < 0.55
        for way in row.contexts:
            assert way.memory
            assert way.memory.total_bytes > sizes[row.variant] - 2**24
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 2**20


def _rope_factors(found: ModelPlan) -> int:
    """Longrope's two tables are tensors of a GGUF and no parameters of a model."""
    return 2 * 48 if found.architecture == "phi3" else 0
