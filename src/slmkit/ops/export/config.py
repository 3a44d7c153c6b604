"""config.json, generation_config.json and tensor names out of a GGUF's metadata."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.errors import ConvertError, GgufError, UnsupportedArchError
from slmkit.formats.gguf.header import GgufHeader
from slmkit.formats.gguf.rope import llama3_scaling

HF_NAMES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
"""Architectures that can be exported, and what transformers calls them."""

TORCH_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
ROPE_FACTORS = "rope_freqs.weight"

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "blk.{}.attn_norm": "model.layers.{}.input_layernorm",
    "blk.{}.attn_q": "model.layers.{}.self_attn.q_proj",
    "blk.{}.attn_k": "model.layers.{}.self_attn.k_proj",
    "blk.{}.attn_v": "model.layers.{}.self_attn.v_proj",
    "blk.{}.attn_output": "model.layers.{}.self_attn.o_proj",
    "blk.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_gate": "model.layers.{}.mlp.gate_proj",
    "blk.{}.ffn_up": "model.layers.{}.mlp.up_proj",
    "blk.{}.ffn_down": "model.layers.{}.mlp.down_proj",
}
_GEMMA3_TENSORS = {
    "blk.{}.attn_q_norm": "model.layers.{}.self_attn.q_norm",
    "blk.{}.attn_k_norm": "model.layers.{}.self_attn.k_norm",
    "blk.{}.post_attention_norm": "model.layers.{}.post_attention_layernorm",
    "blk.{}.ffn_norm": "model.layers.{}.pre_feedforward_layernorm",
    "blk.{}.post_ffw_norm": "model.layers.{}.post_feedforward_layernorm",
}
_TENSORS_OF = {"llama": _TENSORS, "qwen2": _TENSORS, "gemma3": _TENSORS | _GEMMA3_TENSORS}
_GEMMA3_PERIOD = 6
"""Every sixth layer of Gemma 3 attends to everything, the others to a window."""
_GEMMA3_27B_LAYERS = 62
_ROPE_SCALING = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "extrapolation_factor": "yarn_ext_factor",
    "attention_factor": "yarn_attn_factor",
    "beta_fast": "yarn_beta_fast",
    "beta_slow": "yarn_beta_slow",
}
_SAMPLING = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "penalty_repeat": "repetition_penalty"}


def hf_name(name: str, architecture: str) -> str:
    """The checkpoint's name for a tensor; raises `ConvertError` for one that it has no place for."""
    base, _, suffix = name.rpartition(".")
    layer = re.match(r"blk\.(\d+)\.", base)
    template = _TENSORS_OF[architecture].get(re.sub(r"^blk\.\d+\.", "blk.{}.", base))
    if template is None or suffix not in ("weight", "bias"):
        raise ConvertError(f"tensor `{name}` has no place in a {architecture} checkpoint")
    return f"{template.format(layer[1] if layer else '')}.{suffix}"


def norm_shift(name: str, architecture: str) -> float:
    """What `convert` added to a tensor: Gemma's norms multiply by 1 + weight."""
    return 1.0 if architecture == "gemma3" and name.endswith("norm.weight") else 0.0


def check_architecture(header: GgufHeader) -> None:
    """Raise `UnsupportedArchError`, naming the supported ones."""
    if header.architecture not in HF_NAMES:
        raise UnsupportedArchError(
            f"{header.path}: a GGUF of the {header.architecture} architecture cannot be exported yet",
            hint=f"supported: {', '.join(HF_NAMES)}",
        )


def model_config(header: GgufHeader, dtype: str, factors: npt.NDArray[np.float32] | None) -> dict[str, Any]:
    """config.json as transformers writes it; `factors` are the values of `rope_freqs.weight`."""
    need = Need(header)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    heads, n_embd = need("attention.head_count"), need("embedding_length")
    theta = short(header.hyper("rope.freq_base") or 10000.0)
    config: dict[str, Any] = {
        "architectures": [HF_NAMES[header.architecture]],
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": n_embd,
        "initializer_range": 0.02,
        "intermediate_size": need("feed_forward_length"),
        "max_position_embeddings": need("context_length"),
        "model_type": header.architecture,
        "num_attention_heads": heads,
        "num_hidden_layers": need("block_count"),
        "num_key_value_heads": header.hyper("attention.head_count_kv") or heads,
        "rms_norm_eps": short(need("attention.layer_norm_rms_epsilon")),
        "rope_scaling": _rope_scaling(header, factors, theta),
        "rope_theta": theta,
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": TORCH_DTYPES[dtype],
        "use_cache": True,
        "vocab_size": tensors["token_embd.weight"].shape[1],
        **token_ids(header),
    }
    head_dim = header.hyper("attention.key_length") or header.hyper("rope.dimension_count")
    if header.architecture == "llama":
        config["head_dim"] = head_dim or n_embd // heads
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in tensors
    elif header.architecture == "gemma3":
        config |= _gemma3(header)
        del config["hidden_act"]
    elif head_dim and head_dim != n_embd // heads:
        config["head_dim"] = head_dim
    if header.metadata.get("tokenizer.ggml.model") == "llama":  # no tokenizer.json will say it
        config["unk_token_id"] = header.metadata.get("tokenizer.ggml.unknown_token_id")
    return {key: value for key, value in sorted(config.items()) if value is not None}


def _gemma3(header: GgufHeader) -> dict[str, Any]:
    need = Need(header)
    n_layers, head_dim = need("block_count"), need("attention.key_length")
    kinds = ["full_attention" if (i + 1) % _GEMMA3_PERIOD == 0 else "sliding_attention" for i in range(n_layers)]
    # The scale of attention is not in the file; llama.cpp, too, goes by the number of layers.
    large = n_layers == _GEMMA3_27B_LAYERS
    return {
        "attention_bias": False,
        "final_logit_softcapping": header.hyper("final_logit_softcapping"),
        "head_dim": head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "layer_types": kinds,
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": need("embedding_length") // need("attention.head_count") if large else head_dim,
        "rope_local_base_freq": short(header.hyper("rope.freq_base_swa") or 10000.0),
        "sliding_window": need("attention.sliding_window"),
    }


def generation_config(header: GgufHeader) -> dict[str, Any]:
    """Special tokens, and the recommended sampling when the GGUF has one."""
    found = {hf: header.metadata.get(f"general.sampling.{key}") for key, hf in _SAMPLING.items()}
    sampling = {k: short(v) if isinstance(v, float) else v for k, v in found.items() if v is not None}
    return {"_from_model_config": True, **token_ids(header), **sampling}


def token_ids(header: GgufHeader) -> dict[str, int]:
    """Ids of bos, eos and padding, as far as they are known."""
    keys = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    found = {hf: header.metadata.get(f"tokenizer.ggml.{key}_token_id") for hf, key in keys.items()}
    return {hf: token for hf, token in found.items() if token is not None}


def short(value: float) -> float:
    """The shortest decimal that is the same float32: 9.999999747378752e-06 was 1e-05 in config.json."""
    return float(np.format_float_positional(np.float32(value), unique=True))


class Need:
    """Hyper-parameters that must be there."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header

    def __call__(self, key: str) -> Any:
        """The value; raises `GgufError` when the file lacks it."""
        value = self.header.hyper(key)
        if value is None:
            raise GgufError(f"{self.header.path} lacks `{self.header.architecture}.{key}`")
        return value


def _rope_scaling(header: GgufHeader, factors: npt.NDArray[np.float32] | None, theta: float) -> dict[str, Any] | None:
    if factors is not None:
        found = llama3_scaling(factors, theta)
        if found is None:
            raise ConvertError(f"{header.path}: its rope factors are not Llama 3's, and config.json cannot say others")
        return found
    kind = header.hyper("rope.scaling.type")
    if kind in (None, "none"):
        return None
    if kind not in ("linear", "yarn"):
        raise ConvertError(f"{header.path}: `{kind}` rope scaling cannot be exported yet")
    found = {key: header.hyper(f"rope.scaling.{gguf}") for key, gguf in _ROPE_SCALING.items()}
    return {key: value for key, value in found.items() if value is not None} | {"rope_type": kind}
