"""The texts that quality is measured on: what they are called, that they are what they were, and what is in them."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import tomllib
from collections import Counter
from importlib import resources

import pytest
import yaml

from slmkit.errors import UsageError
from slmkit.ops import corpora
from slmkit.ops.corpora import DOMAINS, SHA256, domain_text

FOLDER = resources.files("slmkit") / "data" / "corpora"
QUALITY = FOLDER / "quality"
LEAST_BYTES, MOST_BYTES = 20_000, 32_000
LONG_LINE = 40
"""Characters: what is shorter, such as `import re`, may stand in any two texts."""
SEQUENCE = 8
"""Words in a row."""
MOST_REPEATED = 0.02
MOST_SHARED = 0.002

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TAGGED = re.compile(r"<tool_(call|response)>\n(.*?)\n</tool_\1>", re.DOTALL)
WORD = re.compile(r"[\u4e00-\u9fff]|\w+")
"""Chinese is written without spaces: a character is a word."""


def blocks(domain: str, *languages: str) -> list[str]:
    return [body for language, body in FENCED.findall(domain_text(domain)) if language in languages]


def sequences(text: str) -> Counter[tuple[str, ...]]:
    words = WORD.findall(text.lower())
    return Counter(tuple(words[at : at + SEQUENCE]) for at in range(len(words) - SEQUENCE + 1))


def long_lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if len(line.strip()) > LONG_LINE}


def test_another_name_is_an_error_that_lists_the_right_ones() -> None:
    with pytest.raises(UsageError, match="no domain 'french'") as caught:
        domain_text("french")
    assert all(domain in (caught.value.hint or "") for domain in DOMAINS)
    with pytest.raises(UsageError):
        domain_text("mixed")
    with pytest.raises(UsageError):
        domain_text("../mixed")


def test_importance_matrices_have_texts_of_their_own() -> None:
    assert corpora.names() == ["mixed"]


def test_the_digests_are_those_of_all_files_in_the_order_of_the_domains() -> None:
    assert tuple(SHA256) == DOMAINS
    assert {entry.name for entry in QUALITY.iterdir()} == {f"{domain}.txt" for domain in DOMAINS} | {"SHA256SUMS"}


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_text_is_what_was_pinned_and_what_its_page_says(domain: str) -> None:
    data = (QUALITY / f"{domain}.txt").read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert digest == SHA256[domain] == hashlib.sha256(domain_text(domain).encode()).hexdigest()
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"| `quality/{domain}.txt` | {len(data)} | `{digest}` |" in page


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_text_is_plain_and_neither_short_nor_long(domain: str) -> None:
    text = domain_text(domain)
    assert LEAST_BYTES <= len(text.encode()) <= MOST_BYTES
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert {c for c in text if ord(c) < ord(" ")} <= {"\n", "\t"}
    assert not {"\ufeff", "\ufffd", "\u00a0"} & set(text)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_text_hardly_repeats_itself(domain: str) -> None:
    seen = sequences(domain_text(domain))
    repeated = sum(count - 1 for count in seen.values())
    assert repeated / seen.total() < MOST_REPEATED


def test_the_measure_of_repetition_sees_a_template() -> None:
    names = ("Anna", "Boris", "Chen", "Divya", "Emeka", "Fatima")
    text = "\n".join(f"{name} went to the market on Monday and bought three apples for two euros" for name in names)
    seen = sequences(text)
    assert sum(count - 1 for count in seen.values()) / seen.total() > 10 * MOST_REPEATED


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_text_was_in_the_calibration(domain: str) -> None:
    calibration = corpora.corpus().text
    assert not long_lines(domain_text(domain)) & long_lines(calibration)
    known, seen = sequences(calibration), sequences(domain_text(domain))
    assert sum(count for words, count in seen.items() if words in known) / seen.total() < MOST_SHARED


def test_no_two_domains_share_a_line() -> None:
    lines = Counter(line for domain in DOMAINS for line in long_lines(domain_text(domain)))
    assert max(lines.values()) == 1


def test_the_code_is_in_many_languages_and_its_python_compiles() -> None:
    assert len({language for language, _ in FENCED.findall(domain_text("code"))}) >= 10
    modules = blocks("code", "python")
    assert len(modules) >= 4
    for module in modules:
        ast.parse(module)


def test_the_python_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    for module in blocks("code", "python"):
        names: dict[str, object] = {"__name__": "sample"}
        exec(compile(module, "<sample>", "exec"), names)
        for name, value in names.items():
            if name.startswith("test_") and callable(value):
                value()
    assert capsys.readouterr().out == "4.0\n"


def test_the_documents_of_tools_parse() -> None:
    whole, lines = blocks("tools", "json"), blocks("tools", "jsonl")
    assert len(whole) >= 15
    assert len(lines) >= 3
    for text in (*whole, *(line for block in lines for line in block.splitlines())):
        json.loads(text)
    for text in blocks("tools", "toml"):
        tomllib.loads(text)
    for text in blocks("tools", "yaml"):
        yaml.safe_load(text)


def test_the_calls_of_tools_are_a_name_and_arguments() -> None:
    tagged = TAGGED.findall(domain_text("tools"))
    calls = [json.loads(body) for kind, body in tagged if kind == "call"]
    answers = [json.loads(body) for kind, body in tagged if kind == "response"]
    assert len(calls) >= 8
    assert len(answers) >= 6
    assert all(list(call) == ["name", "arguments"] and isinstance(call["arguments"], dict) for call in calls)


@pytest.mark.parametrize(("domain", "first", "last"), [("chinese", "\u4e00", "\u9fff"), ("arabic", "\u0600", "\u06ff")])
def test_a_language_is_written_in_its_script(domain: str, first: str, last: str) -> None:
    letters = [c for c in domain_text(domain) if c.isalpha()]
    assert sum(first <= c <= last for c in letters) / len(letters) > 0.99
