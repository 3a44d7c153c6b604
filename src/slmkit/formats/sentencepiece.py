"""Reads and writes SentencePiece models (`tokenizer.model`) without protobuf.

The file is one protobuf message; of its fields only the pieces matter to GGUF. Field numbers are those of
https://github.com/google/sentencepiece/blob/v0.2.0/src/sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from slmkit.errors import TokenizerError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class PieceType(IntEnum):
    """Numbers of the format; GGUF's `tokenizer.ggml.token_type` uses the same ones."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its place in the file."""

    text: str
    score: float
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True)
class SpecialIds:
    """Ids of the special pieces, -1 for none."""

    unknown: int = 0
    bos: int = 1
    eos: int = 2
    padding: int = -1


@dataclass(frozen=True)
class Pieces:
    """A vocabulary in columns: 262,144 objects would take half a second to make. Types are numbers of `PieceType`."""

    texts: list[str]
    scores: list[float]
    types: list[int]

    def __iter__(self) -> Iterator[Piece]:
        return map(Piece, self.texts, self.scores, map(PieceType, self.types))


def read_pieces(path: Path) -> Pieces:
    """The vocabulary in order of ids; raises `TokenizerError` when the file is no SentencePiece model."""
    try:
        data = path.read_bytes()
        pieces = _pieces(data, *_spans(data))
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror}") from error
    except (IndexError, struct.error, ValueError) as error:
        raise TokenizerError(f"{path} is not a SentencePiece model, or is damaged", hint=_AGAIN) from error
    if not pieces.texts:
        raise TokenizerError(f"{path} is not a SentencePiece model: it has no pieces", hint=_AGAIN)
    return pieces


def write_pieces(path: Path, pieces: Sequence[Piece], special: SpecialIds, *, add_space_prefix: bool = True) -> None:
    """Write a BPE model with byte fallback that the sentencepiece library can load."""
    out = bytearray()
    for piece in pieces:
        body = _text(1, piece.text) + _tag(2, FIXED32) + struct.pack("<f", piece.score)
        if piece.type is not PieceType.NORMAL:
            body += _int(3, piece.type)
        out += _message(1, body)
    ids = {40: special.unknown, 41: special.bos, 42: special.eos, 43: special.padding}
    trainer = _int(3, 2) + _int(4, len(pieces)) + _int(35, 1) + b"".join(_int(n, i) for n, i in ids.items())
    trainer += b"".join(_text(n + 5, pieces[i].text) for n, i in ids.items() if i >= 0)
    normalizer = _text(1, "identity") + _int(3, add_space_prefix) + _int(4, 0) + _int(5, 1)
    path.write_bytes(bytes(out) + _message(2, trainer) + _message(3, normalizer))


_AGAIN = "download the checkpoint's `tokenizer.model` again"


def _spans(data: bytes) -> tuple[list[int], list[int]]:
    """Where the pieces (field 1 of the file) begin and end."""
    starts: list[int] = []
    ends: list[int] = []
    at, end = 0, len(data)
    while at < end:
        if data[at] == 0x0A and data[at + 1] < 0x80:  # a piece of less than 128 bytes: nearly all there is
            starts.append(at + 2)
            at += data[at + 1] + 2
            ends.append(at)
            continue
        number, wire, start, at = _field(data, at)
        if (number, wire) == (1, BYTES):
            starts.append(start)
            ends.append(at)
    if at > end:
        raise IndexError("field runs past the end")
    return starts, ends


def _pieces(data: bytes, starts: list[int], ends: list[int]) -> Pieces:
    """The usual piece is text, score and perhaps type, in this order: those are read all at once."""
    import numpy as np

    if not starts:
        return Pieces([], [], [])
    view = np.frombuffer(data + bytes(512), np.uint8)  # so that no index below is beyond it
    start = np.array(starts)
    text = start + 2
    size = view[start + 1].astype(np.int64)
    score = text + size
    rest = np.array(ends) - score - 5
    kind = np.where(rest == 0, int(PieceType.NORMAL), view[score + 6])
    usual = (view[start] == 0x0A) & (size < 0x80) & (view[score] == 0x15)
    usual &= (rest == 0) | ((rest == 2) & (view[score + 5] == 0x18))
    usual &= (kind >= min(PieceType)) & (kind <= max(PieceType))
    end = np.where(usual, score, text)
    texts = [data[a:b].decode("utf-8") for a, b in zip(text.tolist(), end.tolist(), strict=True)]
    numbers = view[score[:, None] + np.arange(1, 5)]
    pieces = Pieces(texts, numbers.view("<f4")[:, 0].tolist(), kind.tolist())
    for i in np.flatnonzero(~usual).tolist():
        found = _piece(data[starts[i] : ends[i]])
        pieces.texts[i], pieces.scores[i], pieces.types[i] = found.text, found.score, found.type
    return pieces


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, PieceType.NORMAL
    at, end = 0, len(data)
    while at < end:
        number, wire, start, at = _field(data, at)
        if at > end:
            raise IndexError("field runs past the end")
        if (number, wire) == (1, BYTES):
            text = data[start:at].decode("utf-8")
        elif number == 2 and wire != VARINT:
            (score,) = struct.unpack("<f", data[start:at])
        elif (number, wire) == (3, VARINT):
            kind = PieceType(_varint(data, start)[0])
    return Piece(text, score, kind)


def _field(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Number and wire type of the field at `at`, where its value begins, and where the next field does."""
    key, at = _varint(data, at)
    wire = key & 7
    if wire == VARINT:
        return key >> 3, wire, at, _varint(data, at)[1]
    if wire == BYTES:
        size, at = _varint(data, at)
    elif wire in (FIXED32, FIXED64):
        size = 4 if wire == FIXED32 else 8
    else:
        raise ValueError(f"wire type {wire}")
    return key >> 3, wire, at, at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    if data[at] < 0x80:  # nearly all of them
        return data[at], at + 1
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _encode(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _tag(number: int, wire: int) -> bytes:
    return _encode(number << 3 | wire)


def _int(number: int, value: int) -> bytes:
    return _tag(number, VARINT) + _encode(value)


def _message(number: int, body: bytes) -> bytes:
    return _tag(number, BYTES) + _encode(len(body)) + body


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode("utf-8"))
