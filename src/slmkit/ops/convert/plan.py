"""Everything about a GGUF but the data of its tensors: known from headers alone, before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from slmkit.core.progress import SILENT, Progress
from slmkit.errors import ConvertError, UnknownTypeError, UsageError
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, QUANTIZATION_VERSION, GgmlType
from slmkit.formats.gguf.writer import Entry, Value, file_size, string, u32
from slmkit.ops.convert.architecture import Architecture, NamedWeights, open_architecture
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.dequantize import remarks
from slmkit.ops.convert.metadata import ParamCounts, general_metadata
from slmkit.ops.convert.shapes import check_shapes
from slmkit.ops.convert.stored import read_weights
from slmkit.ops.convert.ternary import Ternarized, Unpacked
from slmkit.ops.convert.weights import Generated, Weights

ConvertType = Literal["auto", "f16", "bf16", "f32", "q8_0", "tq1_0", "tq2_0"]
TYPES: tuple[str, ...] = get_args(ConvertType)
TERNARY = ("tq1_0", "tq2_0")

FILE_TYPES: Mapping[str, int] = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37}
"""`general.file_type`, enum llama_ftype of llama.h."""

_ALWAYS_F32 = frozenset(
    {
        "ffn_gate_inp",
        "ffn_gate_inp_shexp",
        "position_embd",
        "token_types",
        "ssm_conv1d",
        "conv",  # blk.N.shortconv.conv
        "altup_correct_coef",
        "altup_predict_coef",
    }
)
_NEVER_TERNARY = frozenset(
    {"token_embd", "per_layer_token_embd", "output", "altup_router", "laurel_l", "laurel_r"},
)
# The two lists are those of `prepare_tensors` in conversion/base.py at llama.cpp 0c1e57098, as far as the architectures
# here have such tensors.


@dataclass(frozen=True)
class Plan:
    """What will be written; `metadata` has all keys, `tensors` are in the order of the file."""

    architecture: Architecture
    outtype: str
    metadata: Mapping[str, Value]
    tensors: tuple[NamedWeights, ...]
    remarks: tuple[str, ...]

    @property
    def n_params(self) -> int:
        """Weights in all tensors."""
        return sum(math.prod(t.weights.shape) for t in self.tensors)

    def entries(self, outtype: str | None = None) -> list[Entry]:
        """The tensor table, for the planned or another output type."""
        wanted = (outtype or self.outtype).upper()
        return [Entry(t.name, t.weights.shape, choose_type(t.name, t.weights.shape, wanted)) for t in self.tensors]

    @property
    def generated(self) -> dict[str, bytes]:
        """The data of tensors that are computed and no part of the checkpoint: factors of RoPE, in F32."""
        return {
            t.name: t.weights.values.astype("<f4").tobytes() for t in self.tensors if isinstance(t.weights, Generated)
        }

    def size_bytes(self, outtype: str | None = None) -> int:
        """Of the whole file, exactly."""
        return file_size(self.metadata, self.entries(outtype))


def make_plan(
    checkpoint: Path,
    *,
    outtype: str = "auto",
    name: str | None = None,
    model_id: str | None = None,
    commit: str | None = None,
    pre: str | None = None,
    stored: Mapping[str, Weights] | None = None,
    progress: Progress = SILENT,
) -> Plan:
    """Read config, tokenizer and the headers of the weights (unless `stored` has them), and decide everything.

    See `convert` for the arguments and errors.
    """
    config = read_config(checkpoint)
    architecture = open_architecture(config)
    stored = read_weights(config) if stored is None else stored
    wanted = wanted_type(outtype, stored)
    tensors = architecture.tensors(stored)
    _check_vocab(checkpoint, tensors, architecture.n_vocab)
    check_shapes(architecture, tensors)
    general = general_metadata(
        checkpoint,
        architecture.name,
        config.raw,
        _counts(tensors),
        name=name,
        model_id=model_id,
        commit=commit,
        progress=progress,
    )
    first = {"general.architecture": general["general.architecture"]}
    metadata = first | architecture.early_metadata() | general | architecture.metadata()
    if architecture.writes_file_type:
        metadata["general.file_type"] = u32(FILE_TYPES[wanted.upper()])
    metadata |= architecture.late_metadata()
    metadata["general.quantization_version"] = u32(QUANTIZATION_VERSION)
    metadata |= architecture.vocab(checkpoint, pre)
    if pre is not None and metadata.get("tokenizer.ggml.pre") != string(pre):
        raise UsageError(
            f"the tokenizer of {checkpoint} is no byte-level BPE", hint="it needs no `--pre`: leave it out"
        )
    said = [*architecture.remarks(stored), *remarks(config)]
    own_output = "lm_head.weight" in stored and any(t.name == "output.weight" for t in tensors)
    if own_output and config.find("tie_word_embeddings") is True:
        said.append("config.json ties the output to the embedding, but `lm_head.weight` is there, and used")
    if wanted in TERNARY and not any(isinstance(t.weights, Ternarized | Unpacked) for t in tensors):
        said.append(f"{wanted} keeps three values for each weight: that suits only models that were trained so")
    return Plan(architecture, wanted, metadata, tuple(tensors), tuple(said))


def resolve_type(checkpoint: Path, outtype: str) -> str:
    """What `outtype` comes to for this checkpoint: `auto` is the type of its first 16-bit matrix, or f16.

    Reads headers only. Raises `UnknownTypeError` for a name that is not in `ConvertType`, `SafetensorsError`.
    """
    return wanted_type(outtype, read_weights(read_config(checkpoint)) if outtype.lower() == "auto" else {})


def choose_type(name: str, shape: tuple[int, ...], wanted: str) -> GgmlType:
    """The ggml type of one tensor.

    Vectors, norms and all that is no weight stay F32; rows that are no whole number of blocks fall back to F16.
    """
    base, _, suffix = name.rpartition(".")
    kind = base.rpartition(".")[2]
    if len(shape) <= 1 or name.endswith("_norm.weight") or suffix != "weight" or kind in _ALWAYS_F32:
        return GGML_TYPES_BY_NAME["F32"]
    if wanted in ("TQ1_0", "TQ2_0") and kind in _NEVER_TERNARY:
        return GGML_TYPES_BY_NAME["F16"]
    found = GGML_TYPES_BY_NAME[wanted]
    return GGML_TYPES_BY_NAME["F16"] if shape[-1] % found.block else found


def wanted_type(outtype: str, stored: Mapping[str, Weights]) -> str:
    """`outtype` in small letters, `auto` resolved; see `resolve_type`."""
    wanted = outtype.lower()
    if wanted not in TYPES:
        hint = f"one of {', '.join(TYPES)}; for any other: `slmkit quantize REF -t {outtype.upper()}`"
        raise UnknownTypeError(f"convert makes no {outtype!r}", hint=hint)
    if wanted != "auto":
        return wanted
    matrices = (weights.dtype for weights in stored.values() if len(weights.shape) > 1)
    return next((dtype.lower() for dtype in matrices if dtype in ("F16", "BF16")), "f16")


def _counts(tensors: Sequence[NamedWeights]) -> ParamCounts:
    """`get_total_parameter_count` of gguf-py/gguf/gguf_writer.py at llama.cpp 0c1e57098."""
    total = sum(math.prod(t.weights.shape) for t in tensors)
    experts = [t.weights.shape for t in tensors if "_exps." in t.name]
    stacked = sum(math.prod(shape) for shape in experts)
    one = sum(math.prod(shape[1:]) for shape in experts)
    return ParamCounts(total, total - stacked, one, sum(shape[0] for shape in experts) // max(1, len(experts)))


def _check_vocab(checkpoint: Path, tensors: Sequence[NamedWeights], n_vocab: int) -> None:
    rows = next((t.weights.shape[0] for t in tensors if t.name == "token_embd.weight"), n_vocab)
    if rows != n_vocab:
        raise ConvertError(
            f"{checkpoint}: `vocab_size` in config.json is {n_vocab}, but the embedding has {rows} rows",
            hint="config.json and weights belong to different versions of the model",
        )
