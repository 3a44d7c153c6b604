"""Granite 3 with experts: gate and up of all of them in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.arch.granite import Granite
from slmkit.ops.convert.architecture import NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.weights import Concatenated, Reshaped, Sliced, Weights

_FUSED: Mapping[str, tuple[str, str]] = {
    "ffn_gate_up_exps": ("ffn_gate_exps", "ffn_up_exps"),
    "ffn_gate_up_shexp": ("ffn_gate_shexp", "ffn_up_shexp"),
}


class GraniteMoe(Granite):
    """With `shared_intermediate_size` there is one expert more that every token goes through."""

    name = "granitemoe"
    hf_names: ClassVar[tuple[str, ...]] = ("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
    models = "Granite 3.0 and 3.1 1B-A400M and 3B-A800M"
    names: ClassVar[Mapping[str, str]] = {
        **{name: target for name, target in Granite.names.items() if ".mlp." not in name},
        "model.layers.{}.block_sparse_moe.router.layer": "blk.{}.ffn_gate_inp",
        "model.layers.{}.block_sparse_moe.input_linear": "blk.{}.ffn_gate_up_exps",
        "model.layers.{}.block_sparse_moe.output_linear": "blk.{}.ffn_down_exps",
        "model.layers.{}.shared_mlp.input_linear": "blk.{}.ffn_gate_up_shexp",
        "model.layers.{}.shared_mlp.output_linear": "blk.{}.ffn_down_shexp",
    }

    def defaults(self, config: Config) -> dict[str, Any]:
        """Of GraniteMoeConfig in transformers 4.57."""
        return super().defaults(config) | {"num_local_experts": 8, "num_experts_per_tok": 2}

    def check(self) -> None:
        """transformers allows for no experts but the one more; llama.cpp's graph does not."""
        super().check()
        self.config.integer("num_local_experts")

    @property
    def shared_width(self) -> int:
        """Of the one expert more; 0 without it."""
        return self.config.integer("shared_intermediate_size") if self.config.find("shared_intermediate_size") else 0

    def late_metadata(self) -> dict[str, Value]:
        """The width of the one expert more."""
        width = {f"{self.name}.expert_shared_feed_forward_length": u32(self.shared_width)} if self.shared_width else {}
        return super().late_metadata() | width

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """Gate and up of an expert, one after the other, become two tensors."""
        target = self.gguf_name(name)
        layer, _, kind = (target or "").removesuffix(".weight").rpartition(".")
        if kind.endswith("_shexp") and not self.shared_width:
            return None
        if kind not in _FUSED:
            return super().place(name, weights)
        width = self.shared_width if kind.endswith("_shexp") else self.config.integer("intermediate_size")
        experts = () if kind.endswith("_shexp") else (self.config.integer("num_local_experts"),)
        if weights.shape != (*experts, 2 * width, self.n_embd):
            raise ConvertError(
                f"{self.config.folder}: `{name}` has the shape {list(weights.shape)}, not "
                f"{[*experts, 2 * width, self.n_embd]}"
            )
        n = experts[0] if experts else 1
        halves = Reshaped(weights, (2 * n, width, self.n_embd))
        return [
            NamedWeights(
                f"{layer}.{half}.weight",
                Reshaped(
                    Concatenated([Sliced(halves, 2 * i + at, 2 * i + at + 1) for i in range(n)]),
                    (*experts, width, self.n_embd),
                ),
            )
            for at, half in enumerate(_FUSED[kind])
        ]

    def required(self) -> Iterator[str]:
        """The two halves instead of the whole."""
        for name in super().required():
            layer, _, kind = name.removesuffix(".weight").rpartition(".")
            if not kind.endswith("_shexp") or self.shared_width:
                yield from (f"{layer}.{half}.weight" for half in _FUSED[kind]) if kind in _FUSED else (name,)
