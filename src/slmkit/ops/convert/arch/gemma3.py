"""Gemma 3: norms of q and k, two ropes, five windows to one full layer; of multimodal checkpoints the text model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from slmkit.formats.gguf.writer import Value, f32, u32
from slmkit.ops.convert.arch.gemma2 import Gemma2
from slmkit.ops.convert.architecture import BUFFERS, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.weights import Sliced, Weights


class Gemma3(Gemma2):
    """Gemma 2 without the soft cap on attention."""

    name = "gemma3"
    hf_names: ClassVar[tuple[str, ...]] = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
    models = "Gemma 3 (text), MedGemma, Rnj-1"
    names: ClassVar[Mapping[str, str]] = {
        **Gemma2.names,
        "lm_head": "output",
        "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
        "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
    }
    ignored = BUFFERS
    left_out: ClassVar[Mapping[str, str]] = {
        r"(model\.)?vision_tower\..*": "vision tower",
        r"(model\.)?multi_modal_projector\..*": "image projector",
    }
    scalings = frozenset({None, "linear", "yarn"})
    transformers: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 262208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 256,
        "sliding_window": 4096,
    }
    n_layers_27b = 62
    every = 6

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.rope.main.setdefault("rope_theta", self.transformers["rope_theta"])
        self.rope.local.setdefault("rope_theta", self.transformers["rope_local_base_freq"])

    def check(self) -> None:
        """The graph scales the rope of full layers only, and has one direction."""
        super().check()
        find = self.config.find
        self.refuse(find("attn_logit_softcapping"), "a soft cap on attention")
        self.refuse(find("use_bidirectional_attention"), "attention in both directions")
        self.refuse(self.rope.kind == "yarn" and any(self.slides()), "yarn rope scaling beside sliding windows")
        local = self.rope.local.get("rope_type")
        self.refuse(local not in (None, "default"), f"`{local}` rope scaling in sliding windows")

    def caps(self) -> tuple[str, ...]:
        """None that cannot be left out."""
        return ()

    def metadata(self) -> dict[str, Value]:
        """The usual keys in the usual order."""
        return Architecture.metadata(self)

    def late_metadata(self) -> dict[str, Value]:
        """Without a window in any layer, llama.cpp must not hear of one."""
        out = {}
        if self.config.find("final_logit_softcapping"):
            out[f"{self.name}.final_logit_softcapping"] = f32(self.config.number("final_logit_softcapping"))
        if any(self.slides()):
            out[f"{self.name}.attention.sliding_window"] = u32(self.config.integer("sliding_window"))
            out |= self.pattern()
        return out

    def rename(self, name: str) -> str:
        """The text model inside a multimodal one."""
        return name.replace("language_model.", "", 1)

    def data(self, name: str, weights: Weights) -> Weights:
        """Rows of the embedding that no token names are cut off."""
        if name in ("token_embd.weight", "output.weight") and weights.shape[:1] > (self.n_vocab,):
            return Sliced(weights, 0, self.n_vocab)
        return super().data(name, weights)
