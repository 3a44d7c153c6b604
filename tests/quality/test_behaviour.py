"""What models of the registry write, by the real engine; and the prompts that come with slmkit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from slmkit.core.behaviour import BehaviourReport
from slmkit.core.progress import SILENT
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import adopt
from slmkit.ops.adopt import describe
from slmkit.ops.quality.behaviour import behaviour, bundled
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from tests.convert.conftest import make_case, smollm2, smollm2_gguf  # noqa: F401  fixtures
from tests.quality.test_tasks import found


def test_the_bundled_prompts_are_of_several_kinds() -> None:
    prompts = bundled().prompts
    assert len(prompts) == len({prompt.name for prompt in prompts}) == 24
    assert Counter(prompt.kind for prompt in prompts)["json"] == 8 == sum(1 for prompt in prompts if prompt.keys)
    for prompt in prompts:
        assert (prompt.kind == "json") == bool(prompt.keys)
        assert all(f'"{key}"' in prompt.text for key in prompt.keys)


def test_a_quant_leaves_the_path_and_the_reference_does_not(tiny: str, session: Session) -> None:
    base, quant = (found(session, tiny, variant) for variant in ("F16", "Q4_0"))
    report = behaviour(base, [quant, base], SILENT, n_gen=8, n_threads=1)
    assert behaviour(base, [quant, base], SILENT, n_gen=8, n_threads=1) == report
    assert report.reference == report.rows[1]
    left, same = (report.agreement(row) for row in report.rows)
    assert left is not None
    assert same is not None
    assert (same.median_tokens, same.is_censored, same.same.share) == (8, True, 1.0)
    assert left.median_tokens is not None
    assert left.median_tokens < 8
    assert any(departure.left for departure in left.departures)
    assert report.reference.loops.n == 24
    assert report.reference.valid_json().n == report.reference.valid_json(constrained=True).n == 8
    assert BehaviourReport.from_document(report.document()) == report


def test_one_that_cannot_write_has_the_reason_and_the_others_write(
    tiny: str, session: Session, tmp_path: Path, f16: Path
) -> None:
    copy = tmp_path / "broken-F16.gguf"
    copy.write_bytes(f16.read_bytes())
    broken = describe(copy, SILENT)
    copy.write_bytes(f16.read_bytes()[:-5000])
    whole = found(session, tiny, "Q4_0")
    report = behaviour(broken, [whole], SILENT, n_gen=4, n_threads=1)
    assert report.reference.failure is not None
    assert report.reference.failure.code == "engine"
    (row,) = report.rows
    assert row.failure is None
    assert len(row.answers) == 24
    assert report.agreement(row) is None
    report = behaviour(whole, [broken], SILENT, n_gen=4, n_threads=1)
    assert report.reference.failure is None
    assert report.rows[0].failure is not None


def test_a_model_with_another_vocabulary_is_not_compared(
    tiny: str,
    session: Session,
    tmp_path: Path,
    make_case: object,  # noqa: F811
) -> None:
    assert callable(make_case)
    other = verbs.convert(ModelRef("path", str(make_case("tiny-lfm2"))), session)
    report = behaviour(found(session, tiny, "F16"), [other], SILENT, n_gen=4, n_threads=1)
    assert report.rows[0].failure is None
    assert report.agreement(report.rows[0]) is None
    with pytest.raises(UsageError, match="another vocabulary"):
        report.rows[0].agreement(report.reference)


def test_checkpoints_and_no_tokens_are_refused(checkpoint: Path, f16: Path) -> None:
    whole = describe(f16, SILENT)
    with pytest.raises(UsageError, match="is a checkpoint"):
        behaviour(whole, [adopt.describe(checkpoint, SILENT)], SILENT)
    with pytest.raises(UsageError, match="n_gen is 0"):
        behaviour(whole, [], SILENT, n_gen=0)
