"""Gemma 3n: four streams (AltUp), low-rank residuals (LAuReL), an embedding for each layer; the text model of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, bools, f32, f32s, i32s, u32
from slmkit.formats.safetensors import DTYPES
from slmkit.ops.convert.arch.gemma3 import Gemma3
from slmkit.ops.convert.architecture import NamedWeights
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.shapes import Shape
from slmkit.ops.convert.weights import Array, Concatenated, Sliced, Stacked, Weights

_PER_LAYER = {
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "altup.correction_coefs": "altup_correct_coef",
    "altup.correct_output_scale": "altup_correct_scale",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
}
_FIXED: dict[str, Any] = {
    "altup_num_inputs": 4,
    "altup_active_idx": 0,
    "altup_correct_scale": True,
    "hidden_size_per_layer_input": 256,
    "laurel_rank": 64,
    "final_logit_softcapping": 30.0,
}
_FIRST_SHARED = 20
_N_SPARSE, _SPARSE = 10, 0.95
"""Constants of llama.cpp: src/llama-hparams.h and src/models/gemma3n.cpp at 0c1e57098."""


class Gemma3n(Gemma3):
    """Gemma 3's layers in a wider frame; norms are stored as they are multiplied."""

    name = "gemma3n"
    hf_names: ClassVar[tuple[str, ...]] = ("Gemma3nForCausalLM", "Gemma3nForConditionalGeneration")
    models = "Gemma 3n E2B and E4B (text)"
    names: ClassVar[Mapping[str, str]] = {
        **Gemma3.names,
        "model.embed_tokens_per_layer": "per_layer_token_embd",
        "model.per_layer_model_projection": "per_layer_model_proj",
        "model.per_layer_projection_norm": "per_layer_proj_norm",
        "model.altup_projections.{}": "altup_proj",
        "model.altup_unembed_projections.{}": "altup_unembd_proj",
        **{f"model.layers.{{}}.{source}": f"blk.{{}}.{target}" for source, target in _PER_LAYER.items()},
    }
    left_out: ClassVar[Mapping[str, str]] = {
        r"model\.(vision_tower|embed_vision)\..*": "vision tower",
        r"model\.(audio_tower|embed_audio)\..*": "audio encoder",
    }
    scalings = frozenset({None, "linear"})
    transformers: ClassVar[Mapping[str, Any]] = {
        **Gemma3.transformers,
        **_FIXED,
        "vocab_size": 262400,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 35,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "sliding_window": 512,
        "num_kv_shared_layers": 15,
    }
    every = 5

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.stacks: dict[str, dict[int, Weights]] = {}

    def check(self) -> None:
        """The graph has most of the shape built in."""
        super().check()
        for key, value in _FIXED.items():
            found = self.config.find(key)
            self.refuse(found != value, f"`{key}` {found} (it assumes {value})")
        n, shared = self.n_layers, self.n_shared
        self.refuse(
            n - shared != _FIRST_SHARED and (shared or n > _FIRST_SHARED),
            f"{shared} of {n} layers that share keys and values (it shares from layer {_FIRST_SHARED} on)",
        )
        self.refuse(n > _FIRST_SHARED and self.slides()[18:20] != [True, False], "these `layer_types`")
        n_sparse = min(n, _N_SPARSE)
        self.refuse(
            self.sparsity() != [_SPARSE] * n_sparse + [0.0] * (n - n_sparse),
            f"another `activation_sparsity_pattern` than {_SPARSE} in the first {_N_SPARSE} layers",
        )
        self.refuse(len(set(self.widths())) > 1, "layers of different `intermediate_size`")

    @property
    def n_shared(self) -> int:
        """Layers at the end that see the keys and values of earlier ones."""
        return int(self.config.number("num_kv_shared_layers"))

    def check_scale(self) -> None:
        """Both do without."""

    def caps(self) -> tuple[str, ...]:
        """See `check`."""
        return ("final_logit_softcapping",)

    def sparsity(self) -> list[float]:
        """For each layer, the share of the MLP's gates that is cut off."""
        if self.config.has("activation_sparsity_pattern"):
            return self.config.numbers("activation_sparsity_pattern", self.n_layers)
        n_sparse = _N_SPARSE if self.n_layers > _N_SPARSE else 0
        return [_SPARSE] * n_sparse + [0.0] * (self.n_layers - n_sparse)

    def widths(self) -> list[int]:
        """Of the MLP of each layer."""
        if isinstance(self.config.raw["intermediate_size"], list):
            return [int(n) for n in self.config.numbers("intermediate_size", self.n_layers)]
        return [self.config.integer("intermediate_size")] * self.n_layers

    @property
    def n_ff(self) -> int:
        """The same for all layers, see `check`."""
        return self.widths()[0]

    def metadata(self) -> dict[str, Value]:
        """One width for each layer, as transformers has it."""
        return super().metadata() | {f"{self.name}.feed_forward_length": i32s(self.widths())}

    def late_metadata(self) -> dict[str, Value]:
        """Which the graph does not read, but for the window and the layers that have it."""
        a, c = self.name, self.config
        return {
            f"{a}.final_logit_softcapping": f32(c.number("final_logit_softcapping")),
            f"{a}.attention.sliding_window": u32(c.integer("sliding_window")),
            f"{a}.altup.active_idx": u32(_FIXED["altup_active_idx"]),
            f"{a}.altup.num_inputs": u32(_FIXED["altup_num_inputs"]),
            f"{a}.embedding_length_per_layer_input": u32(_FIXED["hidden_size_per_layer_input"]),
            f"{a}.attention.shared_kv_layers": u32(self.n_shared),
            f"{a}.activation_sparsity_scale": f32s([deviations(share) for share in self.sparsity()]),
            f"{a}.attention.sliding_window_pattern": bools(self.slides()),
        }

    def shapes(self) -> Mapping[str, Shape | None]:
        """With the sizes that the graph has built in."""
        width, n, rank = self.n_embd, _FIXED["altup_num_inputs"], _FIXED["laurel_rank"]
        own = _FIXED["hidden_size_per_layer_input"]
        layer: dict[str, Shape] = {
            "inp_gate": (own, width),
            "proj": (width, own),
            "post_norm": (width,),
            "altup_correct_coef": (n, n),
            "altup_correct_scale": (width,),
            "altup_predict_coef": (n * n, n),
            "altup_router": (n, width),
            "altup_router_norm": (width,),
            "laurel_l": (rank, width),
            "laurel_r": (width, rank),
            "laurel_post_norm": (width,),
        }
        whole: dict[str, Shape] = {
            "per_layer_token_embd": (self.n_vocab, self.n_layers * own),
            "per_layer_model_proj": (self.n_layers * own, width),
            "per_layer_proj_norm": (own,),
            "altup_proj": (n - 1, width, width),
            "altup_unembd_proj": (n - 1, width, width),
        }
        return {**super().shapes(), **whole, **{f"blk.{{}}.{name}": shape for name, shape in layer.items()}}

    def rename(self, name: str) -> str:
        """A scale is a parameter without a layer of its own."""
        name = super().rename(name)
        return f"{name}.weight" if name.endswith("_scale") else name

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """The projections to and from the other streams are one tensor each, placed where the last one stands."""
        target = self.gguf_name(name)
        if target not in ("altup_proj.weight", "altup_unembd_proj.weight"):
            return super().place(name, weights)
        number, n = int(name.split(".")[-2]), _FIXED["altup_num_inputs"] - 1
        parts = self.stacks.setdefault(target, {})
        parts[number] = weights
        first = next(iter(parts.values()))
        if (weights.shape, weights.dtype) != (first.shape, first.dtype):
            raise ConvertError(f"{self.config.folder}: tensor `{name}` has another shape or type than its neighbours")
        if number >= n:
            return None
        if len(parts) < n:
            return []
        del self.stacks[target]
        return [NamedWeights(target, Stacked([parts[i] for i in range(n)]))]

    def data(self, name: str, weights: Weights) -> Weights:
        """Tokens of images and sound have no rows of their own: zeros."""
        if name not in ("token_embd.weight", "per_layer_token_embd.weight") or len(weights.shape) != 2:
            return weights
        rows, columns = weights.shape
        if self.n_vocab > 2 * rows:
            raise ConvertError(f"{self.config.path}: `vocab_size` is {self.n_vocab}, but `{name}` has {rows} rows")
        if rows >= self.n_vocab:
            return Sliced(weights, 0, self.n_vocab)
        return Concatenated([weights, Zeros((self.n_vocab - rows, columns), weights.dtype)])


@dataclass(frozen=True)
class Zeros:
    """Rows that no file holds."""

    shape: tuple[int, ...]
    dtype: str

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`."""
        return np.zeros(stop - start, DTYPES[self.dtype])


def deviations(share: float) -> float:
    """How many standard deviations above the mean `share` of a normal distribution ends.

    `torch.distributions.Normal.icdf` in float32: each step is rounded, the inverse error function is exact.
    """
    y = np.float32(2) * np.float32(share) - np.float32(1)
    if y == -1:
        return -math.inf
    erfinv = NormalDist().inv_cdf((float(y) + 1) / 2) / math.sqrt(2)
    return float(np.float32(erfinv) * np.float32(math.sqrt(2)))
