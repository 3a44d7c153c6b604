"""Two runs beside each other: what belongs together stands together, what differs is named, nothing is mixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.bench import BenchSpec
from slmkit.core.rundiff import RunsDiff, diff
from tests.measured import BUILD, FAILED, HOST, SPEC, row, run


def named(found: RunsDiff) -> set[tuple[str, str]]:
    return {(item.where, item.key) for item in found.differing}


def test_the_same_run_differs_in_nothing() -> None:
    found = diff(run(), run())
    assert found.differing == ()
    assert {value.name for value in found.values} == {"pp512", "tg128", "TTFT", "load", "peak RSS", "size"}
    assert all(value.change == 0 for value in found.values)


def test_change_and_both_intervals() -> None:
    found = diff(run(row(tg_s=2.0)), run(row(tg_s=1.0)))
    (tg,) = (value for value in found.values if value.name == "tg128")
    assert tg.unit == "tok/s"
    assert tg.change == pytest.approx(1.0, rel=0.001)
    assert tg.verdict is not None
    assert "faster" in tg.verdict
    others = {value.name: value.verdict for value in found.values if value.name != "tg128"}
    assert (others.pop("load"), others.pop("size")) == (None, "the same size")
    for said in others.values():
        assert said is not None
        assert said.startswith("no measurable difference")
        assert said.endswith("(1 process)")
    for side, rate in ((tg.a, 64), (tg.b, 128)):
        assert side is not None
        assert side.low is not None
        assert side.high is not None
        assert side.low < rate < side.high


def test_each_key_that_differs_is_named() -> None:
    other = replace(SPEC, n_threads=4)
    found = diff(
        run(row(digest="sha256:a")),
        run(row(spec=other, digest="sha256:b"), host={**HOST, "cpu": "Two"}, build={**BUILD, "gpu": "yes", "new": "x"}),
    )
    assert named(found) == {
        ("host", "cpu"),
        ("build", "gpu"),
        ("build", "new"),
        ("spec", "n_threads"),
        ("model", "digest"),
    }
    assert all(value.a and value.b for value in found.values)


def test_rows_of_a_grid_find_their_like_in_another_order() -> None:
    specs = [replace(SPEC, n_threads=n) for n in (1, 2, 4)]
    a = run(*(row(tg_s=n, spec=spec) for n, spec in enumerate(specs, 1)))
    b = run(*(row(tg_s=n, spec=spec, digest="sha256:new") for n, spec in reversed(list(enumerate(specs, 1)))))
    found = diff(a, b)
    rates = [value for value in found.values if value.name == "tg128"]
    assert [dict(value.settings) for value in rates] == [{"n_threads": n} for n in (1, 2, 4)]
    assert all(value.change == 0 for value in rates)
    assert named(found) == {("model", "digest")}


def test_what_only_one_has_stands_alone_and_several_are_not_guessed() -> None:
    a = run(row(spec=replace(SPEC, n_threads=1)), row(spec=replace(SPEC, n_threads=2)))
    b = run(row(spec=replace(SPEC, n_threads=3)), row(spec=replace(SPEC, n_threads=4)), row("org/n:Q4_0"), FAILED)
    rates = [value for value in diff(a, b).values if value.name == "tg128"]
    assert [(value.a is None, value.b is None) for value in rates] == [(False, True)] * 2 + [(True, False)] * 3
    assert all(value.change is None for value in rates)


def test_disturbed_rows_are_named() -> None:
    (block,) = row().blocks
    noisy = row(blocks=(replace(block, state="noisy", reasons=("others",)),))
    assert diff(run(row()), run(noisy)).disturbed == ("B: org/m:Q4_0 is noisy",)


def test_a_file_and_a_reference_of_the_same_model_stand_together() -> None:
    found = diff(run(row("org/m:Q4_0")), run(row("/models/M-Q4_0.gguf")))
    assert {value.model for value in found.values} == {"m-q4_0"}
    assert all(value.a and value.b for value in found.values)


ROWS = st.lists(
    st.builds(
        row,
        ref=st.sampled_from(["org/m:Q4_0", "org/m:F16", "./m-Q4_0.gguf"]),
        spec=st.builds(BenchSpec, n_threads=st.sampled_from([1, 2]), depth=st.sampled_from([0, 64])),
        digest=st.sampled_from(["sha256:a", "sha256:b"]),
    ),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS)
def test_every_value_appears_once_and_the_other_way_round_is_the_mirror(a: list, b: list) -> None:  # type: ignore[type-arg]
    one, two = replace(run(), rows=tuple(a)), replace(run(), rows=tuple(b))
    there, back = diff(one, two).values, diff(two, one).values
    for side, rows in (("a", a), ("b", b)):
        shown = [value for value in there if getattr(value, side) and value.name.startswith("tg")]
        assert len(shown) == len(rows)
    assert sum(bool(v.a and v.b) for v in there) == sum(bool(v.a and v.b) for v in back)
