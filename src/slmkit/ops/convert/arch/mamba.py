"""Mamba: selective state-space layers without attention, in the names of transformers and of the first releases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, boolean
from slmkit.ops.convert.architecture import NamedWeights
from slmkit.ops.convert.statespace import StateSpace
from slmkit.ops.convert.weights import Weights


class Mamba(StateSpace):
    """One state-space layer after the other. Falcon-Mamba also normalizes dt, B and C, without weights."""

    name = "mamba"
    hf_names: ClassVar[tuple[str, ...]] = ("MambaForCausalLM", "MambaLMHeadModel", "FalconMambaForCausalLM")
    models = "Mamba 130M to 2.8B, Falcon-Mamba 7B, Falcon3-Mamba 7B"
    names: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "backbone.embeddings": "token_embd",
            "backbone.norm_f": "output_norm",
            "lm_head": "output",
            "backbone.layers.{}.norm": "blk.{}.attn_norm",
            "backbone.layers.{}.mixer.in_proj": "blk.{}.ssm_in",
            "backbone.layers.{}.mixer.conv1d": "blk.{}.ssm_conv1d",
            "backbone.layers.{}.mixer.x_proj": "blk.{}.ssm_x",
            "backbone.layers.{}.mixer.dt_proj": "blk.{}.ssm_dt",
            "backbone.layers.{}.mixer.A_log": "blk.{}.ssm_a",
            "backbone.layers.{}.mixer.D": "blk.{}.ssm_d",
            "backbone.layers.{}.mixer.out_proj": "blk.{}.ssm_out",
        }
    )
    vocab_multiple = 8

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self.config.integer("hidden_size", "d_model")

    @property
    def falcon(self) -> bool:
        """Whether dt, B and C are normalized."""
        return bool(self.config.find("model_type") == "falcon_mamba")

    def check(self) -> None:
        """llama.cpp has one kind of Mamba layer."""
        super().check()
        self.check_layer("hidden_act", "use_bias", "use_conv_bias")
        if self.n_inner != 2 * self.n_embd:
            raise ConvertError(
                f"{self.config.path}: llama.cpp has no {self.name} layers of {self.n_inner} channels in a model of "
                f"{self.n_embd}"
            )
        if self.config.find("rms_norm") is False:
            raise ConvertError(f"{self.config.path}: llama.cpp's {self.name} has RMS norms, not `rms_norm` False")

    def metadata(self) -> dict[str, Value]:
        """With transformers' words or those of the first releases."""
        config = self.config
        guess = -(-self.n_embd // 16)
        auto = config.find("time_step_rank", "dt_rank") == "auto"
        rank = guess if auto else config.integer("time_step_rank", "dt_rank", default=guess)
        width = config.integer("conv_kernel", "d_conv", default=4)
        n_states = config.integer("state_size", "d_state", default=16)
        out = super().metadata() | self.ssm_metadata(width, n_states, rank) | self.eps_metadata()
        return out | {f"{self.name}.ssm.dt_b_c_rms": boolean(self.falcon)}

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """A tied output in the checkpoint is the embedding once more."""
        tied = self.config.find("tie_word_embeddings", "tie_embeddings") is not False
        return [] if name == "lm_head.weight" and tied else super().place(name, weights)

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """llama.cpp has one epsilon for all norms."""
        out = super().remarks(stored)
        inner = self.config.number("mixer_rms_eps", default=1e-6)
        if self.falcon and inner != self.eps:
            out.append(f"llama.cpp normalizes dt, B and C with an epsilon of {self.eps:g}, the model with {inner:g}")
        return out
