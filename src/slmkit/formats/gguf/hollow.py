"""A GGUF without its weights: metadata and tensor table are real, the data is a hole that takes no room on the disk.

llama.cpp reads only the header for a dry run of `quantize`, and to compute what memory loading will take. So both work
on a hollow file, and in milliseconds when the vocabulary is left out as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from slmkit.errors import GgufError
from slmkit.formats.gguf.header import GgufHeader, TensorInfo, read_header, shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, QUANTIZATION_VERSION, ValueType
from slmkit.formats.gguf.writer import LAYOUT, Entry, Value, data_size, encode_header, file_size, string, u32

EMBEDDING = "token_embd.weight"
_LOOKED_UP = ("per_layer_token_embd.weight", "position_embd.weight")
_NOT_COPIED = ("split.no", "split.count", "split.tensors.count")
"""What `llama_model_quantize` (llama-quant.cpp, 0c1e57098) takes out of the metadata: it writes one file."""


@dataclass(frozen=True)
class Hollow:
    """One whole GGUF but for its data; `entries` in the order of the file."""

    metadata: Mapping[str, Value]
    entries: Sequence[Entry]

    @property
    def architecture(self) -> str:
        """`general.architecture`."""
        return str(self.metadata["general.architecture"].value)

    @cached_property
    def size_bytes(self) -> int:
        """Of the whole file, exactly."""
        return file_size(self.metadata, self.entries)

    @cached_property
    def n_params(self) -> int:
        """Weights in all tensors."""
        return sum(math.prod(entry.shape) for entry in self.entries)

    @cached_property
    def bytes_per_token(self) -> int:
        """Weights that the engine reads for one token: of experts only those in use, of tables one row, which is
        nothing beside the rest. An embedding that is also the output is read as a whole.
        """
        names = {entry.name for entry in self.entries}
        tables = (*_LOOKED_UP, *((EMBEDDING,) if "output.weight" in names else ()))
        experts, used = self.number("expert_count"), self.number("expert_used_count")
        share = used / experts if experts and used else 1.0

        def read(entry: Entry) -> float:
            return entry.size_bytes * (share if "_exps." in entry.name else 1.0)

        return round(sum(read(entry) for entry in self.entries if entry.name not in tables))

    def number(self, key: str) -> int | None:
        """A hyperparameter that is one."""
        found = self.hyper(key)
        return found.value if found and isinstance(found.value, int) else None

    @property
    def weights_bytes(self) -> int:
        """Of all tensors' data, without padding."""
        return sum(entry.size_bytes for entry in self.entries)

    @cached_property
    def data_bytes(self) -> int:
        """Of all tensors' data, with padding."""
        return data_size(self.entries)

    @property
    def tensors(self) -> list[TensorInfo]:
        """As a header has them, but all without their place."""
        return [TensorInfo(entry.name, entry.shape[::-1], entry.type, 0) for entry in self.entries]

    @property
    def bpw(self) -> float:
        """Bits per weight over all tensors."""
        return self.weights_bytes * 8 / self.n_params

    def hyper(self, key: str) -> Value | None:
        """A hyper-parameter of the architecture: `hyper("context_length")`."""
        return self.metadata.get(f"{self.architecture}.{key}")

    def quantized(self, types: Mapping[str, str], file_type: int) -> Self:
        """The file that `quantize` makes of it when each tensor gets its type in `types`."""
        numbers = {"general.quantization_version": u32(QUANTIZATION_VERSION), "general.file_type": u32(file_type)}
        kept = {key: value for key, value in self.metadata.items() if key not in _NOT_COPIED}
        entries = [
            Entry(entry.name, without_outer_ones(entry.shape), GGML_TYPES_BY_NAME[types[entry.name]])
            for entry in self.entries
        ]
        return replace(self, metadata=kept | numbers, entries=entries)

    def without_vocabulary(self) -> Self:
        """The same model for llama.cpp, but for its tokens: it only has to know how many there are."""
        n_vocab = next((entry.shape[0] for entry in self.entries if entry.name == EMBEDDING), 0)
        kept = {key: value for key, value in self.metadata.items() if not key.startswith("tokenizer.")}
        none = {"tokenizer.ggml.model": string("no_vocab"), f"{self.architecture}.vocab_size": u32(n_vocab)}
        return replace(self, metadata=kept | none)

    def write(self, path: Path, known: Mapping[str, bytes] | None = None) -> None:
        """Write it with a hole in the place of the data, but for that of the tensors that are `known`; `OSError` passes
        through.
        """
        known = known or {}
        before = encode_header(self.metadata, self.entries)
        with path.open("wb") as file:
            file.write(before)
            place = len(before)
            for entry in self.entries:
                if entry.name in known:
                    file.seek(place)
                    file.write(known[entry.name])
                place += LAYOUT.padded(entry.size_bytes)
            file.truncate(place)


def without_outer_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """As llama.cpp writes a tensor table: `ggml_n_dims` (ggml.c) does not count them."""
    first = next((i for i, n in enumerate(shape) if n != 1), len(shape) - 1)
    return shape[first:]


def read_hollow(path: Path) -> Hollow:
    """A GGUF as it is, the shards of a split one together; raises `GgufError`."""
    headers = [read_header(part) for part in shards(path)]
    entries = [Entry(t.name, t.shape[::-1], t.type) for header in headers for t in header.tensors]
    if not entries:
        raise GgufError(f"{path} has no tensors")
    if headers[0].alignment != 32:
        raise GgufError(f"{path} has an alignment of {headers[0].alignment} bytes: only 32 can be planned with")
    metadata = {key: _value(headers[0], key) for key in headers[0].metadata if key not in _NOT_COPIED}
    return Hollow(metadata, entries)


def _value(header: GgufHeader, key: str) -> Value:
    element = header.element_types.get(key)
    if element is ValueType.ARRAY:
        raise GgufError(f"{header.path}: `{key}` is an array of arrays, which llama.cpp does not read")
    return Value(header.value_types[key], header.metadata[key], element)
