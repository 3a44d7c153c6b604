"""llama.cpp's C API as context managers. Imported in child processes only."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.child import installed, llama_cpp_commit
from slmkit.backends.llamacpp.native import ll

Pointer = Any
"""An opaque pointer of the C library."""
Floats = NDArray[np.float32]
Watcher = Callable[[int, bool], bool]


_PIECE_S = 0.1
"""Between pieces of the log."""


class NativeError(Exception):
    """A call into llama.cpp said no."""


_callbacks: list[Any] = []  # ctypes callbacks must outlive their use in C


def on_log(listener: Callable[[int, str], None]) -> None:
    """Send the library's log text to `listener(level, text)`; a text may be part of a line."""

    @ll.llama_log_callback  # type: ignore[untyped-decorator]
    def callback(level: int, text: bytes, _: Pointer) -> None:
        listener(level, text.decode("utf-8", "replace"))

    _callbacks.append(callback)
    ll.llama_log_set(callback, ctypes.c_void_p(0))


def forward_log(channel: Channel) -> None:
    """Send it to the parent."""
    on_log(lambda level, text: channel.send("log", level=level, text=text))


@contextmanager
def log_in_pieces(channel: Channel) -> Iterator[None]:
    """Send it to the parent a few times a second: one by one, hundreds of lines would each wake it."""
    texts: list[str] = []
    ended = threading.Event()

    def send() -> None:
        if n := len(texts):  # more may come meanwhile
            channel.send("log", text="".join(texts[:n]))
            del texts[:n]

    def send_now_and_then() -> None:
        while not ended.wait(_PIECE_S):
            send()

    on_log(lambda _, text: texts.append(text))
    sender = threading.Thread(target=send_now_and_then, daemon=True)
    sender.start()
    try:
        yield
    finally:
        ended.set()
        sender.join()
        send()


def build() -> dict[str, str]:
    """Which engine this is: versions, and the CPU features that the build really uses."""
    features = ll.llama_print_system_info().decode()
    ll._lib.llama_version.restype = ctypes.c_char_p
    return {
        "engine": installed() or "unknown",
        "llama.cpp": f"{ll._lib.llama_version().decode()} {llama_cpp_commit() or 'unknown commit'}",
        "features": " ".join(p.split("=")[0].strip() for p in features.replace(":", "|").split("|") if "= 1" in p),
        "gpu": "yes" if ll.llama_supports_gpu_offload() else "no",
    }


@contextmanager
def model(
    path: str,
    *,
    n_gpu_layers: int = -1,
    check_tensors: bool = False,
    repack: bool = True,
    mmap: bool = True,
    no_alloc: bool = False,
    vocab_only: bool = False,
) -> Iterator[Pointer]:
    """Load a GGUF with mmap, as llama-bench does, or without; raises `NativeError`. With `vocab_only`
    the weights are left out.

    Without `repack` no copy of the weights is made in the order that is faster to multiply.
    With `no_alloc` it is only worked out what loading takes: no weight is read, and no buffer has memory.
    """
    ll.llama_backend_init()
    params = ll.llama_model_default_params()
    params.n_gpu_layers = n_gpu_layers
    params.check_tensors = check_tensors
    params.use_extra_bufts = repack
    params.vocab_only = vocab_only
    if not mmap:
        params.load_mode = ll.LLAMA_LOAD_MODE_NONE
    if no_alloc:
        params.no_alloc, params.load_mode = True, ll.LLAMA_LOAD_MODE_NONE  # with mmap, llama.cpp asserts
    loaded = ll.llama_model_load_from_file(path.encode(), params)
    if not loaded:
        raise NativeError(f"llama.cpp cannot load {Path(path).name}")
    try:
        yield loaded
    finally:
        ll.llama_model_free(loaded)


@contextmanager
def context(
    loaded: Pointer,
    *,
    n_ctx: int,
    n_batch: int,
    n_ubatch: int,
    n_threads: int,
    n_seqs: int = 1,
    type_k: int = ll.GGML_TYPE_F16,
    type_v: int = ll.GGML_TYPE_F16,
    flash_attn: int = ll.LLAMA_FLASH_ATTN_TYPE_AUTO,
    unified: bool = False,
    watch: Watcher | None = None,
) -> Iterator[Pointer]:
    """A context with llama-bench's parameters (flash attention automatic, KV cache f16); raises `NativeError`.

    `n_ctx` is of all `n_seqs` sequences together; `unified`: they share its cells, and a prefix that they have in
    common takes its place once. `type_k` and `type_v` are numbers of `enum ggml_type`.

    `watch` is called with the address of each tensor before
    it is computed, and if it says yes, after that; to say no then leaves out what would follow.
    """
    params = ll.llama_context_default_params()
    params.type_k, params.type_v = type_k, type_v
    params.n_seq_max = n_seqs
    if watch:
        params.cb_eval = ll.ggml_backend_sched_eval_callback(lambda tensor, before, _: watch(tensor, before))
    params.n_ctx = n_ctx
    params.n_batch = n_batch
    params.n_ubatch = n_ubatch
    params.n_threads = n_threads
    params.n_threads_batch = n_threads
    params.flash_attn_type = flash_attn
    params.offload_kqv = True
    params.op_offload = True
    params.swa_full = False
    params.kv_unified = unified
    created = ll.llama_init_from_model(loaded, params)
    if not created:
        raise NativeError(f"llama.cpp cannot create a context of {n_ctx} tokens")
    try:
        with _threadpool(created, n_threads):
            yield created
    finally:
        ll.llama_free(created)


class _ThreadpoolParams(ctypes.Structure):
    # struct ggml_threadpool_params, ggml/include/ggml.h at 0c1e57098
    _fields_ = [
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("prio", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


@contextmanager
def _threadpool(created: Pointer, n_threads: int) -> Iterator[None]:
    """Attach threads that live as long as the context, as llama-bench does.

    Without OpenMP each decode would start its own.
    """
    lib = ll._lib  # never CDLL: a second copy of the CPU backend would have its own, empty tables
    try:
        init, new, free = lib.ggml_threadpool_params_init, lib.ggml_threadpool_new, lib.ggml_threadpool_free
    except AttributeError:  # a build that loads its CPU backend at run time
        yield
        return
    init.argtypes = [ctypes.POINTER(_ThreadpoolParams), ctypes.c_int]
    new.argtypes, new.restype = [ctypes.POINTER(_ThreadpoolParams)], ctypes.c_void_p
    free.argtypes = [ctypes.c_void_p]
    lib.llama_attach_threadpool.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    lib.llama_detach_threadpool.argtypes = [ctypes.c_void_p]
    params = _ThreadpoolParams()
    init(ctypes.byref(params), n_threads)
    pool = new(ctypes.byref(params))
    if not pool:
        raise NativeError(f"llama.cpp cannot start {n_threads} threads")
    lib.llama_attach_threadpool(created, pool, None)
    try:
        yield
    finally:
        lib.llama_detach_threadpool(created)
        free(pool)
