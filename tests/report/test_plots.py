"""Pictures: what is in them, that they are files, and the same ones for the same numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Text

from slmkit.core import units
from slmkit.core.bench import BenchRun, Memory
from slmkit.core.compare import CompareRow, Comparison
from slmkit.errors import CannotWriteError, DependencyMissingError, UsageError
from slmkit.report import plots
from slmkit.report.plots import labels, memory, scaling, size_kld, size_speed
from slmkit.report.plots.figure import as_element, figure
from slmkit.report.settings import Entries
from tests import judged

from .benches import COMPARISON, FAILED, FOUR, JUDGED, MIB, MODEL, PI, SPEC, row, run

EMPTY = Comparison((CompareRow("a/b:F16", "a/b", "F16", MIB, None, None, None),), None, ("slmkit bench a/b",))
THREADS = run(*(row(t, replace(SPEC, n_threads=n)) for t in ("F16", "Q4_0") for n in (1, 2, 4)))
DEPTHS = run(*(row(t, replace(SPEC, depth=d)) for t in ("F16", "Q4_0") for d in (0, 1024, 4096)))
Draw = Callable[[BenchRun, Path], None]
STEADY = units.size(FOUR.rows[0].memory.steady_rss if FOUR.rows[0].memory else None)
DRAWN: list[tuple[Draw, BenchRun, tuple[str, ...]]] = [
    (plots.pareto, FOUR, ("F16", "Q8_0", "Q4_K_M", "Q4_0", MODEL, "size, MiB", "tg128, tok/s")),
    (plots.against_threads, THREADS, ("F16", "Q4_0", "threads", "pp512, tok/s", "tg128, tok/s")),
    (plots.against_depth, DEPTHS, ("1,024", "4,096", "tokens in the context before", "tg128, tok/s")),
    (plots.memory_stack, FOUR, ("weights, file-backed", "KV cache", "compute", "rest", STEADY)),
]


def said(path: Path) -> set[str]:
    """The texts of an SVG, which matplotlib notes beside their glyphs."""
    return set(re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("draw", "measured", "texts"), DRAWN)
def test_a_picture_is_an_svg_that_names_what_is_in_it(
    tmp_path: Path, draw: Draw, measured: BenchRun, texts: tuple[str, ...]
) -> None:
    draw(measured, tmp_path / "a.svg")
    assert ET.parse(tmp_path / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert set(texts) <= said(tmp_path / "a.svg")


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize(("draw", "measured", "texts"), DRAWN)
def test_the_same_numbers_give_the_same_bytes(
    tmp_path: Path, draw: Draw, measured: BenchRun, texts: tuple[str, ...], suffix: str
) -> None:
    for name in "ab":
        draw(measured, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_png_is_a_png(tmp_path: Path) -> None:
    plots.pareto(COMPARISON, tmp_path / "a.PNG")
    data = (tmp_path / "a.PNG").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert data.endswith(b"IEND\xaeB`\x82")


def test_of_a_comparison_what_was_measured_is_drawn(tmp_path: Path) -> None:
    unmeasured = CompareRow(f"{MODEL}:Q5_0", MODEL, "Q5_0", MIB, None, None, None)
    plots.pareto(replace(COMPARISON, rows=(*COMPARISON.rows, unmeasured)), tmp_path / "a.svg")
    assert {"F16", "Q4_0"} <= said(tmp_path / "a.svg")
    assert "Q5_0" not in said(tmp_path / "a.svg")


ONLY_QUALITY = replace(JUDGED, rows=tuple(replace(found, bench=None) for found in JUDGED.rows))


def test_of_a_comparison_with_quality_both_pictures_are_drawn(tmp_path: Path) -> None:
    plots.of_comparison(JUDGED, tmp_path / "a.svg")
    both = said(tmp_path / "a.svg")
    assert {"tg128, tok/s", "mean KLD, nats", "near lossless (KLD up to 0.005)", "noticeable (KLD up to 0.5)"} <= both
    plots.of_comparison(ONLY_QUALITY, tmp_path / "b.svg")
    alone = said(tmp_path / "b.svg")
    assert {"Q8_0", "Q4_0", "mean KLD, nats"} <= alone
    assert not {"F16", "tg128, tok/s"} & alone  # the base itself has none
    for source in (COMPARISON, EMPTY):
        drawn = replace(source, rows=COMPARISON.rows)
        plots.of_comparison(drawn, tmp_path / "c.svg")
        plots.pareto(drawn, tmp_path / "d.svg")
        assert (tmp_path / "c.svg").read_bytes() == (tmp_path / "d.svg").read_bytes()


def test_a_logarithmic_axis_has_plain_numbers(tmp_path: Path) -> None:
    plots.of_comparison(ONLY_QUALITY, tmp_path / "a.svg")
    assert {"0.01", "0.05"} <= said(tmp_path / "a.svg")
    small = replace(row("Q4_0", model="local/tiny"), size_bytes=2 * MIB)
    plots.pareto(run(row("F16"), small), tmp_path / "b.svg")
    assert {"10", "100"} <= said(tmp_path / "b.svg")
    assert not any("mathdefault" in text for name in "ab" for text in said(tmp_path / f"{name}.svg"))


def test_what_was_not_judged_has_a_colour_of_its_own(tmp_path: Path) -> None:
    rows = (replace(JUDGED.rows[0], quality=None), *JUDGED.rows[1:])
    plots.pareto(replace(JUDGED, rows=rows), tmp_path / "a.svg")
    assert "not measured" in said(tmp_path / "a.svg")


def test_no_kld_is_nothing_to_draw() -> None:
    with pytest.raises(UsageError, match="of no row is the KLD known"):
        size_kld.draw(COMPARISON)


def test_without_generation_the_prompt_speed_is_drawn(tmp_path: Path) -> None:
    plots.pareto(run(row("F16", replace(SPEC, n_gen=0)), row("Q4_0", replace(SPEC, n_gen=0))), tmp_path / "a.svg")
    assert "pp512, tok/s" in said(tmp_path / "a.svg")


def test_a_row_that_failed_is_not_drawn(tmp_path: Path) -> None:
    with_failure = run(row("F16"), FAILED, row("Q4_0"))
    for draw in (plots.pareto, plots.memory_stack):
        draw(with_failure, tmp_path / "a.svg")
        assert "Q8_0" not in said(tmp_path / "a.svg")


def test_dollars_in_a_name_are_no_formula(tmp_path: Path) -> None:
    odd = replace(row("F16", model="local/$x_1$"), ref="local/$x_1$:$a$")
    plots.pareto(run(odd), tmp_path / "a.svg")
    assert {"local/$x_1$", "$a$"} <= said(tmp_path / "a.svg")


@pytest.mark.parametrize(
    ("measured", "title"),
    [
        (THREADS, f"{MODEL}: tok/s against threads"),
        (DEPTHS, f"{MODEL}: tok/s against tokens in the context before"),
        (FOUR, "size against speed (filled: none is both smaller and faster)"),
        (run(row("F16")), f"{MODEL}: memory by kind"),
    ],
)
def test_what_varies_is_drawn(tmp_path: Path, measured: BenchRun, title: str) -> None:
    plots.of_run(measured, tmp_path / "a.svg")
    assert title in said(tmp_path / "a.svg")


def test_runs_of_quality_are_drawn_without_a_mark(tmp_path: Path) -> None:
    plots.of_quality([judged.run(judged.F16, judged.Q8_0, judged.Q4_0)], tmp_path / "a.svg")
    found = said(tmp_path / "a.svg")
    assert {"size against KLD", "Q8_0", "Q4_0"} <= found
    assert "F16" not in found


def test_what_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = run(FAILED)
    for draw in (plots.pareto, plots.against_threads, plots.against_depth, plots.memory_stack, plots.of_run):
        with pytest.raises(UsageError, match=r"cannot draw a\.pdf"):
            draw(FOUR, tmp_path / "a.pdf")
        with pytest.raises(UsageError, match="nothing to draw"):
            draw(nothing, tmp_path / "a.svg")
        with pytest.raises(CannotWriteError, match="No such file or directory"):
            draw(FOUR, tmp_path / "no" / "a.svg")
    with pytest.raises(UsageError, match="no row has been measured") as caught:
        plots.pareto(EMPTY, tmp_path / "a.svg")
    assert caught.value.hint == "`slmkit bench a/b`"
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(DependencyMissingError):
        plots.pareto(COMPARISON, tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ what they say

points = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(points)
def test_the_front_is_what_nothing_beats(found: list[tuple[int, int]]) -> None:
    def beaten(at: tuple[int, int]) -> bool:
        return any(size <= at[0] and speed >= at[1] and (size, speed) != at for size, speed in found)

    front = size_speed.front([(float(size), float(speed)) for size, speed in found])
    assert {found[i] for i in front} == {point for point in found if not beaten(point)}
    assert [found[i][0] for i in front] == sorted({found[i][0] for i in front})


def test_labels_of_a_crowd_do_not_cover_each_other() -> None:
    """As close as sixteen types of one model are."""
    _, (axes,) = figure(8, 5)
    axes.set_xlim(0, 300)
    axes.set_ylim(0, 140)
    crowd = [(84 + 1.5 * i, 96 + 7 * i % 23, f"Q{i}_K_M") for i in range(14)] + [(299, 139, "corner"), (1, 1, "other")]
    labels.place(axes, crowd, [[(84, 96), (105, 119)]])
    axes.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines that lead to the points
    assert [text.get_text() for text in axes.texts] == [text for _, _, text in crowd]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)


def test_the_ring_is_around_the_fewest_threads_that_are_as_fast(tmp_path: Path) -> None:
    """2 and 4 threads are equally fast, and so is 1 within the noise when its samples spread that far."""
    drawn = scaling.draw(Entries.of(THREADS), "n_threads")
    rings = [line for line in drawn.axes[1].lines if line.get_markersize() == 12]
    assert [ring.get_xdata().tolist() for ring in rings] == [[2], [2]]


def test_lines_are_not_drawn_across_machines() -> None:
    both = Entries.of(run(row("F16")), run(row("F16", replace(SPEC, n_threads=4)), host=PI))
    assert not scaling.varies(both, "n_threads")
    assert len(scaling.lines(both, "n_threads")) == 2
    assert scaling.varies(Entries.of(THREADS), "n_threads")


memories = st.builds(
    Memory,
    baseline_rss=st.just(1),
    peak_rss=st.just(1),
    file_backed=st.integers(0, 2**40),
    anonymous=st.integers(0, 2**40),
    **{name: st.none() | st.integers(0, 2**40) for name in ("weights", "repacked", "kv", "compute")},
)


@settings(max_examples=200)
@given(memories, st.booleans())
def test_kinds_of_memory_add_up_to_what_was_measured(found: Memory, mmap: bool) -> None:
    parts = memory.kinds(found, replace(SPEC, mmap=mmap))
    assert sum(parts.values()) == found.steady_rss
    assert min(parts.values()) >= 0
    assert set(parts) <= set(memory.KINDS)


def test_a_compute_buffer_that_is_not_all_resident_has_no_share_of_its_own() -> None:
    """As of a real run: the engine has asked for 98 MiB, but beside weights and KV cache only 55 MiB are resident."""
    found = Memory(
        36 * MIB, 352 * MIB, 280 * MIB, 72 * MIB, weights=257 * MIB, repacked=0, kv=17 * MIB, compute=98 * MIB
    )
    parts = memory.kinds(found, SPEC)
    assert (parts["KV cache"], parts["compute and rest"]) == (17 * MIB, 55 * MIB)
    assert "compute" not in parts
    roomy = memory.kinds(replace(found, compute=40 * MIB), SPEC)
    assert (roomy["compute"], roomy["rest"]) == (40 * MIB, 15 * MIB)


def test_a_gpu_has_a_part_of_its_own() -> None:
    on_gpu = Memory(1, 900, 100, 200, weights=500, kv=50, compute=50, vram=600)
    assert memory.kinds(on_gpu, SPEC) == {"weights, file-backed": 100, "rest": 200, "GPU": 600}


def test_runs_that_differ_in_threads_have_one_bar() -> None:
    drawn = memory.draw(Entries.of(THREADS))
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["F16", "Q4_0"]


# ------------------------------------------------------------------ on a page


def test_an_element_takes_the_colour_of_its_page_and_keeps_its_ids_apart() -> None:
    drawn: Any = size_speed.draw(COMPARISON, 5)
    text = as_element(drawn, "p7")
    root = ET.fromstring(text.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))
    assert root.get("viewBox")
    assert root.get("width") is None
    assert "#000000" not in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert all(name.startswith("p7-") for name in ids)
    used = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', text))
    assert {a or b for a, b in used} <= set(ids)
