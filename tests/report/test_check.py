"""A check as JUnit XML and as Markdown."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from slmkit.core.check import INCONCLUSIVE, PASS, REGRESSION, UNMEASURED, WORST_FIRST, Check, Judgement
from slmkit.report.check import check_markdown, check_table, junit

ONE = Judgement("org/m:Q4_0", "tg128", "at most 5 % slower", PASS, 0.05, 50.0, 49.5, -0.01, 0.03, "no measurable | it")
ALL = Check(
    (
        ONE,
        replace(ONE, test="peak RSS", criterion="at most 3 % more", verdict=REGRESSION, baseline=1e8, now=2e8),
        replace(ONE, test="TTFT", criterion="at most 500.0 ms", verdict=INCONCLUSIVE, baseline=None, now=5e8),
        replace(ONE, test="size", verdict=UNMEASURED, baseline=1024.0, now=None),
    ),
    ("the machines are unlike: <cpu>",),
)


def test_markdown() -> None:
    lines = check_markdown(ALL).splitlines()
    assert lines[0] == "### ❌ slmkit check: regression"
    assert lines[2] == "1 regression, 1 could not measure, 1 inconclusive, 1 pass"
    assert "| org/m:Q4_0 | tg128    |    50.00 |     49.50 | no measurable \\| it |" in lines[6]
    assert "| 95.4 MiB | 190.7 MiB |" in lines[7]
    assert "|        – |  500.0 ms |" in lines[8]
    assert lines[-2] == "the machines are unlike: <cpu>"


def test_the_table_has_values_for_machines() -> None:
    assert check_table(ALL).records()[1]["now"] == 2e8
    assert [record["verdict"] for record in check_table(ALL).records()] == [j.verdict for j in ALL.judgements]


def test_quality_is_written_as_people_read_it() -> None:
    quality = Check(
        (
            replace(ONE, test="KLD", criterion="at most 0.05", baseline=None, now=0.01234),
            replace(ONE, test="PPL ratio", criterion="at most 1.02", baseline=None, now=1.00456),
            replace(ONE, test="same top", criterion="at least 90.0 %", baseline=None, now=0.931),
        )
    )
    assert [row[3].text for row in check_table(quality).rows] == ["0.0123", "1.0046", "93.1 %"]
    assert "same top: at least 90.0 %" in junit(quality)


def test_junit_has_a_case_for_each_judgement() -> None:
    suites = ET.fromstring(junit(ALL))
    (suite,) = suites
    assert suites.tag == "testsuites"
    assert {k: suite.attrib[k] for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "1", "errors": "2", "skipped": "0",
    }  # fmt: skip
    cases = suite.findall("testcase")
    assert [case.attrib["classname"] for case in cases] == ["org/m:Q4_0"] * 4
    assert cases[0].attrib["name"] == "tg128: at most 5 % slower"
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"], ["error"], ["error"]]
    assert suite.findtext("system-out") == "the machines are unlike: <cpu>"
    allowed = ET.fromstring(junit(ALL, allow_inconclusive=True))
    assert allowed[0].attrib["skipped"] == "1"
    assert allowed[0].attrib["errors"] == "1"


@given(text=st.text(), verdict=st.sampled_from(WORST_FIRST))
def test_any_text_makes_valid_xml(text: str, verdict: str) -> None:
    wild = Check((replace(ONE, ref=text, test=text, text=text, verdict=verdict),), (text,))
    (case,) = ET.fromstring(junit(wild).encode("utf-8", "strict")).iter("testcase")
    assert len(case) == (verdict != PASS)


def test_nothing_judged_is_no_regression() -> None:
    assert Check(()).verdict == PASS
    assert ET.fromstring(junit(Check(()))).attrib["tests"] == "0"
