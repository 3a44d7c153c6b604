"""EXAONE 4.0: norms after attention and MLP, and over each head of q and k."""

from __future__ import annotations

from typing import Any, ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, bools, u32
from slmkit.ops.convert.arch.olmo2 import POST_NORM_NAMES
from slmkit.ops.convert.architecture import Architecture
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.limits import SILU, full_width, only

_LAYERS_WITH_WINDOW = 64
"""llama.cpp takes a model for the 32B, which has a sliding window, by this number of layers and by nothing else:
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/src/models/exaone4.cpp."""


class Exaone4(Architecture):
    """The 32B sees a window in three of four layers, and has no positions in the fourth."""

    name = "exaone4"
    hf_names: ClassVar[tuple[str, ...]] = ("Exaone4ForCausalLM",)
    models = "EXAONE 4.0 1.2B and 32B"
    names = POST_NORM_NAMES
    biases: ClassVar[frozenset[str] | None] = frozenset()
    scalings: ClassVar[frozenset[str | None]] = frozenset({None, "linear", "yarn", "llama3"})

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers fills in, the window aside: there `null` is not the same as nothing."""
        return {
            "num_key_value_heads": 32,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        }

    @property
    def window(self) -> int | None:
        """Tokens that most layers see; `None`: everything."""
        if "sliding_window" in self.config.raw and not self.config.has("sliding_window"):
            return None
        return self.config.integer("sliding_window", default=4096)

    def kinds(self) -> list[str]:
        """Each layer's attention; `sliding_window_pattern` is a period, or a text such as LLLG."""
        if self.config.has("layer_types"):
            return self.config.words("layer_types", self.n_layers)
        pattern = self.config.raw.get("sliding_window_pattern", 4)
        if isinstance(pattern, str) and pattern:
            local = [pattern[i % len(pattern)] == "L" for i in range(self.n_layers)]
        else:
            period = self.config.integer("sliding_window_pattern", default=4)
            local = [(i + 1) % period != 0 for i in range(self.n_layers)]
        return ["sliding_attention" if here else "full_attention" for here in local]

    def check(self) -> None:
        """A window where llama.cpp expects one, and nowhere else."""
        super().check()
        full_width(self.config, self.name, self.n_embd, self.n_heads, self.n_kv_heads, self.head_dim)
        only(self.config, self.name, "hidden_act", *SILU)
        expected = self.n_layers == _LAYERS_WITH_WINDOW
        if (self.window is not None) is not expected:
            raise ConvertError(
                f"{self.config.path}: llama.cpp {'always' if expected else 'never'} gives an exaone4 of "
                f"{self.n_layers} layers a sliding window, and config.json has `sliding_window` {self.window}"
            )
        self.kinds()

    def late_metadata(self) -> dict[str, Value]:
        """The window and the layers that have it."""
        out = {f"{self.name}.vocab_size": u32(self.n_vocab)}
        if self.window is not None:
            local = [kind == "sliding_attention" for kind in self.kinds()]
            out[f"{self.name}.attention.sliding_window"] = u32(self.window)
            out[f"{self.name}.attention.sliding_window_pattern"] = bools(local)
        return out
