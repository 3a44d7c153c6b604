"""The child's side of quantizing: the engine says which type each tensor gets, and `one_pass` makes the files. What it
does not do (shards, pruned layers) is made by `llama_model_quantize`. Imported in child processes only.
"""

from __future__ import annotations

import ctypes
import glob
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings, one_pass, quantize_log
from slmkit.backends.llamacpp.bindings import NativeError
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.native import ll
from slmkit.backends.llamacpp.smoke_job import smoke
from slmkit.formats.gguf.model import open_model
from slmkit.formats.gguf.writer import LAYOUT
from slmkit.formats.imatrix import Imatrix, origin, read


def quantize(
    channel: Channel, source: str, orders: Sequence[dict[str, Any]], n_threads: int, try_tokens: int = 0
) -> dict[str, Any]:
    """Make all `orders`: each has `target`, `base` (the type that most weights get) and `options`, which are `_call`'s.

    The event `read` tells bytes of the source that are done, or the log each tensor. With `try_tokens` the event
    `written` comes, and then each file is tried (`smoke`).
    """
    started = time.perf_counter_ns()
    logs = [_planned(channel, source, order["options"]) for order in orders]
    model = open_model(Path(source))
    together: list[one_pass.Target] = []
    for order, log in zip(orders, logs, strict=True):
        target, options = order["target"], order["options"]
        if options["keep_split"] or options["prune_layers"] or model.layout.alignment != LAYOUT.alignment:
            with bindings.log_in_pieces(channel):
                _call(source, target, n_threads=n_threads, **options)
        else:
            together.append(_target(target, options, log))
    if together:
        one_pass.write(model, together, n_threads, lambda n_bytes: channel.send("read", n_bytes=n_bytes))
    elapsed_ns = time.perf_counter_ns() - started
    if try_tokens:
        looked_at = {target.path for target in together}  # each block, before `one_pass` wrote it
        channel.send("written")
        for order in orders:
            smoke(
                channel,
                _first(order["target"]),
                n_tokens=try_tokens,
                n_gpu_layers=0,
                n_threads=max(1, n_threads - 1),
                check_tensors=Path(order["target"]) not in looked_at,
            )
    made = [
        {"types": quantize_log.types(log), "fallbacks": list(map(asdict, quantize_log.fallbacks(log, order["base"])))}
        for order, log in zip(orders, logs, strict=True)
    ]
    return {"made": made, "elapsed_ns": elapsed_ns, "build": bindings.build()}


def _planned(channel: Channel, source: str, options: Mapping[str, Any]) -> str:
    """The engine's dry run; raises `NativeError` where it would refuse, with its words in the log."""
    texts: list[str] = []
    bindings.on_log(lambda _, text: texts.append(text))
    try:
        weighed = options["imatrix"] is not None
        _call(source, "", n_threads=1, dry_run=True, any_imatrix=weighed, **{**options, "imatrix": None})
        if quantize_log.needs_imatrix("".join(texts)):
            raise NativeError("this quantization requires an imatrix")
    except NativeError:
        channel.send("log", text="".join(texts))
        raise
    return "".join(texts)


def _target(target: str, options: Mapping[str, Any], log: str) -> one_pass.Target:
    path = options["imatrix"]
    imatrix = None if path is None else read(Path(path))
    return one_pass.Target(
        path=Path(target),
        file_type=options["ftype"],
        types=quantize_log.types(log),
        overrides=(*options["overrides"], *(origin(path, imatrix).items() if imatrix else ())),
        imatrix=imatrix,
        allow_requantize=options["allow_requantize"],
        max_buffer_bytes=options["max_buffer_bytes"],
    )


def _first(target: str) -> str:
    """The file, or where the engine has put numbers after its name, the first of them."""
    path = Path(target)
    return target if path.is_file() else str(min(path.parent.glob(f"{glob.escape(path.name)}-00001-of-*.gguf")))


def dry_run(channel: Channel, source: str, requests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Go through the header of `source` once for each of `requests`: `logs` has the whole log of each, and whether the
    engine said yes.

    Some types depend on whether there is an importance matrix: one that is `weighed`, or cannot be made without, is
    asked for as if there were one.
    """
    log: list[str] = []
    bindings.on_log(lambda _, text: log.append(text))

    def run(options: Mapping[str, Any], *, any_imatrix: bool) -> str:
        log.clear()
        _call(source, "", dry_run=True, n_threads=1, any_imatrix=any_imatrix, **options)
        return "".join(log)

    def answer(weighed: bool, **options: Any) -> dict[str, Any]:
        needs = False
        try:
            text = run(options, any_imatrix=False)
            needs = quantize_log.needs_imatrix(text)
            if weighed or needs:
                text = run(options, any_imatrix=True)
        except NativeError:
            return {"made": False, "needs_imatrix": needs, "log": "".join(log)}
        return {"made": True, "needs_imatrix": needs, "log": text}

    return {"logs": [answer(**request) for request in requests]}


def _call(
    source: str,
    target: str,
    *,
    ftype: int,
    n_threads: int,
    rules: Sequence[tuple[str, int]] = (),
    output_type: int | None = None,
    embedding_type: int | None = None,
    pure: bool = False,
    leave_output: bool = False,
    keep_split: bool = False,
    prune_layers: Sequence[int] = (),
    overrides: Sequence[tuple[str, Any]] = (),
    allow_requantize: bool = False,
    max_buffer_bytes: int | None = None,
    imatrix: str | None = None,
    dry_run: bool = False,
    any_imatrix: bool = False,
) -> None:
    """Raises `NativeError`; the reason is in the log. Types are numbers of `enum ggml_type`, `imatrix` is a file.

    With `any_imatrix` the engine believes that it has one: for dry runs, which read nothing of it.
    """
    params = ll.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.dry_run = ftype, n_threads, dry_run
    params.pure, params.quantize_output_tensor = pure, not leave_output
    params.keep_split, params.allow_requantize = keep_split, allow_requantize
    if output_type is not None:
        params.output_tensor_type = output_type
    if embedding_type is not None:
        params.token_embedding_type = embedding_type
    if max_buffer_bytes is not None:
        params.max_buf_size = max_buffer_bytes
    if rules:
        override = ll.llama_model_tensor_override
        params.tt_overrides = (override * (len(rules) + 1))(*(override(p.encode(), kind) for p, kind in rules))
    if prune_layers:
        ordered = sorted(set(prune_layers))
        params.prune_layers = (ctypes.c_int32 * (len(ordered) + 1))(*ordered, -1)
    if imatrix is not None:
        importance = read(Path(imatrix))
        params.imatrix = _importance(importance)
        overrides = [*overrides, *origin(imatrix, importance).items()]
    if overrides:
        array = (ll.llama_model_kv_override * (len(overrides) + 1))()
        for slot, (key, value) in zip(array, overrides, strict=False):
            _override(slot, key, value)
        params.kv_overrides = array
    if any_imatrix:
        data = ll.llama_model_imatrix_data
        params.imatrix = (data * 2)(data(b"any", (ctypes.c_float * 1)(1.0), 1))  # and an end without a name
    if ll.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)):
        raise NativeError("llama.cpp could not quantize")


def _importance(imatrix: Imatrix) -> Any:
    """What the engine takes: for each matrix the mean squares of all its experts, one after the other."""
    array = (ll.llama_model_imatrix_data * (len(imatrix.entries) + 1))()
    for slot, (name, entry) in zip(array, imatrix.entries.items(), strict=False):
        means = np.ascontiguousarray(entry.means)
        _kept.append(means)
        slot.name, slot.size = name.encode(), means.size
        slot.data = means.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return array


_kept: list[Any] = []  # the engine gets pointers into these


def _override(slot: Any, key: str, value: Any) -> None:
    slot.key = key.encode()
    match value:
        case bool():
            slot.tag, slot.value.val_bool = ll.LLAMA_KV_OVERRIDE_TYPE_BOOL, value
        case int():
            slot.tag, slot.value.val_i64 = ll.LLAMA_KV_OVERRIDE_TYPE_INT, value
        case float():
            slot.tag, slot.value.val_f64 = ll.LLAMA_KV_OVERRIDE_TYPE_FLOAT, value
        case _:
            slot.tag, slot.value.val_str = ll.LLAMA_KV_OVERRIDE_TYPE_STR, str(value).encode()
