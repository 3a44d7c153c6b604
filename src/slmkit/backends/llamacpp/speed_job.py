"""The child's side of measuring speed. Imported in child processes only.

Method: test_prompt and test_gen of llama-bench
(https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/llama-bench/llama-bench.cpp): random tokens, a context of
just the size that the test needs, the KV cache cleared before each repetition, depth restored from a saved state.
Before them the time to first token and between tokens of a real text, which llama-bench does not have.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.breakdown import breakdown
from slmkit.backends.llamacpp.buffers import sums
from slmkit.backends.llamacpp.channel import Channel
from slmkit.backends.llamacpp.decoder import Decoder, Together, Tokens, Vocabulary, sampler
from slmkit.core.bench import ITL_TOKENS

WARMUP_TOKENS = 16
"""Generated at a time while warming up: llama-bench's single token is too few for models under 1B."""
SETTLED = 0.03
"""Warm is when a run takes as long as the one before, but for this share."""
MOST_WARMUP_RUNS = 8
MOST_WARMUP_NS = 3_000_000_000


def speed(channel: Channel, path: str, text: str, repetitions: int, **settings: Any) -> dict[str, Any]:
    """Measure one configuration: `repetitions` samples of each test, in nanoseconds.

    `settings` are those of `core.bench.BenchSpec`, its names of types and modes as the engine's numbers. The parent
    looks at this process at each pause: `start` (the interpreter and the library alone), and `begin TEST` and
    `end TEST`, the context alive.
    """
    log: list[str] = []

    def hear(level: int, text: str) -> None:
        log.append(text)
        channel.send("log", level=level, text=text)

    bindings.on_log(hear)
    channel.pause("start")
    started = time.perf_counter_ns()
    with bindings.model(path, n_gpu_layers=settings["n_gpu_layers"], mmap=settings["mmap"]) as model:
        load_ns = time.perf_counter_ns() - started
        bench = _Bench(channel, model, settings, repetitions, log)
        if settings["n_prompt"] or settings["prompt"] is not None:
            bench.first_token(settings["prompt"] or text, exact=settings["prompt"] is not None)
        if settings["n_prompt"]:
            bench.prompt()
        if settings["n_gen"]:
            bench.generate()
        if settings["n_pg_prompt"] or settings["n_pg_gen"]:
            bench.prompt_and_generate()
    return {
        **bench.samples,
        "load_ns": load_ns,
        "first_ns": bench.first_ns,
        "n_warmup": bench.n_warmup,
        "buffers": bench.buffers,
        "build": bindings.build(),
    }


class _Bench:
    """The tests, one context for each."""

    def __init__(
        self,
        channel: Channel,
        model: bindings.Pointer,
        settings: Mapping[str, Any],
        repetitions: int,
        log: list[str],
    ) -> None:
        self._channel, self._model, self._settings, self._repetitions = channel, model, settings, repetitions
        self._log = log
        self._random = np.random.default_rng(settings["seed"])
        self._depth: int = settings["depth"]
        self.samples: dict[str, list[int]] = {f"{test}_ns": [] for test in ("pp", "tg", "pg", "ttft", "itl")}
        self.first_ns: int | None = None
        self.n_warmup = 0
        self.buffers: dict[str, int] = {}

    def first_token(self, text: str, *, exact: bool) -> None:
        """A text goes in, the first token's text comes out, and then some more: tokenized, decoded, sampled.

        The text is taken whole when it is `exact`, else as much of it as makes `n_prompt` tokens. The very first time
        is kept apart: nothing is warm then.
        """
        n_prompt = None if exact else self._settings["n_prompt"]
        n_itl = min(self._settings["n_gen"], ITL_TOKENS)
        vocabulary = Decoder(self._model, None, 1)  # it only tokenizes
        text, n_tokens = _cut(text, n_prompt, vocabulary)
        with (
            self._context(n_tokens + n_itl + 1) as (context, decoder),
            sampler(context, self._settings["seed"]) as pick,
        ):

            def token_text() -> int:
                token = pick.pick()
                decoder.piece(token)
                return token

            def ask() -> tuple[int, list[int]]:
                begun = time.perf_counter_ns()
                decoder.prompt(decoder.tokenize(text)[:n_tokens])
                token, times = token_text(), [time.perf_counter_ns()]
                for _ in range(n_itl):
                    decoder.step(token)
                    token = token_text()
                    times.append(time.perf_counter_ns())
                return times[0] - begun, [b - a for a, b in itertools.pairwise(times)]

            reset = self._reset(decoder)
            reset()
            self.first_ns, _ = ask()
            self._pause("begin ttft")
            for _ in range(self._repetitions):
                reset()
                first, between = ask()
                self._sample("ttft", first)
                self.samples["itl_ns"] += between
            self._end("ttft", context)

    def prompt(self) -> None:
        """A prompt of random tokens."""
        n_prompt = self._settings["n_prompt"]
        self._measure("pp", n_prompt, lambda decoder: decoder.prompt(self._tokens(decoder, n_prompt)))

    def generate(self) -> None:
        """Random tokens, one at a time."""
        n_gen = self._settings["n_gen"]
        warm_up = min(n_gen, WARMUP_TOKENS)
        self._measure("tg", n_gen, lambda d: self._steps(d, n_gen), lambda d: self._steps(d, warm_up))

    def prompt_and_generate(self) -> None:
        """A prompt, and tokens after it."""
        n_prompt, n_gen = self._settings["n_pg_prompt"], self._settings["n_pg_gen"]

        def run(decoder: Decoder) -> None:
            if n_prompt:
                decoder.prompt(self._tokens(decoder, n_prompt))
            self._steps(decoder, n_gen)

        self._measure("pg", n_prompt + n_gen, run)

    def _measure(
        self,
        test: str,
        n_tokens: int,
        run: Callable[[Decoder], None],
        warm_up: Callable[[Decoder], None] | None = None,
    ) -> None:
        with self._context(n_tokens) as (context, decoder):
            reset = self._reset(decoder)

            def timed(what: Callable[[Decoder], None]) -> int:
                reset()
                begun = time.perf_counter_ns()
                what(decoder)
                return time.perf_counter_ns() - begun

            if self.first_ns is None:  # there was no prompt
                reset()
                begun = time.perf_counter_ns()
                self._steps(decoder, 1)
                self.first_ns = time.perf_counter_ns() - begun
            self.n_warmup += _settle(lambda: timed(warm_up or run))
            self._pause(f"begin {test}")
            for _ in range(self._repetitions):
                self._sample(test, timed(run))
            self._end(test, context)

    @contextmanager
    def _context(self, n_tokens: int) -> Iterator[tuple[bindings.Pointer, Decoder]]:
        """For so many tokens after the depth, and what decodes into it."""
        named = ("n_batch", "n_ubatch", "n_threads", "type_k", "type_v", "flash_attn")
        n_seqs = self._settings["n_parallel"]
        self._log.clear()
        with bindings.context(
            self._model,
            n_ctx=n_seqs * (self._depth + n_tokens),
            n_seqs=n_seqs,
            **{name: self._settings[name] for name in named},
        ) as context:
            n_batch = self._settings["n_batch"]
            several = n_seqs > 1
            yield (
                context,
                Together(self._model, context, n_batch, n_seqs) if several else Decoder(self._model, context, n_batch),
            )

    def _reset(self, decoder: Decoder) -> Callable[[], None]:
        """What empties the context, but for the tokens of the depth."""
        if not self._depth:
            return decoder.clear
        decoder.clear()
        decoder.prompt(self._tokens(decoder, self._depth))
        state = decoder.save()

        def reset() -> None:
            decoder.clear()
            decoder.restore(state)

        return reset

    def _tokens(self, decoder: Decoder, n_tokens: int) -> Tokens:
        tokens = self._random.integers(0, decoder.n_vocab, n_tokens, np.int32)
        if decoder.bos is not None:
            tokens[0] = decoder.bos
        return tokens

    def _steps(self, decoder: Decoder, n_tokens: int) -> None:
        token = decoder.bos if decoder.bos is not None else int(self._random.integers(0, decoder.n_vocab))
        for following in self._random.integers(0, decoder.n_vocab, n_tokens).tolist():
            decoder.step(token)
            token = following

    def _sample(self, test: str, elapsed_ns: int) -> None:
        self.samples[f"{test}_ns"].append(elapsed_ns)
        self._channel.tell("sample", test=test, ns=elapsed_ns)

    def _pause(self, stage: str) -> None:
        self._channel.pause(stage)

    def _end(self, test: str, context: bindings.Pointer) -> None:
        for kind, n_bytes in _buffers(context, "".join(self._log)).items():
            self.buffers[kind] = max(n_bytes, self.buffers.get(kind, 0))
        self._pause(f"end {test}")


def _settle(run: Callable[[], int]) -> int:
    """Run until it takes as long as the time before; how often that was."""
    last_ns, total_ns = run(), 0
    for n_runs in range(1, MOST_WARMUP_RUNS):
        total_ns += last_ns
        if total_ns > MOST_WARMUP_NS:
            return n_runs
        now_ns = run()
        if abs(now_ns - last_ns) < SETTLED * last_ns:
            return n_runs + 1
        last_ns = now_ns
    return MOST_WARMUP_RUNS


def _cut(text: str, n_tokens: int | None, vocabulary: Vocabulary) -> tuple[str, int]:
    """As much of a text, again and again if need be, as makes `n_tokens` tokens and few more; and how many to take."""
    if n_tokens is None:
        return text, len(vocabulary.tokenize(text))
    while len(vocabulary.tokenize(text)) < n_tokens:
        text += text
    low, high = 0, len(text)
    while high - low > 16:
        middle = (low + high) // 2
        low, high = (low, middle) if len(vocabulary.tokenize(text[:middle])) >= n_tokens else (middle, high)
    return text[:high], n_tokens


def _buffers(context: bindings.Pointer, log: str) -> dict[str, int]:
    """The engine's own sums, in bytes, by kind; nothing from an engine that does not tell."""
    try:
        return sums(breakdown(context), log)
    except bindings.NativeError:
        return {}
