"""The child's side of measuring speed: llama-bench's tests, and the time to first token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.channel import Channel

# llama-bench warms generation up with one token, too few for models under 1B (its first repetitions are then slow).
WARMUP_TOKENS = 16

Test = Callable[[bindings.Decoder], None]


def speed(
    channel: Channel,
    path: str,
    n_prompt: int,
    n_gen: int,
    depth: int,
    repetitions: int,
    n_batch: int,
    n_ubatch: int,
    n_threads: int,
    n_gpu_layers: int,
    seed: int,
) -> dict[str, Any]:
    """llama-bench's measurement, then the time to first token.

    Samples are in nanoseconds, one for each repetition: `pp_ns` (n_prompt tokens), `tg_ns` (n_gen tokens), `ttft_ns` (a
    prompt of n_prompt tokens decoded, the best token picked and turned into text). Method: test_prompt and test_gen of
    https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/llama-bench/llama-bench.cpp: random tokens, a context of
    just the size that the test needs, the KV cache cleared before each repetition, depth restored from a saved state.
    """
    bindings.forward_log(channel)
    channel.pause("start")  # the interpreter and the library alone
    random = np.random.default_rng(seed)
    started = time.perf_counter_ns()
    with bindings.model(path, n_gpu_layers=n_gpu_layers) as model:
        load_ns = time.perf_counter_ns() - started
        result: dict[str, Any] = {"load_ns": load_ns, "pp_ns": [], "tg_ns": [], "ttft_ns": []}

        def measure(name: str, n_ctx: int, warm_up: Test, test: Test) -> None:
            with bindings.context(
                model, n_ctx=n_ctx, n_batch=n_batch, n_ubatch=n_ubatch, n_threads=n_threads
            ) as context:
                decoder = bindings.Decoder(model, context, n_batch)
                warm_up(decoder)
                state = None
                for _ in range(repetitions):
                    decoder.clear()
                    if depth and state is None:
                        decoder.prompt(random.integers(0, decoder.n_vocab, depth, np.int32))
                        state = decoder.save()
                    elif state is not None:
                        decoder.restore(state)
                    begun = time.perf_counter_ns()
                    test(decoder)
                    result[name].append(time.perf_counter_ns() - begun)
                    channel.send("sample", test=name)
                channel.pause(name)

        def prompt(decoder: bindings.Decoder) -> None:
            tokens = random.integers(0, decoder.n_vocab, n_prompt, np.int32)
            if decoder.bos is not None:
                tokens[0] = decoder.bos
            decoder.prompt(tokens)

        def generate(n_tokens: int) -> Test:
            def test(decoder: bindings.Decoder) -> None:
                token = decoder.bos if decoder.bos is not None else int(random.integers(0, decoder.n_vocab))
                for following in random.integers(0, decoder.n_vocab, n_tokens).tolist():
                    decoder.step(token)
                    token = following

            return test

        def first_token(decoder: bindings.Decoder) -> None:
            prompt(decoder)
            decoder.piece(int(decoder.logits().argmax()))

        if n_prompt:
            measure("pp_ns", depth + n_prompt, prompt, prompt)
        if n_gen:
            measure("tg_ns", depth + n_gen, generate(min(n_gen, WARMUP_TOKENS)), generate(n_gen))
        if n_prompt:
            measure("ttft_ns", depth + n_prompt + 1, prompt, first_token)
    return {**result, "build": bindings.build()}
