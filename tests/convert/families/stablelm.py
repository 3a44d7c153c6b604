"""StableLM: layer norms, partial rotary; the 12B's norms of each head and parallel residual."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, inverse_frequencies, layer_norm, rotate
from tests.factories import write_checkpoint

CONFIG: dict[str, Any] = {
    "architectures": ["StableLmForCausalLM"],
    "model_type": "stablelm",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "partial_rotary_factor": 0.25,
    "qk_layernorm": False,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
    "use_parallel_residual": False,
    "use_qkv_bias": True,
    "vocab_size": 49160,
}
LARGE = {
    "num_key_value_heads": 2,
    "partial_rotary_factor": 0.5,
    "qk_layernorm": True,
    "use_parallel_residual": True,
    "use_qkv_bias": False,
}


def _stablelm(folder: Path, **config: Any) -> Path:
    c = {**CONFIG, **config}
    h, f, v = c["hidden_size"], c["intermediate_size"], c["vocab_size"]
    heads = {"q": c["num_attention_heads"], "k": c["num_key_value_heads"], "v": c["num_key_value_heads"]}
    d = h // heads["q"]
    shapes: dict[str, tuple[int, ...]] = {"lm_head.weight": (v, h), "model.embed_tokens.weight": (v, h)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        norms = ("input_layernorm",) if c["use_parallel_residual"] else ("input_layernorm", "post_attention_layernorm")
        shapes |= {f"{p}{norm}.{kind}": (h,) for norm in norms for kind in ("bias", "weight")}
        shapes |= {f"{p}mlp.{n}_proj.weight": (f, h) for n in ("gate", "up")} | {f"{p}mlp.down_proj.weight": (h, f)}
        for n, count in heads.items():
            shapes[f"{p}self_attn.{n}_proj.weight"] = (count * d, h)
            if c["use_qkv_bias"]:
                shapes[f"{p}self_attn.{n}_proj.bias"] = (count * d,)
            if c["qk_layernorm"] and n != "v":
                shapes |= {f"{p}self_attn.{n}_layernorm.norms.{j}.weight": (d,) for j in range(count)}
        shapes[f"{p}self_attn.o_proj.weight"] = (h, h)
    return write_checkpoint(folder, c, shapes | {"model.norm.bias": (h,), "model.norm.weight": (h,)}, tokenizer=False)


class StableLm(Decoder):
    """With layer norms; in parallel, the MLP gets what attention gets."""

    def norm(self, name: str, x: Floats) -> Floats:
        eps = self.config["layer_norm_eps"]
        return layer_norm(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias", 0.0), eps)

    def layer(self, i: int, x: Floats) -> Floats:
        if not self.config["use_parallel_residual"]:
            return super().layer(i, x)
        normed = self.norm(f"{self.at(i)}input_layernorm", x)
        return x + self.attention(i, normed) + self.mlp(i, normed)

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        if not self.config["qk_layernorm"]:
            return q, k, v
        return self.heads_normed(f"{self.at(i)}self_attn.q", q), self.heads_normed(f"{self.at(i)}self_attn.k", k), v

    def heads_normed(self, name: str, x: Floats) -> Floats:
        out = x.copy()
        for head in range(x.shape[1]):
            out[:, head] = self.norm(f"{name}_layernorm.norms.{head}", x[:, head])
        return out

    def position(self, i: int, x: Floats) -> Floats:
        n = int(self.config["partial_rotary_factor"] * self.head_dim)
        return rotate(x, inverse_frequencies(n, self.config["rope_theta"]))


CASES = {
    "tiny-stablelm": Case(_stablelm, ("f16", "bf16", "q8_0"), tokenizer="smollm2", forward=StableLm),
    # llama.cpp's converter loses the norms of the heads, and says so.
    "tiny-stablelm-12b": Case(lambda folder: _stablelm(folder, **LARGE), (), "smollm2", forward=StableLm),
    # llama.cpp's converter forgets the frequency base.
    "tiny-stable-code": Case(
        lambda folder: _stablelm(folder, rope_theta=1000000, use_qkv_bias=False), (), "smollm2", forward=StableLm
    ),
}
