"""A tiny Llama with random weights, written by code: enough to see whether this machine's engine can work."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, boolean, f32, f32s, i32s, string, strings, u32, write_gguf

N_EMBD, N_FF, N_HEAD, N_VOCAB = 256, 512, 4, 288
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # enum llama_token_type of llama.h


def write_tiny_llama(path: Path) -> None:
    """One layer, 0.7M parameters, F16, a vocabulary of bytes. The same file each time."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    tokens += [f"word{n}" for n in range(N_VOCAB - len(tokens))]
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256, *[_NORMAL] * (N_VOCAB - 259)]
    metadata = {
        "general.architecture": string("llama"),
        "general.name": string("slmkit self-test"),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(N_EMBD),
        "llama.block_count": u32(1),
        "llama.feed_forward_length": u32(N_FF),
        "llama.attention.head_count": u32(N_HEAD),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.rope.dimension_count": u32(N_EMBD // N_HEAD),
        "llama.vocab_size": u32(N_VOCAB),
        "general.file_type": u32(1),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.scores": f32s([0.0] * N_VOCAB),
        "tokenizer.ggml.token_type": i32s(types),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.ggml.unknown_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": boolean(True),
    }
    f16, single = GGML_TYPES_BY_NAME["F16"], GGML_TYPES_BY_NAME["F32"]
    entries = [
        Entry("token_embd.weight", (N_VOCAB, N_EMBD), f16),
        Entry("blk.0.attn_norm.weight", (N_EMBD,), single),
        *(Entry(f"blk.0.attn_{name}.weight", (N_EMBD, N_EMBD), f16) for name in ("q", "k", "v", "output")),
        Entry("blk.0.ffn_norm.weight", (N_EMBD,), single),
        Entry("blk.0.ffn_gate.weight", (N_FF, N_EMBD), f16),
        Entry("blk.0.ffn_up.weight", (N_FF, N_EMBD), f16),
        Entry("blk.0.ffn_down.weight", (N_EMBD, N_FF), f16),
        Entry("output_norm.weight", (N_EMBD,), single),
        Entry("output.weight", (N_VOCAB, N_EMBD), f16),
    ]
    random = np.random.default_rng(1)
    chunks = (
        random.normal(1.0 if e.type is single else 0.0, 0.05, e.shape)
        .astype("<f4" if e.type is single else "<f2")
        .tobytes()
        for e in entries
    )
    write_gguf(path, metadata, entries, chunks)
