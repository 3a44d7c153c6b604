"""ERNIE 4.5, the dense ones: Llama's tensors, with neighbouring rows of q and k rotated as llama.cpp does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, boolean
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.architecture import Architecture, NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, only, whole_heads
from slmkit.ops.convert.weights import Sliced, Weights

_FUSED = re.compile(r"model\.layers\.(\d+)\.(?:self_attn\.(qkv)_proj|mlp\.(up_gate)_proj)\.weight")


class Ernie45(Architecture):
    """Some checkpoints call the decoder `ernie` and fuse q, k and v, and gate and up."""

    name = "ernie4_5"
    hf_names: ClassVar[tuple[str, ...]] = ("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM")
    models = "ERNIE 4.5 0.3B"
    biases: ClassVar[frozenset[str] | None] = frozenset()

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in."""
        return {
            "num_key_value_heads": 2,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "head_dim": 128,
        }

    def check(self) -> None:
        """The graph has no biases in the MLP."""
        super().check()
        only(self.config, self.name, "hidden_act", *SILU)
        only(self.config, self.name, "use_bias", False)
        whole_heads(self.config, self.n_heads, self.n_kv_heads, self.head_dim)

    def vocab(self, folder: Path, pre: str | None = None) -> dict[str, Value]:
        """Whether text begins with a space comes last."""
        out = super().vocab(folder, pre)
        prefix = read_json(folder / "tokenizer_config.json").get("add_prefix_space")
        return out if prefix is None else out | {"tokenizer.ggml.add_space_prefix": boolean(bool(prefix))}

    def rename(self, name: str) -> str:
        """The decoder is `model`."""
        return name.replace("ernie.", "model.", 1)

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """Take fused matrices apart."""
        found = _FUSED.fullmatch(name)
        if not found:
            return super().place(name, weights)
        layer, qkv, _ = found.groups()
        if qkv:
            q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
            sizes = {"attn_q": q, "attn_k": kv, "attn_v": kv}
        else:
            half = self.config.integer("intermediate_size")
            sizes = {"ffn_gate": half, "ffn_up": half}
        if int(layer) >= self.n_layers:
            return None
        if weights.shape != (sum(sizes.values()), self.n_embd):
            shape, wanted = list(weights.shape), [sum(sizes.values()), self.n_embd]
            raise ConvertError(
                f"{self.config.folder}: `{name}` has the shape {shape}, not {wanted}",
                hint="the Paddle checkpoints are stored the other way round: take the one whose name ends in -PT",
            )
        out, first = [], 0
        for target, rows in sizes.items():
            out.append(NamedWeights(f"blk.{layer}.{target}.weight", Sliced(weights, first, first + rows)))
            first += rows
        return out
