"""What a GGUF truly is: against what made it, and with every fault that is looked for."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from slmkit.cli.app import app
from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME, ValueType
from slmkit.ops.adopt import adopt
from slmkit.ops.inspect import Inspection, inspect
from slmkit.ops.inspect.rendering import lint
from slmkit.ops.split import split
from slmkit.recipes import foresight, verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests.factories import make_llama, make_llama3
from tests.ops.ggufs import Gguf, values
from tests.ops.test_diff import string, strings, u32

Q4_K, Q5_0, F32 = (GGML_TYPES_BY_NAME[name] for name in ("Q4_K", "Q5_0", "F32"))
TOKENS = ["<unk>", "<s>", "</s>", "a", "b"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def of(keys: dict[str, bytes | None] | None = None) -> Gguf:
    """A file that calls itself Q4_K_M and has two matrices, one of them of rows that do not divide."""
    found: dict[str, bytes | None] = {
        "general.architecture": string("llama"),
        "general.file_type": u32(15),
        "llama.block_count": u32(2),
        "llama.embedding_length": u32(64),
        "llama.attention.head_count": u32(4),
        "llama.attention.head_count_kv": u32(1),
        "tokenizer.ggml.model": string("llama"),
        "tokenizer.ggml.tokens": strings(TOKENS),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
        "tokenizer.chat_template": string(TEMPLATE),
        **(keys or {}),
    }
    kept = {key: value for key, value in found.items() if value is not None}
    tensors = [("blk.0.a.weight", (256, 8), Q4_K), ("blk.0.b.weight", (32, 16), Q5_0), ("blk.0.c.weight", (32,), F32)]
    return Gguf(kept, tensors)


def look(gguf: Gguf, tmp_path: Path, name: str = "x-Q4_K_M.gguf") -> Inspection:
    return inspect(gguf.write(tmp_path / name))


def test_fallbacks_are_those_that_the_engine_told_of(tmp_path: Path) -> None:
    here = Session(Registry(tmp_path / "home"), SILENT, may_pull=False, offline=True)
    ref = ModelRef("path", str(make_llama(tmp_path / "odd", hidden=96)))
    for report in verbs.quantize(ref, quant_types(["Q4_K_M", "Q6_K", "Q4_0"]), here):
        found = inspect(report.artifact.path).weights
        assert sum(found.fallbacks.values()) == report.artifact.facts["n_fallback"]
        assert (found.named, found.declared) == (report.artifact.variant, report.artifact.variant)
        assert sum(found.share_by_type.values()) == pytest.approx(1)
        assert found.bpw == pytest.approx(report.artifact.facts["bpw"])


def test_a_converted_file(float_artifact: Artifact, tmp_path: Path) -> None:
    found = inspect(float_artifact.path)
    assert [text.partition(",")[0] for text in found.problems] == [
        "tokenizer.chat_template: no token that ends generation comes after an answer: the model may never stop"
    ]  # the factory's template is like that
    assert found.weights.on_label == found.weights.share_by_type["F16"]
    a = found.attention
    assert (a.context_length, a.n_layers, a.n_head, a.n_head_kv, a.head_dim) == (2048, 2, 4, 2, 64)
    assert (a.grouping, a.kv_bytes_per_token) == ("GQA 2:1", 2 * 2 * (64 + 64) * 2)
    assert found.vocabulary
    assert (found.vocabulary.n_tokens, found.vocabulary.bos, found.vocabulary.eos) == (512, "<s>", "</s>")
    shards = inspect(split(float_artifact.path, tmp_path / "tiny-F16", max_tensors=5).first)
    assert (shards.weights, shards.attention, shards.vocabulary) == (found.weights, a, found.vocabulary)


def test_rope_factors(tmp_path: Path) -> None:
    here = Session(Registry(tmp_path / "home"), SILENT, may_pull=False, offline=True)
    made = verbs.convert(ModelRef("path", str(make_llama3(tmp_path / "three"))), here)
    a = inspect(made.path).attention
    assert a.rope["freq_base"] == 500000
    assert a.rope_factors == {"rope_freqs.weight": (1.0, 32.0)}


@pytest.mark.parametrize(
    ("name", "named", "problems"),
    [
        ("x-Q4_K_M-imatrix.gguf", "Q4_K_M", 0),
        ("x-Q4_K_M-pure-output-Q8_0.gguf", "Q4_K_M", 0),
        ("x-Q8_0-lean.gguf", "Q8_0", 1),
        ("x-UD-Q4_K_XL.gguf", None, 0),
        ("x.gguf", None, 0),
    ],
)
def test_a_label_after_the_type_is_no_type(tmp_path: Path, name: str, named: str | None, problems: int) -> None:
    found = look(of(), tmp_path, name).weights
    assert found.named == named
    assert [text.startswith("the file's name says Q8_0") for text in found.problems] == [True] * problems


def test_what_is_registered_is_named_by_its_variant(tmp_path: Path) -> None:
    """Here the name of the model has a type in it."""
    here = Session(Registry(tmp_path / "home"), SILENT, may_pull=False, offline=True)
    path = of().write(tmp_path / "old-Q8_0-x.gguf")
    artifact = adopt(path, here.registry, SILENT, model="local/mine")
    renamed = replace(artifact, variant="Q4_K_M-lean")
    here.registry.publish(renamed)
    assert foresight.inspect(ModelRef.parse(artifact.ref), here).weights.named == "Q8_0"
    found = foresight.inspect(ModelRef.parse(renamed.ref), here).weights
    assert (found.named, found.declared, found.problems) == ("Q4_K_M", "Q4_K_M", ())


def test_labels_and_types(tmp_path: Path) -> None:
    found = look(of(), tmp_path)
    assert found.weights.on_label == pytest.approx(2048 / 2592)
    assert found.weights.fallbacks == {"Q5_0": 1}
    other = look(of(), tmp_path, "x-Q8_0.gguf")
    assert "name says Q8_0, its metadata Q4_K_M" in other.problems[0]
    wrong = look(of({"general.file_type": u32(7)}), tmp_path, "x.gguf")
    assert "called Q8_0, but only 0.0% of its weights are Q8_0" in wrong.problems[0]
    nothing = look(of({"general.file_type": None}), tmp_path, "x.gguf").weights
    assert (nothing.claimed, nothing.on_label) == (None, None)


def test_an_imatrix_is_seen(tmp_path: Path) -> None:
    found = look(of({"quantize.imatrix.file": string("im.gguf"), "quantize.imatrix.chunks_count": u32(7)}), tmp_path)
    assert found.weights.imatrix == {"file": "im.gguf", "chunks_count": 7}


@pytest.mark.parametrize(
    ("keys", "kv_bytes"),
    [
        ({}, 2 * 1 * 32 * 2),
        ({"llama.attention.key_length": u32(32), "llama.attention.value_length": u32(8)}, 2 * 40 * 2),
        ({"llama.attention.shared_kv_layers": u32(1)}, 32 * 2),
        (
            {"llama.attention.head_count_kv": struct.pack("<IIQII", ValueType.ARRAY, ValueType.UINT32, 2, 0, 3)},
            3 * 32 * 2,
        ),
        ({"llama.attention.kv_lora_rank": u32(16)}, None),
        ({"llama.block_count": None}, None),
        ({"llama.block_count": string("two")}, None),
    ],
)
def test_bytes_of_a_token_in_the_cache(keys: dict[str, bytes | None], kv_bytes: int | None, tmp_path: Path) -> None:
    assert look(of(keys), tmp_path).attention.kv_bytes_per_token == kv_bytes


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"tokenizer.ggml.eos_token_id": u32(9)}, "eos is token 9, and there are 5"),
        ({"tokenizer.ggml.eos_token_id": None}, "no EOS"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer"),
        ({"llama.vocab_size": u32(7)}, "vocab_size is 7"),
        ({"tokenizer.ggml.model": string("gpt2")}, "no pre-tokenizer"),
        ({"tokenizer.ggml.tokens": strings([*TOKENS, "a"])}, "tokens that stand in it twice: 1"),
        (
            {"tokenizer.ggml.token_type": struct.pack("<IIQii", ValueType.ARRAY, ValueType.INT32, 2, 1, 1)},
            "2 values in token_type for 5",
        ),
    ],
)
def test_tokenizers_that_contradict_themselves(keys: dict[str, bytes | None], problem: str, tmp_path: Path) -> None:
    assert any(problem in text for text in look(of(keys), tmp_path).problems)


def test_an_embedding_of_another_size(tmp_path: Path) -> None:
    gguf = of()
    gguf = replace(gguf, tensors=[*gguf.tensors, ("token_embd.weight", (4, 6), F32)])
    assert "the embedding has 6 rows for 5 tokens" in look(gguf, tmp_path).problems


# ------------------------------------------------------------------ chat templates


def check(template: str, *, add_bos: bool = False, bos: str = "<s>") -> dict[str, list[str]]:
    request = {"template": template, "bos": bos, "eos": "</s>", "stops": ["</s>", "<|im_end|>"], "add_bos": add_bos}
    return {"takes": [], "remarks": [], **lint(request)}


def test_a_sound_template(tmp_path: Path) -> None:
    assert check(TEMPLATE) == {"takes": ["system"], "remarks": [], "problems": []}
    (template,) = look(of(), tmp_path).templates  # through the child process
    assert (template.takes, template.problems) == (("system",), ())
    assert "begins with <s>" in template.remarks[0]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% if %}", "no valid Jinja, line 1"),
        ("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "no generation prompt"),
        (TEMPLATE.replace("{{ eos_token }}", ""), "no token that ends generation"),
        (TEMPLATE.replace("in messages", "in messages[1:]"), "leaves out the first question"),
        ("{{ raise_exception('never') }}", "fails with a plain conversation: never"),
        ("{{ messages + 1 }}", "fails with a plain conversation"),
        (TEMPLATE + "{{ now() if false }}", "function `now` is unknown to llama.cpp"),
        (TEMPLATE + "{{ 'a' | wordwrap }}", "filter `wordwrap` is unknown"),
        (TEMPLATE + "{% if tools is filter %}{% endif %}{% if 'a' is upper %}{% endif %}", ""),
        (TEMPLATE + "{% block x %}{% endblock %}", "statement `block` is unknown"),
        (TEMPLATE + "{% include 'x' ignore missing %}", "statement `include` is unknown"),
        ("{{ ().__class__.__bases__ }}" + TEMPLATE, "fails with a plain conversation"),
    ],
)
def test_templates_that_have_a_fault(template: str, problem: str) -> None:
    found = check(template)["problems"]
    assert any(problem in text for text in found) if problem else found == []


def test_what_templates_use_and_llama_cpp_knows() -> None:
    fine = (
        "{% macro show(x) %}{{ x | trim | upper }}{% endmacro %}{% set ns = namespace(n=0) %}{{ strftime_now('%Y') }}"
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ show('a') }}{{ m | tojson(indent=2) }}"
        "{% generation %}{{ m.content.split('x')[0] }}{% endgeneration %}{% endfor %}"
    )
    assert check(fine + TEMPLATE)["problems"] == []


def test_system_messages_and_tools() -> None:
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}" + TEMPLATE
    assert check(refuses)["remarks"] == ["system: refused (No system!)"]
    silent = TEMPLATE.replace("[{{ m", "{% if m.role == 'system' %}{% continue %}{% endif %}[{{ m")
    assert "left out without a word" in check(silent)["remarks"][0]
    tools = (
        "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{% endfor %}"
    )
    assert check(tools + TEMPLATE)["takes"] == ["system", "tools", "tool calls"]


def test_bos_twice() -> None:
    assert "llama-server takes one away" in check(TEMPLATE, add_bos=True)["remarks"][0]
    assert check(TEMPLATE, add_bos=True, bos="")["remarks"] == []


def test_a_template_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    bomb = "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
    (template,) = look(of({"tokenizer.chat_template": string(bomb + TEMPLATE)}), tmp_path).templates
    assert any("of memory" in problem for problem in template.problems)


def test_a_template_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmkit.ops.inspect.template.TIMEOUT_S", 1.0)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    (template,) = look(of({"tokenizer.chat_template": string(endless)}), tmp_path).templates
    assert template.problems == ("it does not come to an end within 1 s",)


def test_several_templates(tmp_path: Path) -> None:
    found = look(of({"tokenizer.chat_template.tool_use": string("{% if %}")}), tmp_path)
    assert [template.key for template in found.templates] == [
        "tokenizer.chat_template",
        "tokenizer.chat_template.tool_use",
    ]
    (problem,) = found.problems
    assert problem.startswith("tokenizer.chat_template.tool_use: no valid Jinja, line 1: ")


# ------------------------------------------------------------------ anything


HYPER = ["attention.key_length", "attention.value_length", "context_length", "rope.freq_base", "vocab_size"]
KEYS = sorted({*of().keys, *(f"llama.{key}" for key in HYPER), "tokenizer.ggml.merges", "tokenizer.ggml.pre"})


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([key for key in KEYS if "template" not in key]), values(), max_size=4))
def test_values_of_any_type_are_shown_or_refused(
    tmp_path_factory: pytest.TempPathFactory, odd: dict[str, bytes | None]
) -> None:
    path = tmp_path_factory.mktemp("odd") / "x.gguf"
    of({"tokenizer.chat_template": None, **odd}).write(path)
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["inspect", str(path), *options], prog_name="slmkit")
        assert done.exit_code in (0, 1), done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)
    done = CliRunner().invoke(app, ["diff", str(path), str(path), "--exit-code"], prog_name="slmkit")
    assert done.exit_code in (0, 1), done.output
