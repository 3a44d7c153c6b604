"""What the architectures with state-space layers share (Mamba and its heirs), and the tensors of such layers.

llama.cpp's converter computes in half precision where the checkpoint has it, and in float32 otherwise; so does this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, f32, u32
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.shapes import Shape
from slmkit.ops.convert.weights import Computed, Floats, Reshaped, Weights

_BARE = (".ssm_a", ".ssm_d")
"""Tensors that are called neither weight nor bias, in checkpoints and in GGUF."""


class StateSpace(Architecture):
    """State-space layers as llama.cpp has them: SiLU, a convolution with bias, projections without."""

    scalings = frozenset({None})
    vocab_multiple = 1
    """The first releases leave it to the reader to round the size of the vocabulary up."""

    @property
    def n_vocab(self) -> int:
        """Rounded up to `pad_vocab_size_multiple`."""
        multiple = self.config.integer("pad_vocab_size_multiple", default=self.vocab_multiple)
        return -(-super().n_vocab // multiple) * multiple

    @property
    def n_inner(self) -> int:
        """Channels of a state-space layer."""
        return self.config.integer("intermediate_size", "d_inner", default=2 * self.n_embd)

    @property
    def eps(self) -> float:
        """Of all norms."""
        return self.config.number("layer_norm_epsilon", "rms_norm_eps", default=1e-5)

    def check_layer(self, act: str, proj_bias: str, conv_bias: str) -> None:
        """Raise `ConvertError` for a layer that llama.cpp does not have; the arguments are names of keys."""
        refused = {
            act: self.config.find(act) not in (None, "silu"),
            proj_bias: bool(self.config.find(proj_bias)),
            conv_bias: self.config.find(conv_bias) is False,
        }
        for key in (key for key, wrong in refused.items() if wrong):
            raise ConvertError(
                f"{self.config.path}: llama.cpp has no {self.name} layers with `{key}` {self.config.raw[key]!r}"
            )

    def metadata(self) -> dict[str, Value]:
        """No attention, no MLP, and a context of a million tokens, which stands for no limit.

        https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/mamba.py
        """
        return {
            f"{self.name}.context_length": u32(1 << 20),
            f"{self.name}.embedding_length": u32(self.n_embd),
            f"{self.name}.feed_forward_length": u32(0),
            f"{self.name}.attention.head_count": u32(0),
            f"{self.name}.block_count": u32(self.n_layers),
        }

    def ssm_metadata(self, width: int, n_states: int, rank: int) -> dict[str, Value]:
        """Of the layers: width of the convolution, states of a channel, rank of the time step (or number of heads)."""
        return {
            f"{self.name}.ssm.conv_kernel": u32(width),
            f"{self.name}.ssm.inner_size": u32(self.n_inner),
            f"{self.name}.ssm.state_size": u32(n_states),
            f"{self.name}.ssm.time_step_rank": u32(rank),
        }

    def shapes(self) -> Mapping[str, Shape | None]:
        """By what `ssm_metadata` says. With groups the time step goes by heads, without by channels (Mamba)."""
        ssm = {key.rpartition(".ssm.")[2]: value.value for key, value in self.metadata().items() if ".ssm." in key}
        width, inner, kernel = self.n_embd, self.n_inner, ssm["conv_kernel"]
        states, rank, groups = ssm["state_size"], ssm["time_step_rank"], ssm.get("group_count")
        out: dict[str, Shape] = {"ssm_out": (width, inner)}
        if groups is None:
            out |= {"ssm_in": (2 * inner, width), "ssm_conv1d": (inner, kernel), "ssm_dt": (inner, rank)}
            out |= {"ssm_x": (rank + 2 * states, inner), "ssm_a": (inner, states), "ssm_d": (inner,)}
        else:
            mixed = inner + 2 * groups * states
            out |= {"ssm_in": (inner + mixed + rank, width), "ssm_conv1d": (mixed, kernel), "ssm_dt": (rank,)}
            out |= {"ssm_a": (rank, 1), "ssm_d": (rank, 1), "ssm_norm": (groups, inner // groups)}
        return {**super().shapes(), **{f"blk.{{}}.{name}": shape for name, shape in out.items()}}

    def eps_metadata(self) -> dict[str, Value]:
        """Of all norms."""
        return {f"{self.name}.attention.layer_norm_rms_epsilon": f32(self.eps)}

    def rename(self, name: str) -> str:
        """What the first releases, and those of Mistral AI, call otherwise."""
        for prefix in ("model.backbone.", "model.lm_head."):
            if name.startswith(prefix):
                name = name.removeprefix("model.")
        return name.replace("backbone.embedding.", "backbone.embeddings.")

    def gguf_name(self, name: str) -> str | None:
        """See `_BARE`."""
        bare = name.endswith((".A_log", ".D"))
        found = super().gguf_name(f"{name}.weight" if bare else name)
        return found.removesuffix(".weight") if bare and found else found

    def required(self) -> Iterator[str]:
        """And two of the biases."""
        for name in super().required():
            base = name.removesuffix(".weight")
            yield base if base.endswith(_BARE) else name
        for i in range(self.n_layers):
            yield f"blk.{i}.ssm_conv1d.bias"
            yield f"blk.{i}.ssm_dt.bias"

    def data(self, name: str, weights: Weights) -> Weights:
        """llama.cpp has A itself, and the kernels as a matrix."""
        match name.rpartition(".ssm_")[2]:
            case "a":
                return decay(weights)
            case "conv1d.weight":
                return squeezed(weights)
        return weights


def decay(a_log: Weights) -> Computed:
    """-exp(A_log), how fast a state fades, rounded correctly from float64.

    That is what torch gives for float16. For float32 torch takes what the processor's vector library gives, which is
    off by one in the last place for 0.4 to 4 % of all numbers and differs between processors: nothing to imitate.
    """
    return Computed(a_log, partial(_decay, halves=a_log.dtype == "F16"))


def multiplied(source: Weights, *factors: float | Floats) -> Weights:
    """Each number times the factors, one after the other; each product is rounded.

    A factor may be an array with a value for each row.
    """
    used = [np.float32(factor) for factor in factors if np.any(np.float32(factor) != 1)]
    function = partial(_multiplied, used, math.prod(source.shape[1:]), halves=source.dtype == "F16")
    return Computed(source, function) if used else source


def squeezed(kernel: Weights) -> Reshaped:
    """The kernel of a depthwise convolution, (channels, 1, width), without its middle."""
    return Reshaped(kernel, tuple(n for n in kernel.shape if n != 1))


def _decay(part: Floats, _: int, *, halves: bool) -> Floats:
    with np.errstate(over="ignore"):
        return -_rounded(np.exp(part.astype(np.float64)).astype(np.float32), halves=halves)


def _multiplied(factors: list[Any], columns: int, part: Floats, start: int, *, halves: bool) -> Floats:
    first, last = start // columns, -(-(start + part.size) // columns)
    with np.errstate(over="ignore"):
        for factor in factors:
            if factor.ndim:
                factor = np.repeat(factor[first:last], columns)[start - first * columns :][: part.size]
            part = _rounded(part * factor, halves=halves)
    return part


def _rounded(part: Floats, *, halves: bool) -> Floats:
    return part.astype(np.float16).astype(np.float32) if halves else part
