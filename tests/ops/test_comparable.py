"""Which measurements of quality stand in one table, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.bench import Failure
from slmkit.core.quality import QualityRow, QualityRun, QualitySpec
from slmkit.ops.comparable import Chosen, choose
from tests import judged
from tests.judged import F16, N_CTX, Q4_0, Q8_0, run
from tests.measured import BUILD

Q5_1 = judged.row("Q5_1", 0.02)


def artifact(row: QualityRow) -> Artifact:
    """The file that a row is of."""
    model, _, variant = row.ref.rpartition(":")
    files = (File(f"{variant}.gguf", row.size_bytes, row.digest.removeprefix("sha256:")),)
    return Artifact(model, variant, Path("/models"), files, True, Provenance("quantize"), "")


FOUR = [artifact(row) for row in (F16, Q8_0, Q5_1, Q4_0)]


def chosen(*runs: QualityRun) -> Chosen:
    return choose(FOUR, runs)


def measured(found: Chosen) -> list[str]:
    return [digest.rpartition(":")[2] for digest in found.judged]


def test_nothing_was_measured() -> None:
    assert chosen() == Chosen()
    failed = replace(Q8_0, chunks=(), failure=Failure("engine.crashed", "it crashed"))
    assert chosen(run(failed)) == Chosen()
    assert choose([], [run(F16, Q8_0)]) == Chosen()


def test_the_figures_are_those_beside_the_base() -> None:
    found = chosen(run(F16, Q8_0, Q4_0))
    base, good, bad = (found.judged[row.digest] for row in (F16, Q8_0, Q4_0))
    assert (base.is_base, base.verdict, base.kld) == (True, None, 0.0)
    assert (good.verdict, bad.verdict, bad.base) == ("near lossless", "noticeable", "org/m:F16")
    assert good.kld == pytest.approx(0.002, rel=0.1)
    assert found.terms
    assert (found.terms.corpus_name, found.terms.n_ctx, found.terms.n_chunks) == ("prose", N_CTX, 10)


def test_rows_of_several_runs_stand_together_the_newest_of_each() -> None:
    newer = replace(Q8_0, chunks=judged.chunks(0.004))
    found = chosen(run(F16, newer), run(F16, Q8_0, Q4_0))
    assert sorted(measured(found)) == ["F16", "Q4_0", "Q8_0"]
    assert found.judged[Q8_0.digest].kld == pytest.approx(0.004, rel=0.1)
    assert found.notes == ()
    assert found.commands == (f"slmkit quality org/m:Q5_1 --corpus prose --ctx {N_CTX}",)


def test_those_terms_count_that_most_have_and_of_equals_the_newest() -> None:
    other: dict[str, Any] = {"corpus": "0123456789abcdef", "corpus_name": "code"}
    found = chosen(run(F16, Q4_0, **other), run(F16, Q8_0, Q5_1))
    assert sorted(measured(found)) == ["F16", "Q5_1", "Q8_0"]
    assert found.notes == (
        "org/m:Q4_0: its quality is left out, it was measured with another corpus (code, 0123456789ab)",
    )
    equal = chosen(run(F16, Q4_0, **other), run(F16, Q8_0))
    assert sorted(measured(equal)) == ["F16", "Q4_0"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": QualitySpec(n_ctx=128)}, "n_ctx 128"),
        ({"build": {**BUILD, "llama.cpp": "0.6.0"}}, "another build of the engine"),
        ({"base_precision": "coarse"}, "a saved base"),
    ],
)
def test_what_is_not_the_same_is_named(changes: dict[str, Any], said: str) -> None:
    found = chosen(run(F16, Q4_0, **changes), run(F16, Q8_0, Q5_1))
    assert found.notes == (f"org/m:Q4_0: its quality is left out, it was measured with {said}",)
    assert Q4_0.digest not in found.judged


def test_another_base_is_another_measurement() -> None:
    bf16 = judged.row("BF16", None)
    found = chosen(run(bf16, Q4_0), run(F16, Q8_0, Q5_1))
    assert found.notes == ("org/m:Q4_0: its quality is left out, it was measured with another base (org/m:BF16)",)
    alone = chosen(run(replace(Q4_0, chunks=judged.chunks(None))), run(F16, Q8_0, Q5_1))
    assert alone.notes == ("org/m:Q4_0: its quality is left out, it was measured with no base",)


def test_how_much_was_read_counts_not_how_much_was_asked_for() -> None:
    ten = run(F16, Q8_0, Q5_1, spec=QualitySpec(n_ctx=N_CTX, n_chunks=10))
    assert sorted(measured(chosen(run(F16, Q4_0), ten))) == ["F16", "Q4_0", "Q5_1", "Q8_0"]
    stopped = replace(Q4_0, chunks=Q4_0.chunks[:8], decided=False)
    found = chosen(run(F16, stopped, Q8_0))
    assert found.notes == ("org/m:Q4_0: its quality is left out, it was measured with 8 chunks",)


def test_a_text_is_its_digest_whatever_it_is_called() -> None:
    found = chosen(run(F16, Q4_0, corpus_name="mine.txt"), run(F16, Q8_0, corpus_name="yours.txt"))
    assert sorted(measured(found)) == ["F16", "Q4_0", "Q8_0"]


def test_what_cannot_be_read_beside_its_base_is_broken() -> None:
    odd = judged.row("Q4_0", 0.0, defect="its vocabulary has 5 tokens, the base's 6")
    found = chosen(run(F16, Q8_0, odd))
    assert (found.judged[odd.digest].verdict, found.judged[odd.digest].scores) == ("broken", None)


def test_each_model_has_a_base_of_its_own() -> None:
    other = [judged.row(variant, kld, model="org/n") for variant, kld in (("F16", None), ("Q4_0", 0.1))]
    found = choose([*FOUR, *map(artifact, other)], [run(*other), run(F16, Q8_0)])
    assert len(found.judged) == 4
    assert found.notes == ()
    assert found.commands == (f"slmkit quality org/m:Q5_1 org/m:Q4_0 --corpus prose --ctx {N_CTX}",)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("prose, code", "prose,code"),
        ("words.txt", "PATH/TO/words.txt"),
        ("code, my words.txt", "code --corpus 'PATH/TO/my words.txt'"),
    ],
)
def test_the_command_says_where_a_path_is_to_be_filled_in(name: str, option: str) -> None:
    found = chosen(run(F16, Q8_0, Q4_0, corpus_name=name))
    assert found.commands == (f"slmkit quality org/m:Q5_1 --corpus {option} --ctx {N_CTX}",)


def test_the_command_names_a_base_that_is_not_found_by_itself() -> None:
    base = replace(Q8_0, is_base=True, chunks=judged.chunks(None))
    found = choose(FOUR, [run(base, Q4_0, spec=QualitySpec(n_chunks=10), corpus_name="all domains")])
    assert found.commands == ("slmkit quality org/m:F16 org/m:Q5_1 --base org/m:Q8_0 --chunks 10",)
