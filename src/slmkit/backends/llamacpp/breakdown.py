"""What a context takes of each kind of memory, in bytes, by the engine's own sums. Imported in child processes only.

`llama_get_memory_breakdown` (src/llama-ext.h at llama.cpp 0c1e57098) returns a C++ map from buffer type to three sizes,
and the C API has no other way to these numbers: the log rounds them, and does not have all. So the map is read as the
two C++ libraries lay it out (libstdc++'s `_Rb_tree`, libc++'s `__tree`; both are frozen by their ABIs).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from slmkit.backends.llamacpp.bindings import NativeError, Pointer
from slmkit.backends.llamacpp.buffers import Share
from slmkit.backends.llamacpp.native import ll

_SYMBOL = "_Z26llama_get_memory_breakdownPK13llama_context"
_MOST_BUFFER_TYPES = 64


@dataclass(frozen=True)
class _Layout:
    """Of a map and its nodes: places in words."""

    words: int
    root: int
    count: int
    left: int
    right: int
    pair: int


_LIBSTDCXX = _Layout(words=6, root=2, count=5, left=2, right=3, pair=4)
_LIBCXX = _Layout(words=3, root=1, count=2, left=0, right=1, pair=4)
_LAYOUT = _LIBCXX if sys.platform == "darwin" else _LIBSTDCXX


def breakdown(created: Pointer) -> dict[str, Share]:
    """By the name of the buffer type (`CPU`, `CPU_REPACK`); raises `NativeError` for an engine that has it not."""
    lib = ll._lib
    try:
        get, name_of = lib[_SYMBOL], lib.ggml_backend_buft_name
    except AttributeError as error:
        raise NativeError("this build of llama.cpp does not tell what memory a context takes") from error

    class Map(ctypes.Structure):
        _fields_ = [("words", ctypes.c_size_t * _LAYOUT.words)]

    get.argtypes, get.restype = [ctypes.c_void_p], Map
    name_of.argtypes, name_of.restype = [ctypes.c_void_p], ctypes.c_char_p
    words = get(created).words
    if not 0 < words[_LAYOUT.count] <= _MOST_BUFFER_TYPES:
        raise NativeError("this build of llama.cpp lays out its memory breakdown in an unknown way")
    return {name_of(key).decode(): Share(*sizes) for key, *sizes in _pairs(words[_LAYOUT.root])}


def _pairs(node: int) -> Iterator[tuple[int, ...]]:
    """Key and sizes of a node and of all below it."""
    if not node:
        return
    at = (ctypes.c_size_t * (_LAYOUT.pair + 4)).from_address(node)
    yield from _pairs(at[_LAYOUT.left])
    yield tuple(at[_LAYOUT.pair :])
    yield from _pairs(at[_LAYOUT.right])
