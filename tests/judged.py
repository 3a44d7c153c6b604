"""Runs of `quality` made by hand, as if a text had been read."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from slmkit.core.behaviour import Answer, Behaviour, BehaviourReport, Generation
from slmkit.core.damage import Context, Damage, Likely
from slmkit.core.losses import DIGITS, WORDS, groups, worst
from slmkit.core.quality import Chunk, QualityRow, QualityRun, QualitySpec
from slmkit.core.tasks import Scored, TaskResult
from tests.measured import BUILD, HOST, MIB

N_CTX = 64
CORPUS = "c0ffee" + "0" * 58


def chunks(
    kld: float | None, *, n: int = 10, domains: Sequence[str] = ("prose",), n_tokens: int = 32, spread: float = 0.2
) -> tuple[Chunk, ...]:
    """Chunks of a file whose mean KLD is about `kld` (`None`: the base's own), the same ones each time.

    `spread` is how far the chunks' means lie apart, as a share.
    """
    found = []
    for number in range(n):
        for domain in domains:
            draw = random.Random(f"{domain} {number}")
            nll = [draw.uniform(1.0, 5.0) for _ in range(n_tokens)]
            if kld is None:
                found.append(Chunk(domain, number, array("f", nll)))
                continue
            mean = kld * (1 + spread * draw.uniform(-1, 1))
            lost = [mean * draw.uniform(0.5, 1.5) for _ in nll]
            same = [int(draw.random() > math.sqrt(kld) / 2) for _ in nll]
            worse = [value + loss / 2 for value, loss in zip(nll, lost, strict=True)]
            found.append(Chunk(domain, number, array("f", worse), array("f", lost), array("b", same)))
    return tuple(found)


def row(variant: str, kld: float | None, *, model: str = "org/m", size_mib: float = 90, **changes: Any) -> QualityRow:
    """A file of that mean KLD; with `None` the base. What is not of the row is of its chunks."""
    own = {key: changes.pop(key) for key in ("failure", "defect", "bpw", "decided") if key in changes}
    read = () if own.get("failure") or own.get("defect") else chunks(kld, **changes)
    ref = f"{model}:{variant}"
    return QualityRow(ref, f"sha256:{ref}", round(size_mib * MIB), read, is_base=kld is None, **own)


def run(*rows: QualityRow, corpus: str = CORPUS, build: Mapping[str, str] = BUILD, **changes: Any) -> QualityRun:
    """A run of these, the base among them."""
    base = next((row.digest for row in rows if row.is_base), None)
    values: dict[str, Any] = {
        "created": "2026-11-25T10:00:00+00:00",
        "host": dict(HOST),
        "corpus_name": "prose",
        "spec": QualitySpec(n_ctx=N_CTX, n_threads=2),
        "slmkit": "0.1.0",
        "peak_rss": 700 * MIB,
        "elapsed_s": 12.0,
    }
    return QualityRun(build=dict(build), corpus=corpus, base=base, rows=rows, **{**values, **changes})


def damaged(row: QualityRow, *, before: str = "the <b>\n", token: str = " cat") -> QualityRow:
    """The row with its damage, as if every other token were a number; its worst contexts are of these texts."""
    known = {(c.domain, c.number): [(WORDS, DIGITS)[i % 2] for i in range(len(c.kld))] for c in row.chunks}
    top = (Likely(token, 0.5), Likely("\n", 0.25))
    found = tuple(Context(place, before, token, 0.5, 0.01, top, top[::-1]) for place in worst(row))
    return replace(row, damage=Damage(row.ref, row.digest, tuple(groups(row, known, N_CTX)), found))


def asked(run: QualityRun) -> QualityRun:
    """The same, whose Q8_0 was asked a question and a prompt; it stands for the base, too."""
    scored = Scored("q1", None, 0, (-1.0, -math.inf), (3, 4), (3, 4), (1, 2))
    result = TaskResult("org/m:Q8_0", "sha256:q8", "basics", "arc", "0" * 64, (scored,))
    answer = Answer("p", ("name",), Generation((1, 2), "{}", True), Generation((1,), "{", False))
    wrote = Behaviour("org/m:Q8_0", "sha256:q8", "1" * 64, 64, (answer,), "2" * 64)
    other = replace(wrote, ref="org/m:Q4_0", digest="sha256:q4")
    return replace(run, tasks=(result,), behaviour=BehaviourReport(wrote, (other,)))


F16 = row("F16", None, size_mib=256)
Q8_0 = row("Q8_0", 0.002, size_mib=136)
Q4_0 = row("Q4_0", 0.08, size_mib=77)
