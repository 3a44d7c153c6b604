"""Gemma 1, 2 and 3: norms that count from one, soft caps, sliding windows, text models inside multimodal ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from slmkit.formats.safetensors import Entry, write_file
from slmkit.formats.sentencepiece import Piece, PieceType, SpecialIds, write_pieces
from tests.convert.families import Case
from tests.convert.forward import Decoder, Floats, attend, gelu_tanh, inverse_frequencies, rms_norm, rotate, tensors_of
from tests.factories import PIECES, as_dtype, weights, write_json

Shapes = dict[str, tuple[int, ...]]

CONTROLS = ("<pad>", "<eos>", "<bos>", "<unk>")
RUNS = tuple("\u2581" * n for n in (4, 3, 2))
"""User-defined pieces: Gemma has its runs of spaces as such, and merges that make them before any other."""
IMAGE = "<image_soft_token>"


def _pieces() -> list[Piece]:
    """The specials in Gemma's order, unused pieces that put the turns where Gemma 1 has them, then the usual."""
    head = [Piece(text, 0.0, PieceType.UNKNOWN if text == "<unk>" else PieceType.CONTROL) for text in CONTROLS]
    user = ["<mask>", *RUNS, *(f"<unused{i}>" for i in range(98)), "<start_of_turn>", "<end_of_turn>"]
    return head + [Piece(text, 0.0, PieceType.USER_DEFINED) for text in user] + PIECES[3:]


GEMMA_PIECES = _pieces()
N_VOCAB = len(GEMMA_PIECES)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
    "{% endfor %}"
)


def gemma_tokenizer_json() -> dict[str, Any]:
    """The same as the tokenizers library has it: merges in the order of the scores, every way to make a token."""
    vocab = {piece.text: i for i, piece in enumerate(GEMMA_PIECES)}
    ranked = sorted((p for p in GEMMA_PIECES if p.type is PieceType.NORMAL), key=lambda p: -p.score)
    pairs = [(text[:i], text[i:]) for text in (*RUNS, *(p.text for p in ranked)) for i in range(1, len(text))]
    merges = [[left, right] for left, right in pairs if left in vocab and right in vocab]
    bos, first, second = {"id": "<bos>", "type_id": 0}, {"id": "A", "type_id": 0}, {"id": "B", "type_id": 1}
    template = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": bos}, {"Sequence": first}],
        "pair": [{"SpecialToken": bos}, {"Sequence": first}, {"SpecialToken": bos}, {"Sequence": second}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
    }
    space = {"String": " "}
    steps = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in gemma_added().items()],
        "normalizer": {"type": "Replace", "pattern": space, "content": "\u2581"},
        "pre_tokenizer": {"type": "Split", "pattern": space, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": template,
        "decoder": {"type": "Sequence", "decoders": [*steps, {"type": "Fuse"}]},
        "model": {**model, "vocab": vocab, "merges": merges},
    }


def gemma_added() -> dict[int, dict[str, Any]]:
    """By id; the last one is beyond the vocabulary, as in Gemma 3 270M and 1B."""
    special = (*CONTROLS, "<start_of_turn>", "<end_of_turn>", IMAGE)
    texts = {
        i: piece.text
        for i, piece in enumerate(GEMMA_PIECES)
        if piece.type in (PieceType.CONTROL, PieceType.UNKNOWN, PieceType.USER_DEFINED)
    }
    off = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {i: {"content": text, **off, "special": text in special} for i, text in {**texts, N_VOCAB: IMAGE}.items()}


def write_gemma_tokenizer(folder: Path) -> None:
    """`tokenizer.model`, tokenizer.json and tokenizer_config.json."""
    special = SpecialIds(unknown=3, bos=2, eos=1, padding=0)
    write_pieces(folder / "tokenizer.model", GEMMA_PIECES, special, add_space_prefix=False)
    write_json(folder / "tokenizer.json", gemma_tokenizer_json())
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): token for i, token in gemma_added().items()},
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "chat_template": TEMPLATE,
        "tokenizer_class": "GemmaTokenizer",
    }
    write_json(folder / "tokenizer_config.json", config)


GEMMA = {
    "attention_bias": False,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "head_dim": 32,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 8192,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "vocab_size": N_VOCAB,
}
SHARP = {"query_pre_attn_scalar": 32, "sliding_window": 8}
CAPS = {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 3.0}


def layer_shapes(c: Mapping[str, Any], p: str, *, norms: tuple[str, ...], qk_norm: bool) -> Shapes:
    """One layer's tensors; `p` is how their names begin."""
    h, f, d = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    out = {
        "mlp.gate_proj": (f, h),
        "mlp.up_proj": (f, h),
        "mlp.down_proj": (h, f),
        "self_attn.q_proj": (q, h),
        "self_attn.k_proj": (kv, h),
        "self_attn.v_proj": (kv, h),
        "self_attn.o_proj": (h, q),
        **dict.fromkeys(norms, (h,)),
        **({"self_attn.q_norm": (d,), "self_attn.k_norm": (d,)} if qk_norm else {}),
    }
    return {f"{p}{name}.weight": shape for name, shape in out.items()}


TWO = ("input_layernorm", "post_attention_layernorm")
FOUR = (*TWO, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def shapes(c: Mapping[str, Any], prefix: str = "model.", *, rows: int = 0) -> Shapes:
    """Of a whole text model; `rows` of the embedding, when they are more than tokens."""
    gen = {"gemma": 1, "gemma2": 2}.get(c["model_type"], 3)
    out: Shapes = {f"{prefix}embed_tokens.weight": (rows or c["vocab_size"], c["hidden_size"])}
    for i in range(c["num_hidden_layers"]):
        out |= layer_shapes(c, f"{prefix}layers.{i}.", norms=TWO if gen == 1 else FOUR, qk_norm=gen == 3)
    return out | {f"{prefix}norm.weight": (c["hidden_size"],)}


def write(folder: Path, config: Mapping[str, Any], tensors: Shapes, *, dtype: str = "BF16", norm: float = -0.6) -> Path:
    """A checkpoint with Gemma's tokenizer. Norms are around `norm`: what a layer adds is less than what there is.

    Otherwise a difference in rounding grows from layer to layer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dict(sorted(config.items())))
    write_json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": [1, 107], "top_k": 64})
    (folder / "README.md").write_text("---\nlicense: gemma\n---\n# tiny gemma\n", encoding="utf-8")
    write_gemma_tokenizer(folder)
    entries = [Entry(name, dtype, shape, values(name, shape, dtype, norm)) for name, shape in tensors.items()]
    write_file(folder / "model.safetensors", entries)
    return folder


def values(name: str, shape: tuple[int, ...], dtype: str, norm: float) -> Iterator[npt.NDArray[Any]]:
    """Random ones, norms around `norm`."""
    for part in weights(name, shape, "F32", 1):
        yield as_dtype(part - 1 + norm if name.endswith("norm.weight") else part, dtype)


def plain(architecture: str, model_type: str, **config: Any) -> Callable[[Path], Path]:
    """A text model by itself."""
    c = {**GEMMA, "architectures": [architecture], "model_type": model_type, "torch_dtype": "bfloat16", **config}
    return lambda folder: write(folder, {k: v for k, v in c.items() if v is not ...}, shapes(c))


VISION = {
    "vision_tower.vision_model.embeddings.patch_embedding.weight": (8, 3, 2, 2),
    "vision_tower.vision_model.encoder.layers.0.layer_norm1.weight": (8,),
    "multi_modal_projector.mm_input_projection_weight": (8, 64),
    "multi_modal_projector.mm_soft_emb_norm.weight": (8,),
}
LINEAR = {"factor": 8.0, "rope_type": "linear"}


def _multimodal(text: Mapping[str, Any], **top: Any) -> dict[str, Any]:
    return {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", **text},
        "vision_config": {"hidden_size": 8, "model_type": "siglip_vision_model", "num_hidden_layers": 1},
        "eos_token_id": [1, 107],
        "image_token_index": N_VOCAB,
        "mm_tokens_per_image": 256,
        "torch_dtype": "bfloat16",
        **top,
    }


def _published(folder: Path) -> Path:
    """As google/gemma-3-4b-it: what its text_config leaves out, and more rows in the embedding than tokens."""
    text: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 7, "sliding_window": 8}
    text |= {"rope_scaling": LINEAR, "vocab_size": N_VOCAB}
    full = {**text, "model_type": "gemma3_text", "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    return write(folder, _multimodal(text), VISION | shapes(full, "language_model.model.", rows=N_VOCAB + 64))


def _resaved(folder: Path) -> Path:
    """As a newer transformers writes it, with an output of its own."""
    local = {"rope_type": "default", "rope_theta": 1e4}
    rope = {"sliding_attention": local, "full_attention": {**LINEAR, "rope_theta": 1e6}}
    text: dict[str, Any] = {
        **GEMMA,
        **SHARP,
        "rope_parameters": rope,
        "num_hidden_layers": 7,
        "tie_word_embeddings": False,
    }
    del text["rope_theta"]
    text["layer_types"] = ["full_attention" if i == 5 else "sliding_attention" for i in range(7)]
    full = {**text, "model_type": "gemma3_text"}
    tensors = {f"model.{name}": shape for name, shape in VISION.items()} | shapes(full, "model.language_model.")
    config = _multimodal(text, tie_word_embeddings=False)
    return write(folder, config, tensors | {"lm_head.weight": (N_VOCAB, 64)})


def gelu(x: Floats) -> Floats:
    """As ggml has it: from a table over float16, which is 1e-3 apart; norms after the MLP make that visible."""
    half = x.astype(np.float16).astype(np.float32)
    return gelu_tanh(half).astype(np.float16).astype(np.float32)


class Gemma(Decoder):
    """Norms that count from one, the embedding scaled by the root of its width."""

    def norm(self, name: str, x: Floats) -> Floats:
        return rms_norm(x, 1 + self.tensors[f"{name}.weight"], self.eps)

    def embed(self, tokens: npt.NDArray[np.int64]) -> Floats:
        return super().embed(tokens) * np.float32(np.sqrt(self.config["hidden_size"]))

    def mlp(self, i: int, x: Floats) -> Floats:
        p = f"{self.at(i)}mlp."
        gate, up = self.linear(f"{p}gate_proj", x), self.linear(f"{p}up_proj", x)
        return self.linear(f"{p}down_proj", gelu(gate) * up)


class GemmaRope(Gemma):
    """With rope scaling, which no published Gemma has."""

    def position(self, i: int, x: Floats) -> Floats:
        return rotate(x, inverse_frequencies(self.head_dim, self.config["rope_theta"]) / 2)


class Gemma2(Gemma):
    """Norms after as well as before, soft caps, a window in every other layer."""

    every = 2
    cap = 0.0

    def slides(self, i: int) -> bool:
        if "layer_types" in self.config:
            return bool(self.config["layer_types"][i] == "sliding_attention")
        return bool((i + 1) % self.config.get("sliding_window_pattern", self.every))

    def layer(self, i: int, x: Floats) -> Floats:
        p = self.at(i)
        inner = self.attention(i, self.norm(f"{p}input_layernorm", x))
        x = x + self.norm(f"{p}post_attention_layernorm", inner)
        inner = self.mlp(i, self.norm(f"{p}pre_feedforward_layernorm", x))
        return x + self.norm(f"{p}post_feedforward_layernorm", inner)

    def attend(self, i: int, q: Floats, k: Floats, v: Floats) -> Floats:
        c = self.config
        window = c["sliding_window"] if self.slides(i) else 0
        cap = c.get("attn_logit_softcapping") or 0.0
        return attend(q, k, v, c.get("query_pre_attn_scalar", 256) ** -0.5, window=window, softcap=cap)

    def head(self, x: Floats) -> Floats:
        cap, out = self.config.get("final_logit_softcapping", self.cap), super().head(x)
        return cap * np.tanh(out / cap) if cap else out


DEFAULTS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6}


class Gemma3(Gemma2):
    """Norms of q and k, two ropes."""

    every = 6

    def __init__(self, folder: Path) -> None:
        raw: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        self.config = {**DEFAULTS, **raw, **(raw.get("text_config") or {})}
        self.tensors = tensors_of(folder)
        shape = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
        self.n_layers, self.n_heads, self.n_kv_heads, self.head_dim = (self.config[key] for key in shape)
        self.eps = self.config["rms_norm_eps"]
        table = "embed_tokens.weight"
        self.prefix = next(name for name in self.tensors if name.endswith(table)).removesuffix(table)

    def head(self, x: Floats) -> Floats:
        return super().head(x)[:, : self.config["vocab_size"]]

    def qkv(self, i: int, x: Floats) -> tuple[Floats, Floats, Floats]:
        q, k, v = super().qkv(i, x)
        p = f"{self.at(i)}self_attn."
        return self.norm(f"{p}q_norm", q), self.norm(f"{p}k_norm", k), v

    def position(self, i: int, x: Floats) -> Floats:
        c = self.config
        rope = c.get("rope_scaling") or {}
        both = c.get("rope_parameters") or {
            "sliding_attention": {"rope_theta": c.get("rope_local_base_freq", 1e4)},
            "full_attention": {"rope_theta": c.get("rope_theta", 1e6), **rope},
        }
        rope = both["sliding_attention" if self.slides(i) else "full_attention"]
        return rotate(x, inverse_frequencies(self.head_dim, rope["rope_theta"]) / rope.get("factor", 1.0))


_GEMMA3 = {**SHARP, "num_hidden_layers": 7, "rope_theta": 1e6, "rope_local_base_freq": 1e4, "num_key_value_heads": 1}

ODD = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]

CASES = {
    "tiny-gemma": Case(plain("GemmaForCausalLM", "gemma", hidden_act="gelu"), ("f16", "bf16"), forward=Gemma),
    "tiny-gemma2": Case(plain("Gemma2ForCausalLM", "gemma2", **SHARP, **CAPS), ("f16", "bf16", "q8_0"), forward=Gemma2),
    "tiny-gemma3": Case(plain("Gemma3ForCausalLM", "gemma3_text", **_GEMMA3), ("f16", "bf16", "q8_0"), forward=Gemma3),
    "gemma-3-published-it": Case(_published, ("auto",), forward=Gemma3),
    "gemma3-resaved": Case(_resaved, forward=Gemma3),
    "gemma3-without-windows": Case(
        plain("Gemma3ForCausalLM", "gemma3_text", **_GEMMA3, sliding_window_pattern=1, final_logit_softcapping=3.0),
        forward=Gemma3,
    ),
    # What llama.cpp's converter loses: another base of the rope, another pattern of windows.
    "gemma-rope": Case(
        plain("GemmaForCausalLM", "gemma", rope_theta=5e4, rope_scaling={"type": "linear", "factor": 2.0}),
        (),
        forward=GemmaRope,
    ),
    "gemma2-rope-and-layers": Case(
        plain("Gemma2ForCausalLM", "gemma2", **SHARP, **CAPS, rope_theta=5e4, layer_types=ODD), (), forward=Gemma2
    ),
    "gemma3-layers": Case(
        plain("Gemma3ForCausalLM", "gemma3_text", **{**_GEMMA3, "num_hidden_layers": 4}, layer_types=ODD),
        (),
        forward=Gemma3,
    ),
}
