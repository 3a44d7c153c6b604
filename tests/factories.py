"""Tiny checkpoints, made by code: true to their families, the same bytes each time, loadable by llama.cpp.

Weights are normal(0, 0.05); norms are off their neutral value and biases are not zero, so that a converter which
drops, swaps, shifts or permutes something is found out.
"""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.formats.safetensors import DTYPES, Entry, Tensor, read_checkpoint, write_file
from slmkit.formats.sentencepiece import Piece, PieceType, SpecialIds, write_pieces

Array = npt.NDArray[Any]

LLAMA3_ROPE = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '[' + message['role'] + '] ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
_NORM = re.compile(r"(norm|norms\.\d+|ln_\w+)\.weight$")
_WORDS = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or had an which "
    "one you all were her she there been their we him has when who will no more if out so up said what its about"
)


def make_llama(folder: Path, *, n_layers: int = 2, hidden: int = 256, rope_scaling: Any = None, **config: Any) -> Path:
    """A Llama with a SentencePiece tokenizer of 512 pieces, untied; `hidden` a multiple of 256 suits K-quants."""
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": n_layers}
    settings = {"attention_bias": False, "mlp_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": rope_scaling}
    return make_checkpoint(folder, "LlamaForCausalLM", "llama", {**shape, **settings, **config})


def make_llama3(folder: Path, *, hidden: int = 256, **config: Any) -> Path:
    """A tied Llama with Llama 3's rope scaling."""
    settings = {"tie_word_embeddings": True, "rope_theta": 500000.0, "max_position_embeddings": 131072}
    return make_llama(folder, hidden=hidden, rope_scaling=dict(LLAMA3_ROPE), **{**settings, **config})


def make_qwen2(folder: Path, *, n_layers: int = 2, hidden: int = 256, tied: bool = True, **config: Any) -> Path:
    """A Qwen2: biases on q, k and v."""
    shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": n_layers}
    settings = {"rope_theta": 1000000.0, "tie_word_embeddings": tied, "use_sliding_window": False}
    return make_checkpoint(folder, "Qwen2ForCausalLM", "qwen2", {**shape, **settings, **config})


def make_checkpoint(
    folder: Path,
    architecture: str,
    model_type: str,
    config: Mapping[str, Any],
    *,
    dtype: str = "BF16",
    seed: int = 1,
    tokenizer: bool = True,
) -> Path:
    """A Llama-like checkpoint; see `write_checkpoint`."""
    full: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": len(PIECES),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
        **config,
    }
    return write_checkpoint(folder, full, tensor_shapes(full), dtype=dtype, seed=seed, tokenizer=tokenizer)


def write_checkpoint(
    folder: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    dtype: str = "BF16",
    seed: int = 1,
    tokenizer: bool = True,
) -> Path:
    """Write config, weights (one safetensors file) and, unless the caller brings its own, the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dict(sorted(config.items())))
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    card = f"---\nlicense: cc0-1.0\n---\n# tiny {config['model_type']}\n\nRandom weights, for tests.\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    if tokenizer:
        write_spm(folder)
    entries = [Entry(name, dtype, shape, weights(name, shape, dtype, seed)) for name, shape in shapes.items()]
    write_file(folder / "model.safetensors", entries)
    return folder


def tensor_shapes(c: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama-like model, in the order published checkpoints have them."""
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    d = c.get("head_dim") or h // heads
    out: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, h)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        matrices = {
            "self_attn.q_proj": (heads * d, h),
            "self_attn.k_proj": (kv * d, h),
            "self_attn.v_proj": (kv * d, h),
            "self_attn.o_proj": (h, heads * d),
            "mlp.gate_proj": (f, h),
            "mlp.up_proj": (f, h),
            "mlp.down_proj": (h, f),
        }
        out[p + "input_layernorm.weight"] = (h,)
        for name, shape in matrices.items():
            out[f"{p}{name}.weight"] = shape
            qkv = name[-6:] in ("q_proj", "k_proj", "v_proj")
            attention = c.get("attention_bias") and name.startswith("self_attn")
            if attention or (c.get("mlp_bias") and name.startswith("mlp")) or (c["model_type"] == "qwen2" and qkv):
                out[f"{p}{name}.bias"] = shape[:1]
        out[p + "post_attention_layernorm.weight"] = (h,)
    out["model.norm.weight"] = (h,)
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (v, h)
    return out


def weights(name: str, shape: tuple[int, ...], dtype: str, seed: int) -> Iterator[Array]:
    """Random weights that depend on the tensor's name and the seed only, in chunks of whole rows."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    rows = max(1, 2**22 // max(1, int(np.prod(shape[1:]))))
    for first in range(0, shape[0], rows):
        x = rng.standard_normal((min(rows, shape[0] - first), *shape[1:]), dtype=np.float32)
        yield as_dtype(1 + 0.1 * x if _NORM.search(name) else 0.05 * x, dtype)


def as_dtype(x: Array, dtype: str) -> Array:
    """Float32 values as `DTYPES[dtype]`; bfloat16 by rounding to nearest even."""
    if dtype != "BF16":
        return x.astype(DTYPES[dtype])
    u = x.astype(np.float32).view(np.uint32)
    return ((u + np.uint32(0x7FFF) + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def write_json(path: Path, value: Any) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")


# ------------------------------------------------------------------ the tokenizer


def _pieces() -> list[Piece]:
    """512 pieces: specials, bytes, then letters, digits and words that merge up from pairs, best score first."""
    special = [Piece("<unk>", 0.0, PieceType.UNKNOWN), Piece("<s>", 0.0, PieceType.CONTROL)]
    special.append(Piece("</s>", 0.0, PieceType.CONTROL))
    special += [Piece(f"<0x{b:02X}>", 0.0, PieceType.BYTE) for b in range(256)]
    merged: dict[str, None] = {}
    for word in _WORDS.split():
        text = "\u2581" + word
        for end in range(2, len(text) + 1):
            merged.setdefault(text[:end])
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-\n"]
    numbers = [f"{i:02}" for i in range(100)]
    texts = [*merged, *numbers[: 512 - len(special) - len(letters) - len(merged)], *letters]
    return special + [Piece(text, float(-i)) for i, text in enumerate(texts)]


PIECES = _pieces()


def write_spm(folder: Path) -> None:
    """`tokenizer.model` and `tokenizer_config.json` as Llama 2 has them."""
    write_pieces(folder / "tokenizer.model", PIECES, SpecialIds())
    decoder = {
        str(i): {"content": PIECES[i].text, "lstrip": False, "normalized": False, "rstrip": False, "special": True}
        for i in range(3)
    }
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": decoder,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": TEMPLATE,
        "tokenizer_class": "LlamaTokenizer",
    }
    write_json(folder / "tokenizer_config.json", config)


def split_shards(source: Path, folder: Path, n: int) -> Path:
    """The same checkpoint in `n` files with an index, the tensors in the order of the one file."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, folder / path.name)
    tensors = sorted(read_checkpoint(source).values(), key=lambda t: t.offset)
    total = sum(t.size_bytes for t in tensors)
    groups: list[list[Tensor]] = [[]]
    at = 0
    for tensor in tensors:
        if len(groups) < n and at >= total * len(groups) / n:
            groups.append([])
        groups[-1].append(tensor)
        at += tensor.size_bytes
    where: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_file(folder / name, [Entry(t.name, t.dtype, t.shape, t.chunks()) for t in group])
        where |= {t.name: name for t in group}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})
    return folder
