"""What a bench measures and what comes out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from slmkit.core import stats
from slmkit.errors import EngineError, SlmkitError, UsageError

SCHEMA = 2
CACHE_TYPES = ("f16", "bf16", "f32", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
"""Of K and V, as llama-bench's `-ctk` and `-ctv` name them."""
FLASH_ATTN = ("auto", "on", "off")
ITL_TOKENS = 32
"""Generated at most after a real prompt, to see the time between tokens."""
_CELLS = 256
"""The engine makes each context a multiple of that (`GGML_PAD` in src/llama-context.cpp, 0c1e57098)."""
OK, NOISY, THROTTLED = "ok", "noisy", "throttled"
_NUMBER = re.compile(r"\d")
_LEAST = {"n_prompt": 0, "n_gen": 0, "n_pg_prompt": 0, "n_pg_gen": 0, "depth": 0, "n_parallel": 1}
_LEAST |= {"repetitions": 1, "n_batch": 1, "n_ubatch": 1, "timeout_s": 1}
_EFFORT = ("repetitions", "seed", "timeout_s", "max_rss_bytes")


@dataclass(frozen=True)
class BenchSpec:
    """One configuration. The defaults are llama-bench's (`-p 512 -n 128 -d 0 -b 2048 -ub 512 -ctk f16 -ctv f16`).

    `n_threads` `None` means the physical cores; `n_gpu_layers` -1 means as many as fit. `n_pg_prompt` and `n_pg_gen`
    are the `-pg` test. `n_parallel` sequences are decoded together. `prompt` is a text for the time to first token;
    without one it is `n_prompt` tokens of slmkit's own text. `repetitions` bounds those of a test, `timeout_s` and
    `max_rss_bytes` each child.
    """

    n_prompt: int = 512
    n_gen: int = 128
    n_pg_prompt: int = 0
    n_pg_gen: int = 0
    depth: int = 0
    n_parallel: int = 1
    n_threads: int | None = None
    n_gpu_layers: int = -1
    n_batch: int = 2048
    n_ubatch: int = 512
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: str = "auto"
    mmap: bool = True
    prompt: str | None = None
    repetitions: int = 20
    seed: int = 1
    timeout_s: float = 1800.0
    max_rss_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if self.n_threads is not None and self.n_threads < 1:
            raise UsageError(f"n_threads is {self.n_threads}: it must be at least 1")
        for name, known in (("type_k", CACHE_TYPES), ("type_v", CACHE_TYPES), ("flash_attn", FLASH_ATTN)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is {getattr(self, name)!r}: one of {', '.join(known)}")
        if self.n_prompt + self.n_gen + self.n_pg_prompt + self.n_pg_gen == 0:
            raise UsageError("nothing to measure: n_prompt and n_gen are both 0")

    @property
    def pp(self) -> str:
        """The field's name for the prompt test: `pp512`, `pp512 @ d4096`."""
        return f"pp{self.n_prompt}{self._at}"

    @property
    def tg(self) -> str:
        """The field's name for the generation test: `tg128`."""
        return f"tg{self.n_gen}{self._at}"

    @property
    def pg(self) -> str:
        """The field's name for a prompt and the generation after it: `pp512+tg128`."""
        return f"pp{self.n_pg_prompt}+tg{self.n_pg_gen}{self._at}"

    @property
    def _at(self) -> str:
        return f" @ d{self.depth}" if self.depth else ""

    @property
    def n_ctx(self) -> int:
        """Tokens that one sequence needs at most; a text for the first token may need more."""
        return self.depth + max(self.n_prompt + self.n_gen, self.n_pg_prompt + self.n_pg_gen)

    @property
    def n_cells(self) -> int | None:
        """Tokens for which the KV cache of one sequence has room in the largest context of a child; `None` with a text
        for the first token, of whose tokens nothing is known here.
        """
        if self.prompt is not None:
            return None
        first_token = self.n_prompt + min(self.n_gen, ITL_TOKENS) + 1 if self.n_prompt else 0
        n_tokens = self.depth + max(first_token, self.n_gen, self.n_pg_prompt + self.n_pg_gen)
        return -(-n_tokens // _CELLS) * _CELLS

    def conditions(self) -> dict[str, Any]:
        """Everything two measurements must share to stand in one table."""
        values = {k: v for k, v in asdict(self).items() if k not in _EFFORT}
        if self.prompt is not None:
            values["prompt"] = hashlib.sha256(self.prompt.encode()).hexdigest()
        return values


@dataclass(frozen=True)
class Memory:
    """Bytes of the measuring process; `None` where the system does not tell.

    `baseline_rss` is the interpreter and the library before the model was loaded, part of all the others. The split is
    the steady state: after the last test, the context alive. `weights`, `repacked`, `kv`, `compute` and `output` are
    the engine's own sums; `vram` is what is on a GPU of them.
    """

    baseline_rss: int | None
    peak_rss: int | None
    file_backed: int | None
    anonymous: int | None
    weights: int | None = None
    repacked: int | None = None
    kv: int | None = None
    compute: int | None = None
    output: int | None = None
    vram: int | None = None
    swap: int | None = None
    major_faults: int | None = None

    @property
    def steady_rss(self) -> int | None:
        """File-backed and anonymous together."""
        if self.file_backed is None or self.anonymous is None:
            return None
        return self.file_backed + self.anonymous


@dataclass(frozen=True)
class Failure:
    """Why a row has no numbers."""

    code: str
    message: str
    hint: str | None = None
    log: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: SlmkitError) -> Failure:
        """What an error says, and an engine's last lines."""
        return cls(error.code, error.message, error.hint, error.log if isinstance(error, EngineError) else ())

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> Failure | None:
        """Out of JSON, where no failure is null; raises `KeyError` or `TypeError` for something else."""
        return None if document is None else cls(**{**document, "log": tuple(document["log"])})


@dataclass(frozen=True)
class Block:
    """What one child measured: raw samples in nanoseconds, one for each repetition (`itl_ns`: one for each token).

    `first_ns` is the first-run cost, in no other sample: the first token of a fresh context. `n_warmup` repetitions
    came before the samples. `joules` maps a test (`pp`, `tg`, `pg`, `ttft`) to the energy of all its repetitions, where
    it can be read. `seen` is what the machine did meanwhile, `state` what was made of it; a block that is not `counted`
    was disturbed, and others were not.
    """

    load_ns: int | None = None
    first_ns: int | None = None
    pp_ns: tuple[int, ...] = ()
    tg_ns: tuple[int, ...] = ()
    pg_ns: tuple[int, ...] = ()
    ttft_ns: tuple[int, ...] = ()
    itl_ns: tuple[int, ...] = ()
    n_warmup: int = 0
    memory: Memory | None = None
    joules: Mapping[str, float] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)
    state: str = OK
    reasons: tuple[str, ...] = ()
    counted: bool = True

    @property
    def machines(self) -> tuple[Mapping[str, Any], ...]:
        """What was read of the machine by itself, before and after this child: `core.machine.Machine` as documents."""
        return tuple(self.seen[when] for when in ("machine", "machine_after") if self.seen.get(when))


@dataclass(frozen=True)
class BenchRow:
    """One model under one configuration: what its children measured, or the reason why there is nothing.

    `bytes_per_token` is what generating one token reads: the weights that it uses. `min_ram_bytes` is the least memory
    in which it still runs at speed, when that was searched for.
    """

    ref: str
    digest: str
    size_bytes: int
    spec: BenchSpec
    blocks: tuple[Block, ...] = ()
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    n_params: int | None = None
    bytes_per_token: int | None = None
    min_ram_bytes: int | None = None

    @property
    def counted(self) -> tuple[Block, ...]:
        """The blocks whose samples are in the statistics."""
        return tuple(block for block in self.blocks if block.counted)

    def samples(self, test: str) -> tuple[int, ...]:
        """Nanoseconds of `pp`, `tg`, `pg`, `ttft` or `itl`."""
        return tuple(ns for block in self.counted for ns in getattr(block, f"{test}_ns"))

    @property
    def pp_ns(self) -> tuple[int, ...]:
        """Of the prompt test."""
        return self.samples("pp")

    @property
    def tg_ns(self) -> tuple[int, ...]:
        """Of the generation test."""
        return self.samples("tg")

    @property
    def ttft_ns(self) -> tuple[int, ...]:
        """Times to first token."""
        return self.samples("ttft")

    def n_tokens(self, test: str) -> int:
        """Tokens of one repetition of `pp`, `tg` or `pg`, of all sequences together."""
        spec = self.spec
        of_one = {"pp": spec.n_prompt, "tg": spec.n_gen, "pg": spec.n_pg_prompt + spec.n_pg_gen}
        return of_one[test] * spec.n_parallel

    def rates(self, test: str) -> list[float]:
        """Tokens per second of `pp`, `tg` or `pg`, one for each repetition."""
        return stats.rates_per_s(self.n_tokens(test), self.samples(test))

    @property
    def pp_rates(self) -> list[float]:
        """Prompt tokens per second, one for each repetition."""
        return self.rates("pp")

    @property
    def tg_rates(self) -> list[float]:
        """Generated tokens per second, one for each repetition."""
        return self.rates("tg")

    @property
    def ttft_median_ns(self) -> float | None:
        """Median time to first token."""
        return stats.median(self.ttft_ns)

    @property
    def load_ns(self) -> float | None:
        """Median time to load."""
        return stats.median([block.load_ns for block in self.counted if block.load_ns is not None])

    @property
    def first_ns(self) -> float | None:
        """Median cost of the very first token."""
        return stats.median([block.first_ns for block in self.counted if block.first_ns is not None])

    @property
    def memory(self) -> Memory | None:
        """Of the child that took most."""
        seen = [block.memory for block in self.counted if block.memory]
        return max(seen, key=lambda memory: memory.peak_rss or 0, default=None)

    @property
    def bytes_per_step(self) -> float | None:
        """What one step of tg reads in the middle of the test: the weights that it uses, and of the KV cache of all
        sequences what is filled by then, where that is known.
        """
        if self.bytes_per_token is None:
            return None
        memory, n_cells = self.memory, self.spec.n_cells
        if not memory or not memory.kv or not n_cells:
            return self.bytes_per_token
        return self.bytes_per_token + memory.kv * (self.spec.depth + self.spec.n_gen / 2) / n_cells

    @property
    def joules_per_token(self) -> float | None:
        """Of generating; `None` where energy cannot be read."""
        read = [(block.joules["tg"], len(block.tg_ns)) for block in self.counted if "tg" in block.joules]
        n_tokens = sum(n for _, n in read) * self.n_tokens("tg")
        return sum(joules for joules, _ in read) / n_tokens if n_tokens else None

    @property
    def state(self) -> str:
        """`ok`, `noisy` or `throttled`: the worst of its blocks."""
        states = {block.state for block in self.counted}
        return next((state for state in (THROTTLED, NOISY) if state in states), OK)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ok: each kind once, which is what stands before its numbers."""
        kinds: dict[str, str] = {}
        for reason in (reason for block in self.counted for reason in block.reasons):
            kinds.setdefault(_NUMBER.split(reason)[0], reason)
        return tuple(kinds.values())


@dataclass(frozen=True)
class BenchRun:
    """All rows of one `slmkit bench`, and what they were measured on.

    `machine` is `core.machine.Machine` as a document: what this machine can do at best, measured before. `source` names
    the program that measured.
    """

    created: str
    host: Mapping[str, Any]
    build: Mapping[str, str]
    rows: tuple[BenchRow, ...]
    slmkit: str = ""
    warnings: tuple[str, ...] = field(default=())
    machine: Mapping[str, Any] = field(default_factory=dict)
    source: str = "slmkit"

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, "kind": "bench", **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BenchRun:
        """The inverse of `document`, of older schemas too; raises `KeyError` or `TypeError` for something else."""
        return cls(
            created=document["created"],
            host=document["host"],
            build=document["build"],
            rows=tuple(row_of(row) for row in document["rows"]),
            slmkit=document["slmkit"],
            warnings=tuple(document["warnings"]),
            machine=document.get("machine", {}),
            source=document.get("source", "slmkit"),
        )


def row_of(document: Mapping[str, Any]) -> BenchRow:
    """A row out of JSON; raises `KeyError` or `TypeError`."""
    return BenchRow(
        ref=document["ref"],
        digest=document["digest"],
        size_bytes=document["size_bytes"],
        spec=BenchSpec(**document["spec"]),
        blocks=tuple(block_of(block) for block in document.get("blocks", [document])),  # schema 1 had one in the row
        failure=Failure.from_document(document["failure"]),
        warnings=tuple(document["warnings"]),
        n_params=document.get("n_params"),
        bytes_per_token=document.get("bytes_per_token"),
        min_ram_bytes=document.get("min_ram_bytes"),
    )


def block_of(document: Mapping[str, Any]) -> Block:
    """A block out of JSON."""
    memory = document["memory"]
    values = {f.name: document[f.name] for f in fields(Block) if f.name in document}
    values |= {name: _ints(document.get(name, ())) for name in ("pp_ns", "tg_ns", "pg_ns", "ttft_ns", "itl_ns")}
    values |= {"memory": None if memory is None else Memory(**memory), "reasons": tuple(document.get("reasons", ()))}
    return Block(**values)


def _ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
