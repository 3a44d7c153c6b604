"""Qwen3 with a mixture of experts in each layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.arch.qwen3 import Qwen3
from slmkit.ops.convert.architecture import NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import only
from slmkit.ops.convert.weights import Concatenated, Reshaped, Sliced, Stacked, Weights

_EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.((?:gate|up|down)_proj)\.weight")
_STACKED = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(gate_up_proj|down_proj)(?:\.weight)?")


class Qwen3Moe(Qwen3):
    """GGUF has the experts of a layer in one tensor; checkpoints have them one by one, or stacked (transformers 5)."""

    name = "qwen3moe"
    hf_names: ClassVar[tuple[str, ...]] = ("Qwen3MoeForCausalLM",)
    models = "Qwen3 30B-A3B"
    names: ClassVar[Mapping[str, str]] = {
        **{name: target for name, target in Qwen3.names.items() if ".mlp." not in name},
        "model.layers.{}.mlp.gate": "blk.{}.ffn_gate_inp",
        "model.layers.{}.mlp.experts.gate_proj": "blk.{}.ffn_gate_exps",
        "model.layers.{}.mlp.experts.up_proj": "blk.{}.ffn_up_exps",
        "model.layers.{}.mlp.experts.down_proj": "blk.{}.ffn_down_exps",
    }

    shares_add_up: ClassVar[bool] = True
    """Whether llama.cpp's graph makes the shares of the chosen experts add up to 1."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._experts: dict[str, dict[str, Weights]] = {}

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of Qwen3MoeConfig in transformers 4.57; `head_dim` has none."""
        own = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": False}
        return {**{key: value for key, value in super().defaults(config).items() if key != "head_dim"}, **own}

    def check(self) -> None:
        """Each layer must have experts, and their shares be what the graph makes of them."""
        super().check()
        only(self.config, self.name, "norm_topk_prob", self.shares_add_up)
        only(self.config, self.name, "decoder_sparse_step", 1)
        only(self.config, self.name, "mlp_only_layers", [])

    @property
    def n_experts(self) -> int:
        """In each layer."""
        return self.config.integer("num_local_experts", "num_experts")

    def late_metadata(self) -> dict[str, Value]:
        """`intermediate_size` is not that of the experts."""
        return {f"{self.name}.expert_feed_forward_length": u32(self.config.integer("moe_intermediate_size"))}

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """Experts are kept until the layer's last one has come; stacked ones have gate and up in one tensor."""
        if match := _EXPERT.fullmatch(name):
            layer, expert, kind = match.groups()
            return self._collect(layer, int(expert), kind, weights) if int(expert) < self.n_experts else None
        if match := _STACKED.fullmatch(name):
            layer, kind = match.groups()
            return self._named(self._whole(layer, kind, weights))
        return super().place(name, weights)

    def _named(self, parts: Mapping[str, Weights]) -> list[NamedWeights] | None:
        out = []
        for name, weights in parts.items():
            target = self.gguf_name(f"{name}.weight")
            if target is None:
                return None
            out.append(NamedWeights(target, weights))
        return out

    def _collect(self, layer: str, expert: int, kind: str, weights: Weights) -> list[NamedWeights] | None:
        """The three tensors of a layer when this was its last part, in the order of llama.cpp's converter."""
        found = self._experts.setdefault(layer, {})
        found[f"{expert}.{kind}"] = weights
        if len(found) < 3 * self.n_experts:
            return []
        out: dict[str, Weights] = {}
        for each in ("down_proj", "gate_proj", "up_proj"):
            parts = [found[f"{i}.{each}"] for i in range(self.n_experts)]
            if len({(part.shape, part.dtype) for part in parts}) > 1:
                raise ConvertError(f"{self.config.folder}: the experts `{layer}.*.{each}` differ in shape or type")
            out[f"{layer}.{each}"] = Stacked(parts)
        return self._named(out)

    def _whole(self, layer: str, kind: str, weights: Weights) -> dict[str, Weights]:
        """All experts of a layer in one tensor: (experts, rows, columns), gate and up one after the other."""
        n, n_ff = self.n_experts, self.config.integer("moe_intermediate_size")
        rows, columns = {"gate_up_proj": (2 * n_ff, self.n_embd), "down_proj": (self.n_embd, n_ff)}[kind]
        if weights.shape != (n, rows, columns):
            raise ConvertError(
                f"{self.config.folder}: `{layer}.{kind}` has shape {weights.shape}, by config.json it should have "
                f"{(n, rows, columns)}"
            )
        if kind == "down_proj":
            return {f"{layer}.{kind}": weights}
        halves = Reshaped(weights, (2 * n, n_ff, columns))
        return {
            f"{layer}.{half}": Concatenated([Sliced(halves, 2 * i + at, 2 * i + at + 1) for i in range(n)])
            for at, half in enumerate(("gate_proj", "up_proj"))
        }
