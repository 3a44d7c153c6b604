from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slmkit.core.refs import ModelRef
from slmkit.errors import RefError

name = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,20}[A-Za-z0-9_])?", fullmatch=True).filter(
    lambda s: "--" not in s and ".." not in s and not s.lower().endswith(".gguf")
)
revision = st.none() | st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_/-]{0,20}[A-Za-z0-9_])?", fullmatch=True)
variant = st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
hub = st.builds(lambda o, n, r, v: ModelRef("hub", f"{o}/{n}", r, v), name, name, revision, variant)
alias = st.builds(lambda n, r, v: ModelRef("alias", n, r, v), name, revision, variant)
path = st.builds(
    lambda s: ModelRef("path", "./" + s), st.text(st.characters(codec="utf-8", exclude_characters="\0")).map(str.strip)
)


@given(hub | alias | path)
@example(ModelRef("hub", "a/b", "refs/pr/1", "Q4_0"))
@example(ModelRef("path", "C:\\models\\x"))
def test_a_reference_survives_being_written_and_read(ref: ModelRef) -> None:
    assert ModelRef.parse(str(ref)) == ref


@given(st.text())
def test_any_text_is_a_reference_or_a_clear_error(text: str) -> None:
    try:
        ref = ModelRef.parse(text)
    except RefError as error:
        assert error.hint is not None
        for shown in re.findall(r"`([^`]+)`", error.hint):
            ModelRef.parse(shown.replace("org/name@revision", "org/name@main"))
    else:
        assert str(ref) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", ModelRef("hub", "HuggingFaceTB/SmolLM2-135M-Instruct")),
        ("org/name@v1.0", ModelRef("hub", "org/name", "v1.0")),
        ("org/name:Q4_0", ModelRef("hub", "org/name", None, "Q4_0")),
        ("org/name@refs/pr/3:UD-Q4_K_XL", ModelRef("hub", "org/name", "refs/pr/3", "UD-Q4_K_XL")),
        ("smollm2-135m", ModelRef("alias", "smollm2-135m")),
        ("qwen3-0.6b:q8_0", ModelRef("alias", "qwen3-0.6b", None, "q8_0")),
        ("./dir", ModelRef("path", "./dir")),
        ("../a/b", ModelRef("path", "../a/b")),
        ("/abs/m.gguf", ModelRef("path", "/abs/m.gguf")),
        ("~/m", ModelRef("path", "~/m")),
        ("model.GGUF", ModelRef("path", "model.GGUF")),
        (".", ModelRef("path", ".")),
    ],
)
def test_the_forms_of_the_grammar(text: str, expected: ModelRef) -> None:
    assert ModelRef.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", ""),
        (" a/b", ""),
        ("a/b ", ""),
        ("a/b/c", "a path starts with"),
        ("https://huggingface.co/org/name", "a web address"),
        ("a/b:Q4_0:Q5_0", "one @revision"),
        ("a--b/c", "neither --"),
        ("a/b@", ""),
        ("a/b:", ""),
        ("-a/b", ""),
        ("a/b@../x", "neither"),
        ("a b", ""),
        ("x\0y", ""),
        ("alias@", ""),
    ],
)
def test_a_wrong_reference_says_why_and_shows_a_right_one(text: str, why: str) -> None:
    with pytest.raises(RefError) as caught:
        ModelRef.parse(text)
    assert why in caught.value.message
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in (caught.value.hint or "")


def test_the_model_is_the_reference_without_its_variant() -> None:
    ref = ModelRef.parse("org/name@dev:Q4_0")
    assert ref.model == "org/name@dev"
    assert ref.with_variant("Q8_0") == ModelRef.parse("org/name@dev:Q8_0")
    assert ref.with_variant(None) == ModelRef.parse("org/name@dev")


def test_a_path_has_no_variants() -> None:
    with pytest.raises(RefError, match="no variants"):
        ModelRef.parse("./x.gguf").with_variant("Q4_0")
