"""Llama and what is built like it: Llama 2 and 3, TinyLlama, SmolLM, SmolLM2, Mistral."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from slmkit.errors import ConvertError
from slmkit.formats.gguf.rope import llama3_factors
from slmkit.formats.gguf.writer import Value, boolean, f32, u32
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.architecture import Architecture, NamedRows
from slmkit.ops.convert.config import Config
from slmkit.ops.convert.rope import rope_parameters, scaling_metadata
from slmkit.ops.convert.rows import Generated, Permuted, Rows


class Llama(Architecture):
    """Pre-norm decoder with rotary positions, grouped queries and a gated MLP."""

    name = "llama"
    hf_names: ClassVar[tuple[str, ...]] = ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
    names: ClassVar = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.{}.input_layernorm": "blk.{}.attn_norm",
        "model.layers.{}.self_attn.q_proj": "blk.{}.attn_q",
        "model.layers.{}.self_attn.k_proj": "blk.{}.attn_k",
        "model.layers.{}.self_attn.v_proj": "blk.{}.attn_v",
        "model.layers.{}.self_attn.o_proj": "blk.{}.attn_output",
        "model.layers.{}.post_attention_layernorm": "blk.{}.ffn_norm",
        "model.layers.{}.mlp.gate_proj": "blk.{}.ffn_gate",
        "model.layers.{}.mlp.up_proj": "blk.{}.ffn_up",
        "model.layers.{}.mlp.down_proj": "blk.{}.ffn_down",
    }
    optional = frozenset({"output"})
    scalings = frozenset({None, "default", "linear", "yarn", "llama3"})
    """Values of `rope_type` that llama.cpp can express for this architecture."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.n_embd = config.integer("hidden_size")
        self.n_heads = config.integer("num_attention_heads")
        self.n_kv_heads = config.integer("num_key_value_heads", self.n_heads)
        self.context = config.integer("max_position_embeddings", 2048)
        self.rope = rope_parameters(config.raw, config.number("rope_theta", 10000.0))

    @property
    def head_dim(self) -> int:
        """Rows of q for each head."""
        return self.config.integer("head_dim", self.n_embd // self.n_heads)

    @property
    def writes_head_dim(self) -> bool:
        """transformers fills in `head_dim` for Llama and Mistral, so llama.cpp's converter always sees it."""
        return True

    def check(self) -> None:
        """Refuse rope scalings that would be lost."""
        super().check()
        kind = self.rope["rope_type"]
        if kind not in self.scalings:
            raise ConvertError(f"{self.config.path}: llama.cpp has no `{kind}` rope scaling for {self.name}")
        if self.head_dim % 2 or self.n_heads % self.n_kv_heads:
            raise ConvertError(f"{self.config.path}: {self.n_heads} heads of {self.head_dim} make no sense")

    def remarks(self) -> list[str]:
        """Sliding windows are not carried over, as upstream."""
        window = self.config.raw.get("sliding_window")
        if self.name == "llama" and isinstance(window, int) and window < self.context:
            return [f"llama.cpp attends to everything: the sliding window of {window} tokens is not applied"]
        return []

    def metadata(self) -> dict[str, Value]:
        """Sizes, rope, norm."""
        a = self.name
        out = {
            f"{a}.block_count": u32(self.n_layers),
            f"{a}.context_length": u32(self.context),
            f"{a}.embedding_length": u32(self.n_embd),
            f"{a}.feed_forward_length": u32(self.config.integer("intermediate_size")),
            f"{a}.attention.head_count": u32(self.n_heads),
            f"{a}.attention.head_count_kv": u32(self.n_kv_heads),
        }
        out |= scaling_metadata(a, self.rope, self.context)
        out[f"{a}.rope.freq_base"] = f32(self.rope["rope_theta"])
        out[f"{a}.attention.layer_norm_rms_epsilon"] = f32(self.config.number("rms_norm_eps", 1e-6))
        if self.writes_head_dim:
            out[f"{a}.attention.key_length"] = u32(self.head_dim)
            out[f"{a}.attention.value_length"] = u32(self.head_dim)
        return out

    def late_metadata(self) -> dict[str, Value]:
        """Only llama itself has these."""
        vocab = self.config.integer("vocab_size")
        return {"llama.vocab_size": u32(vocab), "llama.rope.dimension_count": u32(self.head_dim)}

    def vocab(self, folder: Path) -> dict[str, Value]:
        """With two special cases of upstream that go by the size of the vocabulary: CodeLlama, Granite and SmolLM."""
        out: dict[str, Value] = {}
        prefix = read_json(folder / "tokenizer_config.json").get("add_prefix_space")
        if prefix is not None:
            out["tokenizer.ggml.add_space_prefix"] = boolean(bool(prefix))
        out |= super().vocab(folder)
        match self.config.integer("vocab_size"):
            case 32016:
                out["tokenizer.ggml.eot_token_id"] = u32(32010)
            case 49152:
                out["tokenizer.ggml.add_bos_token"] = boolean(False)
        return out

    def generated(self) -> Iterator[NamedRows]:
        """Llama 3.1's rope factors."""
        if self.rope["rope_type"] == "llama3":
            yield NamedRows("rope_freqs.weight", Generated(llama3_factors(self.rope, self.head_dim)))

    def rows(self, name: str, rows: Rows) -> Rows:
        """llama.cpp rotates neighbouring rows of q and k, transformers the halves of a head."""
        heads = {"attn_q": self.n_heads, "attn_k": self.n_kv_heads}.get(name.split(".")[-2])
        if heads is None:
            return rows
        if rows.shape[0] % (2 * heads):
            raise ConvertError(f"{self.config.path.parent}: {rows.shape[0]} rows of `{name}` are not {heads} heads")
        return Permuted(rows, rows.shape[0] // heads)
