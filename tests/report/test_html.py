"""Pages: well formed, escaped, complete without network and script; and in a real browser where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit.core.bench import NOISY, BenchRun, Failure
from slmkit.core.compare import CompareRow, Comparison
from slmkit.report.html import bench_page, compare_page, quality_page, sensitivity_page, table_page
from slmkit.report.html.markup import join, tag
from slmkit.report.html.samples import meanwhile, strip
from slmkit.report.table import Cell, Column, Table
from tests import judged

from .benches import BUSY, COMPARISON, FAILED, FOUR, HOST, JUDGED, MODEL, PI, SPEC, block, row, run
from .test_sensitivity import FOUND as SENSITIVE

VOID = {"meta"}
FAILED_READING = judged.row("Q2_K", 0.5, failure=Failure("engine.crashed", "it <i>crashed</i>"))
EVERYTHING = judged.asked(
    judged.run(judged.F16, judged.damaged(judged.Q8_0), judged.damaged(judged.Q4_0), FAILED_READING)
)
TWO = ("prose", "code")
OTHER = judged.run(
    judged.row("F16", None, domains=TWO), judged.damaged(judged.row("Q4_0", 0.03, domains=TWO)), corpus="b" * 64
)
PAGES = {
    "bench": bench_page(FOUR),
    "failed": bench_page(run(row("F16"), FAILED)),
    "only failed": bench_page(run(FAILED)),
    "threads": bench_page(run(*(row("F16", replace(SPEC, n_threads=n)) for n in (1, 2)))),
    "hosts": bench_page(run(row("F16")), run(row("F16"), host=PI)),
    "compare": compare_page(COMPARISON),
    "quality": compare_page(JUDGED),
    "quality alone": compare_page(replace(JUDGED, rows=tuple(replace(r, bench=None) for r in JUDGED.rows))),
    "judged": quality_page(EVERYTHING),
    "judged twice": quality_page(EVERYTHING, OTHER),
    "sensitive": sensitivity_page(SENSITIVE),
    "sensitive twice": sensitivity_page(SENSITIVE, replace(SENSITIVE, type="Q8_0")),
    "unmeasured": compare_page(Comparison((CompareRow("a/b:F16", "a/b", "F16", 1, None, None, None),), None, ())),
}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and keeps texts, links and what else a browser might fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_and_fetches_nothing(name: str) -> None:
    page = Reader(PAGES[name])
    assert page.tags[:3] == ["html", "head", "meta"]
    assert all(address.startswith("#") for address in page.addresses)
    assert not re.search(r"@import|url\((?!#)", PAGES[name])
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert "default-src 'none'" in PAGES[name]


@pytest.mark.parametrize("name", ["bench", "failed", "threads", "hosts", "compare", "quality"])
def test_a_page_says_what_was_measured_and_how_and_on_what(name: str) -> None:
    text = " ".join(Reader(PAGES[name]).texts)
    for shown in (MODEL, "Raw samples", "How it was measured", "Measured on", HOST["cpu"], "repetitions of warm-up"):
        assert str(shown) in text
    assert "figure" in Reader(PAGES[name]).tags


def test_a_page_of_a_bench_has_its_troubles_and_its_settings() -> None:
    text = " ".join(Reader(PAGES["bench"]).texts)
    for shown in (
        f"Q4_K_M is noisy: {BUSY}",
        "2 threads, n_batch 2048",
        "3 ok, 1 noisy of 4 rows",
        "21.3 GB/s",
        "others 1.5 %",
    ):
        assert shown in text
    assert 'no <b>memory</b> | "left" & gone' in " ".join(Reader(PAGES["failed"]).texts)


def test_several_hosts_have_each_their_part() -> None:
    texts = Reader(PAGES["hosts"]).texts
    assert texts.count("Measured on") == 2
    assert PI["cpu"] in texts


def test_the_command_that_fills_a_gap_is_on_the_page() -> None:
    assert f"slmkit bench {MODEL}:Q5_0" in Reader(PAGES["compare"]).texts


def test_a_page_with_quality_says_on_which_text_and_what_the_words_mean() -> None:
    for name, n_pictures in (("quality", 3), ("quality alone", 1)):
        page = Reader(PAGES[name])
        text = " ".join(page.texts)
        for shown in ("near lossless", "★", "40 chunks of 512 tokens of prose", "near lossless up to 0.005"):
            assert shown in text, (name, shown)
        assert page.tags.count("figure") == n_pictures
    assert "llama-bench" not in " ".join(Reader(PAGES["quality alone"]).texts)
    assert "KLD" not in " ".join(Reader(PAGES["compare"]).texts)


def test_the_page_of_quality_has_all_that_was_asked() -> None:
    page = Reader(PAGES["judged"])
    text = " ".join(page.texts)
    for shown in (
        "quality: org/m",
        "near lossless",
        "it <i>crashed</i>",
        str(EVERYTHING.host["cpu"]),
        "10 chunks of 64 tokens of prose",
    ):
        assert shown in text
    for title in (
        "Questions",
        "Answers",
        "Where the loss sits",
        "Worst contexts of m-Q8_0",
        "Worst contexts of m-Q4_0",
    ):
        assert title in page.texts
    for shown in ("100.0 % (", "≥ 64 tokens", "1 of 1", "kind of token", "digits", "Q4_0 KLD"):
        assert shown in text
    assert page.tags.count("figure") == 1
    assert len(re.findall("<h3>", PAGES["judged"])) == 2


def test_a_page_of_quality_has_no_part_without_content() -> None:
    page = Reader(quality_page(judged.run(judged.F16, judged.Q8_0)))
    parts = ("By domain", "Questions", "Answers", "Where the loss sits")
    assert not [title for title in parts if title in page.texts]
    alone = Reader(quality_page(judged.run(replace(judged.F16, is_base=False))))
    assert "figure" not in alone.tags
    assert "22.00 ± 1.43" in alone.texts


def test_the_worst_contexts_show_white_space_and_both_top_tokens() -> None:
    page = Reader(PAGES["judged"])
    assert page.texts.count("the <b>\\n") == 10
    assert page.texts.count("␣cat") == 10 * 3
    assert page.texts.count(" 25.0 %") == 10 * 2
    assert "b" not in page.tags


def test_the_page_of_sensitivity_has_its_table_and_its_bars() -> None:
    page = Reader(PAGES["sensitive"])
    text = " ".join(page.texts)
    for shown in ("sensitivity: org/m:F16 to Q4_0", "attn_v *", "token_embd", "roles add up to 0.0600"):
        assert shown in text
    assert page.tags.count("figure") == 1
    assert Reader(PAGES["sensitive twice"]).tags.count("figure") == 2


def test_without_matplotlib_there_is_a_page_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    page = Reader(bench_page(FOUR))
    assert "figure" not in page.tags
    assert any("drawing needs matplotlib" in text for text in page.texts)
    assert "Raw samples" in page.texts


def test_the_same_run_is_the_same_page() -> None:
    assert bench_page(FOUR) == PAGES["bench"]


# ------------------------------------------------------------------ escaping

evil = st.text(st.sampled_from("<>&\"'/ab=-!\\$ \n"), min_size=1, max_size=12)


@given(evil, evil)
def test_text_and_attributes_are_escaped(text: str, value: str) -> None:
    page = Reader(tag("p", text, title=value))
    assert page.tags == ["p"]
    assert "".join(page.texts) == text
    assert Reader(join(text, tag("b"))).tags == ["b"]


@settings(max_examples=20)
@given(evil)
def test_whatever_a_file_says_stays_text(text: str) -> None:
    failed = replace(FAILED, ref=f"a/{text}:F16", failure=Failure("x", text, text))
    odd = BenchRun(text, {"cpu": text, "system": text}, {text: text}, (failed,), text, (text,), source=text)
    page = Reader(bench_page(odd))
    assert page.tags.count("script") == 1
    assert page.tags.count("b") == 0


@settings(max_examples=10, deadline=None)
@given(evil, evil)
def test_whatever_a_text_says_stays_text(before: str, token: str) -> None:
    page = Reader(quality_page(judged.run(judged.F16, judged.damaged(judged.Q4_0, before=before, token=token))))
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert page.texts.count(token.replace("\n", "\\n").replace(" ", "␣")) >= 5


def test_names_in_pictures_are_escaped() -> None:
    odd = row("F16", model="a/--><script>alert(1)</script><b>")
    page = Reader(bench_page(run(odd)))
    assert page.tags.count("script") == 1
    assert "b" not in page.tags


# ------------------------------------------------------------------ parts


def test_cells_sort_by_their_values() -> None:
    table = Table((Column("a", "A"), Column("b", "B")), ((Cell("1.5 GiB", 1536), Cell("–", None)),))
    assert '<td class="r" data-v="1536">1.5 GiB</td><td class="r">–</td>' in table_page(table)


def test_a_strip_has_a_dot_for_each_sample_and_hollow_ones_for_those_that_do_not_count() -> None:
    noisy = block("F16", SPEC, state=NOISY, counted=False)
    drawn = strip(replace(row("F16"), blocks=(block("F16", SPEC), noisy)), "pp")
    assert drawn.count("<circle") == 10
    assert drawn.count('class="out"') == 5
    assert "pp512: 5 samples from" in drawn
    for value in re.findall(r'c[xy]="([^"]*)"', drawn):
        assert 0 <= float(value) <= 240


def test_one_sample_is_a_strip() -> None:
    assert strip(replace(row("F16"), blocks=(block("F16", SPEC, pp_ns=(10**9,)),)), "pp").count("<circle") == 1


def test_what_was_not_seen_is_not_said() -> None:
    assert meanwhile(block("F16", SPEC, seen={})) == ""
    assert (
        meanwhile(block("F16", SPEC, seen={"elapsed_s": 2.0, "n_cores": 2, "others_cpu_s": None, "steal_s": 0.0})) == ""
    )
    seen = {"elapsed_s": 2.0, "n_cores": 2, "steal_s": 0.2, "temperature_max_c": 71.4}
    assert meanwhile(block("F16", SPEC, seen=seen)) == "steal 5.0 %, 71 °C"


# ------------------------------------------------------------------ a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: `apt-get install chromium`")


def opened(page: Path, tmp_path: Path) -> str:
    """The document as the browser has it after loading."""
    assert CHROMIUM
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    flags += ["--window-size=1280,900", "--enable-logging=stderr", "--dump-dom"]
    command = [CHROMIUM, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr  # neither errors of the script nor refusals of the policy
    return done.stdout


def probe(page: str, script: str) -> str:
    """The page with a line of script that notes something in the title."""
    return page.replace("</body>", f"<script>{script}</script></body>")


@browser
def test_a_click_sorts_by_value(tmp_path: Path) -> None:
    click = """
    const heads = [...document.querySelectorAll("th")], rows = () =>
      [...document.querySelector("tbody").rows].map((row) => row.cells[0].textContent).join(" ");
    const sorted = (text, n) => { for (; n; n--) heads.find((h) => h.textContent === text)
      .querySelector("button").click(); return rows(); };
    document.title = [sorted("size", 1), sorted("size", 1), sorted("type", 1)].join("; ");
    """
    path = tmp_path / "a.html"
    path.write_text(probe(PAGES["bench"], click), encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", opened(path, tmp_path))
    assert title
    by_size = ["Q4_0", "Q4_K_M", "Q8_0", "F16"]
    wanted = (by_size, by_size[::-1], ["F16", "Q4_0", "Q4_K_M", "Q8_0"])
    assert title[1] == "; ".join(map(" ".join, wanted))


@browser
@pytest.mark.parametrize("name", ["bench", "threads", "hosts", "compare", "failed", "judged", "sensitive"])
def test_a_phone_need_not_scroll_sideways(tmp_path: Path, name: str) -> None:
    """In a frame of 390 pixels, since a window of a headless browser may be wider than asked for."""
    path, frame = tmp_path / "a.html", tmp_path / "frame.html"
    note = "parent.postMessage([document.documentElement.scrollWidth, innerWidth].join(), '*')"
    path.write_text(probe(PAGES[name], note), encoding="utf-8")
    frame.write_text(
        "<script>onmessage = (e) => document.title = e.data</script><iframe src=a.html width=390 height=800></iframe>"
    )
    title = re.search(r"<title>(\d+),(\d+)</title>", opened(frame, tmp_path))
    assert title
    assert int(title[1]) <= int(title[2]) == 390
