"""The child's side of trying a file: load it, check its numbers, decode a few tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Decoder

SMOKE_PROMPT = "The quick brown fox"
SAME = 5e-3
"""Logits after two tokens count as the same when none differs by more than this share of their range.

The KV cache and sums in 16 bits make 2e-3 of it where nothing differs but the position.
"""


def smoke(
    channel: Channel, path: str, n_tokens: int, n_gpu_layers: int, n_threads: int, *, check_tensors: bool = True
) -> dict[str, Any]:
    """Load a file, check its numbers, decode a short prompt and then a few tokens: `{"tokens": [...], "text": ...}`.

    Output that is not finite, the same for every token, the same after different tokens, or no text is an error.
    """
    bindings.forward_log(channel)
    with (
        bindings.model(path, n_gpu_layers=n_gpu_layers, check_tensors=check_tensors, repack=False) as model,
        bindings.context(model, n_ctx=64, n_batch=64, n_ubatch=64, n_threads=n_threads) as context,
    ):
        decoder = Decoder(model, context, 64)
        prompt = decoder.tokenize(SMOKE_PROMPT)[:32]
        if not len(prompt):
            raise bindings.NativeError(f"its tokenizer makes no token of {SMOKE_PROMPT!r}")
        decoder.prompt(prompt)
        logits, last = _sound(decoder.logits()), int(prompt[-1])
        tokens: list[int] = []
        for _ in range(n_tokens):
            tokens.append(int(logits.argmax()))
            decoder.step(tokens[-1])
            following = _sound(decoder.logits())
            if tokens[-1] != last and np.abs(following - logits).max() <= SAME * np.ptp(logits):
                raise bindings.NativeError("the model's output is the same whatever its input is")
            logits, last = following, tokens[-1]
        text = b"".join(decoder.piece(t) for t in tokens).decode("utf-8", "replace")
        if not text:
            raise bindings.NativeError("the model's output is empty: none of its tokens has a text")
        return {"tokens": tokens, "text": text, "build": bindings.build()}


def _sound(logits: bindings.Floats) -> bindings.Floats:
    if not np.isfinite(logits).all():
        raise bindings.NativeError("the model's output is not finite (NaN or infinity)")
    if logits.min() == logits.max():
        raise bindings.NativeError("the model's output is the same for every token")
    return logits
