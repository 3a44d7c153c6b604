"""Llama and what is built like it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, boolean, u32
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, only, whole_heads, whole_rotary, without_window
from slmkit.ops.convert.weights import Permuted, Weights


class Llama(Architecture):
    """Pre-norm decoder with rotary positions, grouped queries and a gated MLP."""

    name = "llama"
    hf_names: ClassVar[tuple[str, ...]] = ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
    models = "Llama 2 and 3, TinyLlama, SmolLM, SmolLM2, Mistral 7B, Falcon3"
    scalings = frozenset({None, "linear", "yarn", "llama3"})

    def defaults(self, config: Config) -> dict[str, Any]:
        """transformers fills in `head_dim` for Llama and Mistral."""
        heads = config.integer("num_attention_heads")
        return {
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "head_dim": config.integer("hidden_size") // heads,
        }

    def check(self) -> None:
        """What src/models/llama.cpp cannot do, and most graphs that are built like it."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)
        whole_rotary(self.config, self.name, self.rope)

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """Sliding windows are not carried over, as upstream."""
        out = super().remarks(stored)
        return out + without_window(self.config, self.config.find("sliding_window")) if self.name == "llama" else out

    def late_metadata(self) -> dict[str, Value]:
        """Only Llama and its children have these."""
        return {f"{self.name}.vocab_size": u32(self.n_vocab), f"{self.name}.rope.dimension_count": u32(self.head_dim)}

    def vocab(self, folder: Path, pre: str | None = None) -> dict[str, Value]:
        """With two special cases of upstream that go by the size of the vocabulary: CodeLlama, Granite and SmolLM."""
        out: dict[str, Value] = {}
        prefix = read_json(folder / "tokenizer_config.json").get("add_prefix_space")
        if prefix is not None:
            out["tokenizer.ggml.add_space_prefix"] = boolean(bool(prefix))
        out |= super().vocab(folder, pre)
        match self.n_vocab:
            case 32016:
                out["tokenizer.ggml.eot_token_id"] = u32(32010)
            case 49152:
                out["tokenizer.ggml.add_bos_token"] = boolean(False)
        return out

    def data(self, name: str, weights: Weights) -> Weights:
        """llama.cpp rotates neighbouring rows of q and k, transformers the halves of a head."""
        heads = {"attn_q": self.n_heads, "attn_k": self.n_kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return weights
        if weights.shape[0] % (2 * heads):
            raise ConvertError(f"{self.config.folder}: {weights.shape[0]} rows of `{name}` are not {heads} heads")
        return Permuted(weights, weights.shape[0] // heads)
