"""Mamba2: state-space layers with heads."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, u32
from slmkit.ops.convert.arch.mamba import Mamba
from slmkit.ops.convert.statespace import StateSpace
from slmkit.ops.convert.weights import Reshaped, Weights


class Mamba2(StateSpace):
    """One decay for each head, and a gated norm that goes by groups of channels.

    The groups are those of https://github.com/state-spaces/mamba/blob/v2.2.4/mamba_ssm/modules/mamba2.py, with which
    the models were trained; transformers 4.57 normalizes all channels together.
    """

    name = "mamba2"
    hf_names: ClassVar[tuple[str, ...]] = ("Mamba2ForCausalLM",)
    models = "Mamba2 130M to 2.7B, Codestral Mamba 7B"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {name: target for name, target in Mamba.names.items() if not name.endswith(".x_proj")}
        | {"backbone.layers.{}.mixer.norm": "blk.{}.ssm_norm"}
    )
    optional = frozenset({"output", "blk.{}.ssm_dt"})
    vocab_multiple = 16

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self.config.integer("hidden_size", "d_model", "dim")

    @property
    def n_inner(self) -> int:
        """Channels of a state-space layer."""
        expand = self.config.integer("expand", default=2)
        return self.config.integer("intermediate_size", "d_inner", default=expand * self.n_embd)

    @property
    def ssm_head_dim(self) -> int:
        """Channels of a head."""
        return self.config.integer("head_dim", default=64)

    @property
    def n_groups(self) -> int:
        """Sets of B and C, which heads share."""
        return self.config.integer("n_groups", default=1)

    def check(self) -> None:
        """llama.cpp has one kind of Mamba2 layer."""
        super().check()
        self.check_layer("hidden_act", "use_bias", "use_conv_bias")
        if self.n_inner % self.ssm_head_dim or self.n_inner % self.n_groups:
            raise ConvertError(
                f"{self.config.path}: {self.n_inner} channels are no heads of {self.ssm_head_dim} in {self.n_groups} "
                "groups"
            )
        limit = self.config.find("time_step_limit")
        if limit is not None and limit != [0.0, inf]:
            raise ConvertError(f"{self.config.path}: llama.cpp cannot limit time steps (`time_step_limit` {limit})")

    def metadata(self) -> dict[str, Value]:
        """The rank of the time step is the number of heads."""
        width = self.config.integer("conv_kernel", "d_conv", "mamba_d_conv", default=4)
        n_states = self.config.integer("state_size", "d_state", "mamba_d_state", default=128)
        return (
            super().metadata()
            | self.ssm_metadata(width, n_states, self.n_inner // self.ssm_head_dim)
            | {f"{self.name}.ssm.group_count": u32(self.n_groups)}
            | self.eps_metadata()
        )

    def rename(self, name: str) -> str:
        """The time step has a bias but no weight."""
        name = super().rename(name)
        return name.removesuffix("dt_bias") + "dt_proj.bias" if name.endswith(".dt_bias") else name

    def data(self, name: str, weights: Weights) -> Weights:
        """One number for each head is a matrix of one column to llama.cpp, and the norm has a row for each group."""
        weights = super().data(name, weights)
        match name.rpartition(".ssm_")[2]:
            case "a" | "d":
                return Reshaped(weights, (*weights.shape, 1))
            case "norm.weight":
                if weights.shape != (self.n_inner,):
                    raise ConvertError(f"{self.config.folder}: `{name}` is not as long as {self.n_inner} channels")
                return Reshaped(weights, (self.n_groups, self.n_inner // self.n_groups))
        return weights
