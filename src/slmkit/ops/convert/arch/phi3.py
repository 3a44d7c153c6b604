"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: fused q, k and v, fused gate and up, LongRoPE."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from slmkit.errors import ConvertError, TokenizerError
from slmkit.formats.gguf.writer import Value, f32, u32
from slmkit.formats.sentencepiece import PieceType
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.architecture import Architecture, NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, heads_of_width, only, rotated, whole_heads, without_window
from slmkit.ops.convert.shapes import Shape, with_fused_gate
from slmkit.ops.convert.vocab import Vocab
from slmkit.ops.convert.weights import Generated, Weights


class Phi3(Architecture):
    """llama.cpp splits the fused tensors itself."""

    name = "phi3"
    hf_names: ClassVar[tuple[str, ...]] = ("Phi3ForCausalLM",)
    models = "Phi-3 mini and medium, Phi-3.5 mini, Phi-4, Phi-4-mini"
    names: ClassVar[Mapping[str, str]] = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
        "model.layers.{}.self_attn.qkv_proj": "blk.{}.attn_qkv",
        "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
        "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
        "model.layers.{}.mlp.gate_up_proj": "blk.{}.ffn_up",
        "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
    }
    biases: ClassVar[frozenset[str] | None] = frozenset()
    scalings: ClassVar[frozenset[str | None]] = frozenset({None, "longrope", "su", "yarn"})

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of Phi3Config in transformers 4.57."""
        return {
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "num_key_value_heads": config.integer("num_attention_heads"),
            "original_max_position_embeddings": 4096,
            "partial_rotary_factor": 1.0,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        }

    @property
    def n_rotated(self) -> int:
        """Rotated dimensions of each head."""
        return rotated(self.config, self.rope, self.n_heads, self.n_embd)

    def shapes(self) -> Mapping[str, Shape | None]:
        """Gate and up are one tensor."""
        return with_fused_gate(self)

    def check(self) -> None:
        """What src/models/phi3.cpp cannot do."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)
        heads_of_width(self.config, self.name, self.n_heads, self.head_dim, self.n_embd)
        rotated(self.config, self.rope, self.n_heads, self.n_embd)
        list(self.generated())

    def early_metadata(self) -> dict[str, Value]:
        """What LongRoPE multiplies q and k with, https://arxiv.org/abs/2402.13753; `yarn` is that of early releases."""
        if self.rope.kind is None:
            return {}
        original = max(2, self.rope.original_context)
        scale = math.log(max(1.0, self.config.integer("max_position_embeddings") / original))
        factor = 1.0 + 0.1 * scale if self.rope.kind == "yarn" else math.sqrt(1.0 + scale / math.log(original))
        given = Config(self.config.path, self.rope.main).number("attention_factor", default=factor)
        return {f"{self.name}.rope.scaling.attn_factor": f32(given)}

    def metadata(self) -> dict[str, Value]:
        """In the order of `Phi3MiniModel` in conversion/phi.py at llama.cpp 0c1e57098."""
        a, config = self.name, self.config
        return {
            f"{a}.context_length": u32(config.integer("n_positions", "max_position_embeddings")),
            f"{a}.rope.scaling.original_context_length": u32(self.rope.original_context),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.feed_forward_length": u32(config.integer("intermediate_size")),
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.head_count_kv": u32(self.n_kv_heads),
            f"{a}.attention.layer_norm_rms_epsilon": f32(config.number("rms_norm_eps")),
            f"{a}.rope.dimension_count": u32(self.n_rotated),
            f"{a}.rope.freq_base": f32(self.rope.main["rope_theta"]),
        }

    def late_metadata(self) -> dict[str, Value]:
        """Zero where there is none (Phi-4)."""
        window = self.config.integer("sliding_window") if self.config.find("sliding_window") else 0
        return {f"{self.name}.attention.sliding_window": u32(window)}

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """llama.cpp switches the window of this architecture off: https://github.com/ggml-org/llama.cpp/pull/13676."""
        return super().remarks(stored) + without_window(self.config, self.config.find("sliding_window"))

    def generated(self) -> Iterator[NamedWeights]:
        """Divisors of the frequencies, one for each rotated pair: beyond the original context, and within it."""
        for which in ("long", "short") if self.rope.kind is not None else ():
            values, n = self.rope.main.get(f"{which}_factor"), self.n_rotated // 2
            try:
                with np.errstate(over="ignore"):
                    factors = np.array(values, np.float32)
            except (TypeError, ValueError, OverflowError):
                factors = np.zeros(0, np.float32)
            if factors.shape != (n,) or not np.isfinite(factors).all():
                raise ConvertError(f"{self.config.path}: `{which}_factor` of the rope scaling must be {n} numbers")
            yield NamedWeights(f"rope_factors_{which}.weight", Generated(factors))

    def read_vocab(self, folder: Path, pre: str | None) -> Vocab:
        """In a SentencePiece vocabulary, added tokens stand as they are and are control tokens where marked special.

        `Phi3MiniModel.set_vocab` of conversion/phi.py at llama.cpp 0c1e57098. tokenizer.json has the last word.
        """
        found = super().read_vocab(folder, pre)
        if found.scores is None:
            return found
        for i, text, special in _added_tokens(folder):
            if i < len(found.tokens):
                found.tokens[i], found.scores[i] = text, -1000.0
                found.types[i] = PieceType.CONTROL if special else PieceType.USER_DEFINED
        return found


def _added_tokens(folder: Path) -> Iterator[tuple[int, str, bool]]:
    """Id, text and whether it is special; raises `TokenizerError`."""
    decoder = read_json(folder / "tokenizer_config.json").get("added_tokens_decoder") or {}
    entries = [{**token, "id": int(i)} for i, token in decoder.items()]
    for entry in entries + (read_json(folder / "tokenizer.json").get("added_tokens") or []):
        match entry:
            case {"id": int(i), "content": str(text)}:
                yield i, text, bool(entry.get("special"))
            case _:
                raise TokenizerError(f"{folder} has an added token that makes no sense: {entry!r}")
