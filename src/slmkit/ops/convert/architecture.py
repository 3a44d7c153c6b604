"""What the converter must know of an architecture, and how it finds it.

A new architecture is one small module in `arch/`: a subclass with its names in `hf_names`, and only what differs from
its parent: keys of config.json, names of tensors, data of tensors, vocabulary. `arch/qwen3.py` is the shortest.
"""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import MappingProxyType
from typing import Any, ClassVar

from slmkit.errors import ConvertError, UnclaimedTensorsError, UnsupportedArchError
from slmkit.formats.gguf.rope import llama3_factors
from slmkit.formats.gguf.writer import Value, boolean, f32, i32s, u32
from slmkit.ops.convert.config import Config, read_config
from slmkit.ops.convert.origin import described
from slmkit.ops.convert.rope import Rope
from slmkit.ops.convert.shapes import Shape, standard_shapes
from slmkit.ops.convert.vocab import Vocab, read_vocab
from slmkit.ops.convert.weights import Generated, Weights

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")

STANDARD_NAMES: Mapping[str, str] = MappingProxyType(
    {
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
)
"""The pre-norm decoder with a gated MLP, as most checkpoints name it."""

_N_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS of src/llama-hparams.h at llama.cpp 0c1e57098."""

MAX_HEAD_DIM = 1 << 16
"""Far more than any head has: beyond it, config.json is damaged."""

BUFFERS = (r".*\.attention\.masked_bias", r".*\.attention\.bias", r".*\.rotary_emb\.inv_freq")
"""Tensors that old checkpoints carry and that are computed anew by whoever runs the model."""


@dataclass(frozen=True)
class NamedWeights:
    """A tensor of the GGUF to be: its name there, and where its data comes from."""

    name: str
    weights: Weights


class Architecture(ABC):
    """One architecture, reading one checkpoint's config.json.

    `names` maps tensor names of the checkpoint to those of GGUF, without `.weight` or `.bias`; `{}` is the layer's
    number. The hooks in the order of a conversion: `check`, `place` for each tensor, `metadata`, `late_metadata`,
    `vocab`, `remarks`.
    """

    name: ClassVar[str]
    """What GGUF calls it."""
    hf_names: ClassVar[tuple[str, ...]]
    """What config.json's `architectures` calls it."""
    models: ClassVar[str]
    """Well-known models that have it, for the documents."""
    refused: ClassVar[Mapping[str, tuple[str, str]]] = MappingProxyType({})
    """Names in config.json of relatives that llama.cpp cannot run: why, and a hint."""
    names: ClassVar[Mapping[str, str]] = STANDARD_NAMES
    optional: ClassVar[frozenset[str]] = frozenset({"output"})
    """GGUF names whose absence is no error."""
    biases: ClassVar[frozenset[str] | None] = None
    """The values of `names` whose bias llama.cpp loads; `None` for all."""
    needed_biases: ClassVar[frozenset[str]] = frozenset()
    """Those whose bias it cannot do without."""
    ignored: ClassVar[tuple[str, ...]] = BUFFERS
    """Patterns (whole names) of tensors that carry no weights of the model."""
    left_out: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Patterns (whole names) of tensors that llama.cpp has no use for, and what they are: the user is told."""
    scalings: ClassVar[frozenset[str | None]] = frozenset({None, "linear", "yarn"})
    """Kinds of rope scaling that llama.cpp can express for this architecture."""
    writes_file_type: ClassVar[bool] = True
    """Whether llama.cpp's converter writes `general.file_type` for it."""

    def __init__(self, config: Config) -> None:
        n_layers = config.find(*_N_LAYERS)
        if type(n_layers) is int and n_layers > MAX_LAYERS:
            raise ConvertError(f"{config.path}: {n_layers} layers are more than llama.cpp can run ({MAX_LAYERS})")
        self.config = config.filled(self.defaults(config))
        self.n_layers = self.config.integer(*_N_LAYERS)
        self.rope = Rope(self.config)
        self.vocab_remarks: tuple[str, ...] = ()

    def defaults(self, config: Config) -> dict[str, Any]:
        """What transformers assumes for keys that config.json leaves out."""
        return {}

    # ------------------------------------------------------------------ hyper-parameters

    @property
    def n_heads(self) -> int:
        """Query heads."""
        return self.config.integer("num_attention_heads", "n_head", "n_heads")

    @property
    def n_kv_heads(self) -> int:
        """Key and value heads."""
        return self.config.integer("num_key_value_heads", "n_kv_heads", default=self.n_heads)

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return self.config.integer("hidden_size", "n_embd", "dim")

    @property
    def head_dim(self) -> int:
        """Rows of q for each head."""
        return self.config.integer("head_dim", default=self.n_embd // self.n_heads)

    @property
    def n_ff(self) -> int:
        """Width of the MLP."""
        return self.config.integer("intermediate_size", "n_inner", "hidden_dim")

    @property
    def n_vocab(self) -> int:
        """Tokens, which are rows of the embedding."""
        return self.config.integer("vocab_size")

    def check(self) -> None:
        """Raise `ConvertError` for a checkpoint that llama.cpp could not run, or not rightly."""
        if (self.config.folder / "modules.json").is_file():
            raise ConvertError(f"{self.config.folder} is a sentence embedding model; slmkit converts generating models")
        if self.rope.kind not in self.scalings:
            raise ConvertError(f"{self.config.path}: llama.cpp has no `{self.rope.kind}` rope scaling for {self.name}")
        self.rope.check()

    def metadata(self) -> dict[str, Value]:
        """Hyper-parameters, in the order llama.cpp's converter writes them; `general.file_type` comes after these.

        `TextModel.set_gguf_parameters` of conversion/base.py at llama.cpp 0c1e57098.
        """
        a, find = self.name, self.config.find
        counts = {
            "block_count": self.n_layers,
            "context_length": find("max_position_embeddings", "n_ctx", "n_positions", "max_sequence_length"),
            "embedding_length": find("hidden_size", "n_embd", "dim"),
            "feed_forward_length": find("intermediate_size", "n_inner", "hidden_dim"),
            "attention.head_count": find("num_attention_heads", "n_head", "n_heads"),
            "attention.head_count_kv": find("num_key_value_heads", "n_kv_heads"),
        }
        out = {f"{a}.{key}": self._count(key, value) for key, value in counts.items() if value is not None}
        if find("is_causal") is False:
            out[f"{a}.attention.causal"] = boolean(False)
        out |= self.rope.metadata(a)
        if find("rms_norm_eps", "norm_eps") is not None:
            out[f"{a}.attention.layer_norm_rms_epsilon"] = f32(self.config.number("rms_norm_eps", "norm_eps"))
        eps = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
        if find(*eps) is not None:
            out[f"{a}.attention.layer_norm_epsilon"] = f32(self.config.number(*eps))
        experts = {
            "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
            "expert_used_count": ("num_experts_per_tok", "num_experts_per_token"),
        }
        out |= {f"{a}.{key}": u32(self.config.integer(*n)) for key, n in experts.items() if find(*n) is not None}
        if find("head_dim") is not None:
            out[f"{a}.attention.key_length"] = u32(self.head_dim)
            out[f"{a}.attention.value_length"] = u32(self.head_dim)
        return out

    def early_metadata(self) -> dict[str, Value]:
        """Hyper-parameters that llama.cpp's converter writes with the tensors: right after `general.architecture`."""
        return {}

    def late_metadata(self) -> dict[str, Value]:
        """Hyper-parameters that come after `general.file_type`."""
        return {}

    def _count(self, key: str, value: Any) -> Value:
        """One number, or one for each layer."""
        values = value if isinstance(value, list) else [value]
        good = all(type(n) is int and 0 <= n < 1 << 31 for n in values) and value != 0
        if not good or (isinstance(value, list) and len(value) != self.n_layers):
            raise ConvertError(f"{self.config.path}: the {key.replace('_', ' ')} must be a positive whole number")
        return i32s(value) if isinstance(value, list) else u32(value)

    # ------------------------------------------------------------------ vocabulary

    def read_vocab(self, folder: Path, pre: str | None) -> Vocab:
        """The tokenizer; `pre` overrides what its way of splitting is recognized as."""
        return read_vocab(folder, self.config.raw, self.n_vocab, pre=pre)

    def vocab(self, folder: Path, pre: str | None = None) -> dict[str, Value]:
        """The `tokenizer.*` keys; sets `vocab_remarks`."""
        found = self.read_vocab(folder, pre)
        self.vocab_remarks = found.remarks
        return found.metadata()

    # ------------------------------------------------------------------ tensors

    def generated(self) -> Iterator[NamedWeights]:
        """Tensors that the checkpoint does not have; they come first."""
        if self.rope.kind == "llama3":
            if self.head_dim > MAX_HEAD_DIM:
                raise ConvertError(f"{self.config.path}: heads of {self.head_dim} make no sense")
            yield NamedWeights("rope_freqs.weight", Generated(llama3_factors(self.rope.main, self.head_dim)))

    def shapes(self) -> Mapping[str, Shape | None]:
        """The shape of each weight by the name GGUF has for it, `{}` being the layer; `None` where any is right.

        What is not here is not checked. A bias is as long as its weight has rows.
        """
        return standard_shapes(self)

    def rename(self, name: str) -> str:
        """The usual name of a tensor that this checkpoint calls otherwise."""
        return name

    def place(self, name: str, weights: Weights) -> list[NamedWeights] | None:
        """The GGUF tensors that a checkpoint's tensor becomes; `None` when the architecture has no such tensor.

        Override it for tensors that are split, or stacked (no tensor until the last part has come).
        """
        target = self.gguf_name(name)
        return None if target is None else [NamedWeights(target, self.data(target, weights))]

    def data(self, name: str, weights: Weights) -> Weights:
        """The data of the tensor that GGUF calls `name`, changed to llama.cpp's layout."""
        return weights

    def tensors(self, stored: Mapping[str, Weights]) -> list[NamedWeights]:
        """All tensors of the GGUF in order.

        Raises `UnclaimedTensorsError` naming every tensor that has no name in GGUF, and `ConvertError` when some are
        missing or two get the same name.
        """
        out = {t.name: t for t in self.generated()}
        unclaimed = []
        for name, weights in stored.items():
            if any(re.fullmatch(pattern, name) for pattern in (*self.ignored, *self.left_out)):
                continue
            if 0 in weights.shape or not weights.shape:
                raise ConvertError(f"{described(weights, name)} has no rows of weights: {list(weights.shape)}")
            placed = self.place(self.rename(name), weights)
            if placed is None:
                unclaimed.append(name)
                continue
            for tensor in placed:
                if tensor.name in out:
                    raise ConvertError(f"{self.config.folder} has tensor `{tensor.name}` twice")
                out[tensor.name] = tensor
        if unclaimed:
            raise UnclaimedTensorsError(
                f"{self.config.folder} has {len(unclaimed)} tensors that the {self.name} architecture does not "
                f"know: {', '.join(unclaimed)}",
                hint="nothing was written: without them the model would be a different one",
            )
        absent = [name for name in self.required() if name not in out]
        if absent:
            raise ConvertError(
                f"{self.config.folder} lacks {len(absent)} tensors: {', '.join(absent[:8])}"
                + (", ..." if len(absent) > 8 else ""),
                hint="the checkpoint is incomplete, or config.json belongs to another one",
            )
        return list(out.values())

    def gguf_name(self, name: str) -> str | None:
        """`name` in GGUF, or `None` when the architecture has no such tensor."""
        base, _, suffix = name.rpartition(".")
        layers = _LAYER.findall(base + ".")
        template = self.names.get(_LAYER.sub("{}", base + ".", count=1).removesuffix("."))
        if template is None or suffix not in ("weight", "bias"):
            return None
        if suffix == "bias" and self.biases is not None and template not in self.biases:
            return None
        if "{}" in template and int(layers[0]) >= self.n_layers:
            return None
        return f"{template.format(*layers)}.{suffix}"

    def required(self) -> Iterator[str]:
        """The tensors without which the model is not whole; an output that config.json does not tie is one."""
        untied = {"output"} if self.config.find("tie_word_embeddings") is False else set()
        for template in self.names.values():
            if template not in self.optional - untied:
                for layer in range(self.n_layers if "{}" in template else 1):
                    yield f"{template.format(layer)}.weight"
                    if template in self.needed_biases:
                        yield f"{template.format(layer)}.bias"

    def remarks(self, stored: Mapping[str, Weights]) -> list[str]:
        """What the user should know about the result."""
        out = list(self.vocab_remarks)
        for what in dict.fromkeys(self.left_out.values()):
            patterns = [pattern for pattern, found in self.left_out.items() if found == what]
            n = sum(any(re.fullmatch(pattern, name) for pattern in patterns) for name in stored)
            if n:
                out.append(f"left out: {n} tensors of the {what}; the GGUF is the text model")
        return out


@cache
def architectures() -> Mapping[str, type[Architecture]]:
    """Every supported architecture by the name that config.json's `architectures` has for it."""
    package = import_module("slmkit.ops.convert.arch")
    out: dict[str, type[Architecture]] = {}
    for module in iter_modules(package.__path__):
        for found in vars(import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Architecture) and "hf_names" in vars(found):
                out |= dict.fromkeys(found.hf_names, found)
    return dict(sorted(out.items()))


def check_supported(folder: Path) -> None:
    """Raise what `convert` would say to this config.json, before there are any weights."""
    open_architecture(read_config(folder))


def open_architecture(config: Config) -> Architecture:
    """The architecture that config.json names, checked.

    Raises `UnsupportedArchError` naming the supported ones, and `ConvertError` for a checkpoint that cannot be run.
    """
    match config.raw.get("architectures"):
        case [str(wanted), *_]:
            pass
        case _:
            raise ConvertError(f"{config.path} lacks `architectures`", hint="is it a transformers checkpoint?")
    for found in architectures().values():
        if wanted in found.refused:
            why, hint = found.refused[wanted]
            raise UnsupportedArchError(f"{config.path}: {why}", hint=hint)
    if wanted not in architectures():
        names = sorted({found.name for found in architectures().values()})
        raise UnsupportedArchError(
            f"{config.path}: the architecture {wanted} cannot be converted yet",
            hint="llama.cpp's own converter may know it: `slmkit convert REF --converter upstream`; many models have a "
            f"GGUF on the Hub that can be pulled; supported here: {', '.join(names)}",
        )
    architecture = architectures()[wanted](config)
    architecture.check()
    return architecture
