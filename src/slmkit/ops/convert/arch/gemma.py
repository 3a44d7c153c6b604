"""Gemma: norms that count from one, scaled embeddings, GELU, and the first generation's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, f32, u32
from slmkit.ops.convert.architecture import BUFFERS, STANDARD_NAMES, Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.vocab import Vocab
from slmkit.ops.convert.weights import Weights, shifted

_PREFIX = "tokenizer.ggml.add_space_prefix"
_TANH_GELU = ("gelu_pytorch_tanh", "gelu_new", "gelu")
"""llama.cpp has one GELU, the approximation by tanh; Gemma 1 says `gelu` and means it."""


class Gemma(Architecture):
    """Llama's tensors, tied; llama.cpp's graph has no output matrix and no bias."""

    name = "gemma"
    hf_names: ClassVar[tuple[str, ...]] = ("GemmaForCausalLM",)
    models = "Gemma, CodeGemma"
    names: ClassVar[Mapping[str, str]] = {k: v for k, v in STANDARD_NAMES.items() if v != "output"}
    ignored: ClassVar[tuple[str, ...]] = (*BUFFERS, r"lm_head\.weight")
    scalings = frozenset({None, "linear"})
    transformers: ClassVar[Mapping[str, Any]] = {
        "vocab_size": 256000,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    """Defaults of the class in transformers 4.57, which are left out of published config.json files."""
    activation: ClassVar[tuple[str, ...]] = ("hidden_act",)

    def defaults(self, config: Config) -> dict[str, Any]:
        """A key that is `null` stays so: for a soft cap it means none."""
        return {key: value for key, value in self.transformers.items() if key not in config.raw}

    def check(self) -> None:
        """Refuse what the graph takes for granted and this model does otherwise."""
        super().check()
        find = self.config.find
        self.refuse(find("attention_bias"), "biases in the attention")
        self.refuse(self.rope.partial_factor not in (None, 1.0), "heads that are rotated in part")
        used = find(*self.activation) or _TANH_GELU[0]
        self.refuse(used not in _TANH_GELU, f"the activation `{used}`")
        self.refuse("output" not in self.names.values() and find("tie_word_embeddings") is False, "an untied output")

    def refuse(self, wrong: Any, what: str) -> None:
        """Raise `ConvertError` when `wrong`: llama.cpp's graph has no `what`."""
        if wrong:
            raise ConvertError(
                f"{self.config.path}: llama.cpp runs no {self.name} with {what}",
                hint="the file would load and talk nonsense, so it is not written",
            )

    def metadata(self) -> dict[str, Value]:
        """In the order of `GemmaModel` in conversion/gemma.py; a rope out of the ordinary comes on top."""
        a, c = self.name, self.config
        out = {
            f"{a}.context_length": u32(c.integer("max_position_embeddings")),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.feed_forward_length": u32(c.integer("intermediate_size")),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.head_count_kv": u32(self.n_kv_heads),
            f"{a}.attention.layer_norm_rms_epsilon": f32(c.number("rms_norm_eps")),
            f"{a}.attention.key_length": u32(self.head_dim),
            f"{a}.attention.value_length": u32(self.head_dim),
        }
        plain = self.rope.kind is None and self.rope.main.get("rope_theta") == 10000.0
        return out if plain else out | self.rope.metadata(a)

    def read_vocab(self, folder: Path, pre: str | None) -> Vocab:
        """No space is put before a text."""
        found = super().read_vocab(folder, pre)
        return found if found.space_prefix is not None else replace(found, space_prefix=False)

    def vocab(self, folder: Path, pre: str | None = None) -> dict[str, Value]:
        """With the end of a turn, which the first generation's files do not name."""
        out = super().vocab(folder, pre)
        if self.name == "gemma" and out["tokenizer.ggml.tokens"].value[107:108] == ["<end_of_turn>"]:
            prefix = out.pop(_PREFIX)
            out |= {"tokenizer.ggml.eot_token_id": u32(107), _PREFIX: prefix}
        return out

    def data(self, name: str, weights: Weights) -> Weights:
        """transformers multiplies by one plus the norm's weight."""
        return shifted(weights, 1.0) if name.endswith("norm.weight") else weights
