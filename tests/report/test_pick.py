"""The tables of `pick` and `recommend`, from values built by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from slmkit.core import stats
from slmkit.core.divergence import Scores
from slmkit.core.pick import LeftOut, Pick, PickRow, Removed
from slmkit.core.recommend import ESTIMATED, Candidate, Recommendation, Wish, choose
from slmkit.core.stats import Estimate
from slmkit.report.pick import pick_table
from slmkit.report.recommend import recommend_table
from slmkit.report.table import FORMS, render

from . import benches

KLDS = {"Q8_0": 0.0021, "Q4_K_M": 0.0412, "Q4_0": 0.31}


def scores(kld: float) -> Scores:
    return Scores(
        n_tokens=8192,
        ppl=Estimate(20.5, 0.3),
        ppl_ratio=Estimate(1 + kld / 2, 0.01),
        kld=Estimate(kld, kld / 30),
        kld_percentiles=(kld / 2, kld * 3, kld * 9),
        kld_max=kld * 20,
        same_top=Estimate(1 - kld, 0.004),
    )


def row(name: str, **changes: Any) -> PickRow:
    bench = benches.NOISY_ROW if name == "Q4_K_M" else benches.row(name)
    kld = KLDS.get(name)
    candidate = Candidate(
        name=name,
        ref=bench.ref,
        size_bytes=bench.size_bytes,
        bpw=bench.size_bytes * 8 / 134_515_008,
        memory_bytes=bench.size_bytes + (150 << 20),
        tok_per_s=stats.mean(bench.tg_rates),
        kld=kld or 0.0,
        kld_error=kld / 30 if kld else None,
        verdict={"Q8_0": "near lossless", "Q4_K_M": "good", "Q4_0": "noticeable"}.get(name),
        state=bench.state,
    )
    found = PickRow(candidate, bench, scores(kld) if kld else None, is_base=name == "F16")
    return replace(found, **changes)


def pick(*rows: PickRow, wish: Wish = Wish(), **changes: Any) -> Pick:  # noqa: B008  it is frozen
    choice = choose([each.candidate for each in rows if not each.is_base], wish)
    return Pick(benches.MODEL, rows, choice, "all domains", 32, **changes)


ALL = (row("F16"), row("Q8_0"), row("Q4_K_M"), row("Q4_0"))
FAILED = PickRow(Candidate("Q2_K", f"{benches.MODEL}:Q2_K", 70_000_000, state="", failure="it crashed", here=False))


def test_the_choice_is_marked_and_said() -> None:
    found = pick(*ALL, FAILED, left_out=(LeftOut("Q6_K", "it would be the same as Q8_0"),), notes=("by the plan",))
    titles, _, *lines = render(pick_table(found), "md").splitlines()
    assert [title.strip() for title in titles.strip("|").split("|")] == [
        "",
        "type",
        "size",
        "tg tok/s",
        "pp tok/s",
        "TTFT",
        "peak RSS",
        "mean KLD",
        "KLD p99",
        "same top",
        "PPL change",
        "verdict",
        "state",
    ]
    f16, q8, q4_k_m, q4_0, q2_k = lines[:5]
    assert "base" in f16
    assert "near lossless" in q8
    assert "★" in q4_k_m
    assert "+2.1 %" in q4_k_m
    assert "noisy" in q4_k_m
    assert "noticeable" in q4_0
    assert "failed" in q2_k
    notes = "\n".join(lines[5:])
    assert "★ Q4_K_M: 100.1 MiB at 102.0 tok/s, mean KLD 0.0412 (good)" in notes
    assert "(good): of the 2 that keep every limit (mean KLD up to 0.05) it is the smallest and the fastest" in notes
    assert "Q2_K: it crashed" in notes
    assert "0.0189" in q8  # the percentile
    assert "by the plan" in notes
    assert "not tried: Q6_K: it would be the same as Q8_0" in notes
    assert "tg128, pp512; KLD, same top and PPL on 32 chunks of all domains" in notes


def test_each_kind_of_disturbance_is_said_once() -> None:
    block = benches.NOISY_ROW.blocks[0]
    said = [("other programs used 1.3 of 2 cores: wait", "on battery"), ("other programs used 1.4 of 2",)]
    blocks = tuple(replace(block, reasons=reasons) for reasons in said)
    noisy = replace(ALL[2], bench=replace(benches.NOISY_ROW, blocks=blocks))
    (note,) = [note for note in pick_table(pick(noisy)).notes if note.startswith("Q4_K_M is noisy")]
    assert note == "Q4_K_M is noisy: other programs used 1.3 of 2 cores: wait; on battery"


def test_no_choice_is_said_too() -> None:
    notes = render(pick_table(pick(*ALL, wish=Wish(max_kld=0.001))), "md")
    assert "★" not in notes
    assert "nothing keeps every limit: mean KLD up to 0.001" in notes
    assert "the nearest is Q8_0: mean KLD 0.0021 is over 0.001" in notes


def test_what_was_removed_is_said() -> None:
    gone = (Removed("org/m:Q8_0", 144_000_000, True), Removed("org/m:Q4_0", 91_000_000, False))
    notes = pick_table(pick(*ALL, removed=gone)).notes
    assert notes[-1] == "removed: Q8_0, Q4_0: 224.1 MiB; `slmkit get org/m:Q8_0` makes one again"


def test_every_form_can_be_printed() -> None:
    for form in FORMS:
        assert render(pick_table(pick(*ALL, FAILED)), form)
        assert render(pick_table(pick(FAILED)), form)
        assert render(recommend_table(Recommendation("org/m", pick(*ALL).choice)), form)
    records = json.loads(render(pick_table(pick(*ALL)), "json"))
    assert [record["is_best"] for record in records] == [False, False, True, False]
    assert records[3]["reason"] == "mean KLD 0.3100 is over 0.05"
    assert records[1]["kld_error"] > 0


def test_the_document_has_figures_not_samples() -> None:
    document = json.loads(json.dumps(pick(*ALL, FAILED).document()))
    assert document["kind"] == "pick"
    assert [each["name"] for each in document["rows"]] == ["F16", "Q8_0", "Q4_K_M", "Q4_0", "Q2_K"]
    assert document["rows"][1]["scores"]["kld"]["value"] == 0.0021
    assert document["rows"][4]["tg_tok_per_s"] is None
    assert "blocks" not in json.dumps(document)


def test_estimates_are_marked() -> None:
    guess = Candidate(
        "IQ4_XS",
        "org/m:IQ4_XS",
        80_000_000,
        4.7,
        1 << 28,
        150.0,
        ESTIMATED,
        0.04,
        None,
        ESTIMATED,
        state="",
        here=False,
    )
    choice = choose([guess, ALL[1].candidate], Wish(ram_bytes=1 << 33, n_ctx=4096))
    table = recommend_table(Recommendation("org/m", choice, notes=("a note",)))
    lines = render(table, "md").splitlines()
    assert "RAM @ 4,096" in lines[0]
    assert "★" in lines[2]
    assert "~150.0" in lines[3]
    assert "~0.040" in lines[3]
    assert "estimate" in lines[3]
    assert any("perhaps better: IQ4_XS" in note for note in table.notes)
    assert any(note.startswith("~: an estimate") for note in table.notes)
    assert table.notes[-1] == "a note"
