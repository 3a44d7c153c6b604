"""EXAONE 4.0: norms after the parts, q and k normed by head; the 32B with windows, and no positions elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.families.llama import Llama3
from tests.convert.families.olmo2 import CONFIG, Olmo2, post_norm_shapes
from tests.convert.forward import Decoder, Floats, attend
from tests.factories import LLAMA3_ROPE, write_checkpoint

SMALL = {
    **CONFIG,
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "bos_token_id": 1,
    "head_dim": 16,
    "layer_types": ["full_attention", "full_attention"],
    "rope_scaling": {**LLAMA3_ROPE, "factor": 16.0},
    "sliding_window": None,
    "sliding_window_pattern": None,
    "tie_word_embeddings": True,
}
LARGE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "head_dim": 8,
    "layer_types": ["full_attention" if (i + 1) % 4 == 0 else "sliding_attention" for i in range(64)],
    "num_hidden_layers": 64,
    "sliding_window": 8,
    "sliding_window_pattern": "LLLG",
    "tie_word_embeddings": False,
}


def _exaone4(folder: Path, **config: Any) -> Path:
    c = {**SMALL, **config}
    return write_checkpoint(folder, c, post_norm_shapes(c, c["head_dim"], c["head_dim"]), tokenizer=False)


class Exaone4(Olmo2, Llama3):
    """Positions only where there is a window, or in all layers when there is none."""

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        p = f"{self.at(i)}self_attn."
        q, k, v = Decoder.qkv(self, i, x)
        return self.norm(f"{p}q_norm", q), self.norm(f"{p}k_norm", k), v

    def sees_window(self, i: int) -> bool:
        return bool(self.config["layer_types"][i] == "sliding_attention")

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        window = self.config["sliding_window"] if self.sees_window(i) else 0
        return attend(q, k, v, self.head_dim**-0.5, window=window)

    def position(self, i: int, x: Floats) -> Floats:
        return super().position(i, x) if self.sees_window(i) or not self.config["sliding_window"] else x


CASES = {
    "tiny-exaone4": Case(_exaone4, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=Exaone4),
    "tiny-exaone4-32b": Case(lambda folder: _exaone4(folder, **LARGE), tokenizer="smollm2", forward=Exaone4),
}
