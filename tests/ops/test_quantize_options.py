"""What the options make of the registry: names, refusals, marks, shards; and that no file is called what it is not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError, VerdictError
from slmkit.formats.gguf.header import read_header, shards
from slmkit.ops.adopt import adopt
from slmkit.ops.quantize import QuantizeReport
from slmkit.ops.quantize import quantize as quantize_all
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from slmkit.registry.verify import verify
from tests import factories
from tests.conftest import Run


def quantize(source: Artifact, kind: str, registry: Registry, **options: Any) -> QuantizeReport:
    (report,) = quantize_all(source, [QUANT_TYPES[kind]], registry, SILENT, **options)
    return report


@pytest.fixture
def odd(session: Session, tmp_path: Path) -> Artifact:
    """A model whose rows of 288 do not divide into blocks of 256, as F16."""
    return verbs.convert(ModelRef("path", str(factories.make_llama(tmp_path / "odd", hidden=288))), session)


@pytest.fixture
def tied(session: Session, tmp_path: Path) -> Artifact:
    """A model whose embedding is its output, as F16."""
    return verbs.convert(ModelRef("path", str(factories.make_llama3(tmp_path / "tied"))), session)


@pytest.fixture
def split(session: Session, checkpoint: Path) -> Artifact:
    """The tiny model as F16 in several shards."""
    return verbs.convert(ModelRef("path", str(checkpoint)), session, spec=ConvertSpec(split_max_bytes=1_000_000))


def test_every_spec_has_a_file_of_its_own(float_artifact: Artifact, registry: Registry) -> None:
    plain = quantize(float_artifact, "Q4_0", registry).artifact
    spec = QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"),))
    ruled = quantize(float_artifact, "Q4_0", registry, spec=spec).artifact
    lean = quantize(float_artifact, "Q4_0", registry, spec=spec, name="lean").artifact
    assert (plain.variant, lean.variant) == ("Q4_0", "Q4_0-lean")
    assert re.fullmatch("Q4_0-rules-[0-9a-f]{6}", ruled.variant or "")
    assert ruled.digest == lean.digest != plain.digest
    assert ruled.provenance.parameters["rules"] == [["ffn_down", "Q6_K"]]
    assert registry.find(float_artifact.model, "Q4_0") == plain
    assert not quantize(float_artifact, "Q4_0", registry, spec=spec).fresh
    assert not quantize(float_artifact, "Q4_0", registry, spec=spec, name="lean").fresh


def test_a_name_that_another_spec_has_is_not_taken_and_not_replaced(
    float_artifact: Artifact, registry: Registry
) -> None:
    first = quantize(float_artifact, "Q4_0", registry, spec=QuantizeSpec(pure=True), name="x").artifact
    other = QuantizeSpec(leave_output=True)
    with pytest.raises(UsageError, match=r"Q4_0-x is there already, made in another way \(pure\)"):
        quantize(float_artifact, "Q4_0", registry, spec=other, name="x")
    assert registry.find(float_artifact.model, "Q4_0-x") == first
    assert quantize(float_artifact, "Q4_0", registry, spec=other, name="x", force=True).fresh


@pytest.mark.parametrize("kind", ["Q8_0", "TQ2_0"])
def test_what_convert_made_is_not_replaced_by_quantize_nor_the_other_way_round(
    float_artifact: Artifact, checkpoint: Path, session: Session, kind: str
) -> None:
    ref, registry = ModelRef("path", str(checkpoint)), session.registry
    converted = verbs.convert(ref, session, outtype=kind.lower())
    with pytest.raises(UsageError, match=r"is there already, made in another way \(by convert\)") as caught:
        quantize(float_artifact, kind, registry)
    assert f"`slmkit rm {converted.ref}`" in (caught.value.hint or "")
    assert registry.find(float_artifact.model, kind) == converted
    assert quantize(float_artifact, kind, registry, name="x").artifact.variant == f"{kind}-x"
    made = quantize(float_artifact, kind, registry, force=True).artifact
    with pytest.raises(UsageError, match=r"is there already, made in another way \(by quantize\)"):
        verbs.convert(ref, session, outtype=kind.lower())
    assert registry.find(float_artifact.model, kind) == made
    assert verbs.convert(ref, session, outtype=kind.lower(), force=True).digest == converted.digest
    assert quantize(float_artifact, kind, registry, may_replace=True).fresh, "as a recipe says"


def test_what_convert_made_and_is_cut_short_is_in_nobodys_way(
    float_artifact: Artifact, checkpoint: Path, session: Session
) -> None:
    converted = verbs.convert(ModelRef("path", str(checkpoint)), session, outtype="q8_0")
    converted.path.write_bytes(converted.path.read_bytes()[:-1])
    assert quantize(float_artifact, "Q8_0", session.registry).fresh


@pytest.mark.parametrize(
    ("name", "spec", "what"),
    [
        ("Q4_0", QuantizeSpec(rules=(Rule("ffn_dwn", "Q6_K"),)), "no tensor of .* has 'ffn_dwn'"),
        ("Q4_0", QuantizeSpec(prune_layers=(1, 2)), "has no layer 2"),
        ("Q4_0", QuantizeSpec(prune_layers=(0, 1)), "leave no layer"),
        ("BF16", QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"),)), "quantized types only"),
        ("F16", QuantizeSpec(), "has the type F16 already"),
        ("F16", QuantizeSpec(allow_requantize=True, keep_split=True), "has the type F16 already"),
    ],
)
def test_what_would_fail_or_be_in_vain_is_refused(
    float_artifact: Artifact, registry: Registry, name: str, spec: QuantizeSpec, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        quantize(float_artifact, name, registry, spec=spec, force=True)
    assert verify(float_artifact, SILENT) == []


@pytest.mark.parametrize(
    ("spec", "option"),
    [
        (QuantizeSpec(leave_output=True), "--leave-output"),
        (QuantizeSpec(pure=True, output_type="Q8_0"), "--output-type"),
        (QuantizeSpec(embedding_type="Q5_0", output_type="Q8_0"), "--output-type"),
    ],
)
def test_what_is_in_vain_where_the_embedding_is_the_output_is_refused(
    tied: Artifact, registry: Registry, spec: QuantizeSpec, option: str
) -> None:
    with pytest.raises(UsageError, match=rf"`{option}` is in vain: .* has no output.weight") as caught:
        quantize(tied, "Q4_0", registry, spec=spec)
    assert "--embedding-type" in (caught.value.hint or "")
    assert [a.variant for a in registry.artifacts()] == ["F16"]


@pytest.mark.parametrize(
    "spec",
    [
        QuantizeSpec(output_type="Q8_0"),
        QuantizeSpec(pure=True, embedding_type="Q8_0"),
        QuantizeSpec(pure=True, embedding_type="Q8_0", output_type="Q8_0"),
    ],
    ids=lambda spec: spec.label,
)
def test_the_embedding_that_is_the_output_gets_the_type_that_is_asked_for(
    tied: Artifact, registry: Registry, spec: QuantizeSpec
) -> None:
    made = quantize(tied, "Q4_0", registry, spec=spec).artifact
    types = {tensor.name: tensor.type.name for tensor in read_header(made.path).tensors}
    assert (types["token_embd.weight"], types["blk.0.ffn_down.weight"]) == ("Q8_0", "Q4_0")


def test_what_comes_of_a_changed_float_file_keeps_its_name(float_artifact: Artifact, session: Session) -> None:
    """A pruned F16 is a source too, but its Q4_0 is not the model's Q4_0."""
    spec = QuantizeSpec(prune_layers=(0,), overrides=(Override("general.name", "small"),))
    ref = ModelRef.parse(float_artifact.model)
    (pruned,) = verbs.quantize(ref, quant_types(["F16"]), session, spec=spec, name="small")
    assert pruned.artifact.variant == "F16-small"
    (made,) = verbs.quantize(ref.with_variant("F16-small"), quant_types(["Q4_0"]), session)
    assert made.artifact.variant == "Q4_0-small"
    header = read_header(made.artifact.path)
    assert (header.hyper("block_count"), header.metadata["general.name"]) == (1, "small")


def test_requantizing_is_refused_unless_it_is_allowed_and_then_marked(tiny: str, registry: Registry) -> None:
    source = registry.find(tiny, "Q4_0")
    assert source is not None
    with pytest.raises(UsageError, match="quantized already") as caught:
        quantize(source, "Q2_K", registry)
    assert "--allow-requantize" in (caught.value.hint or "")
    report = quantize(source, "Q2_K", registry, spec=QuantizeSpec(allow_requantize=True))
    assert report.artifact.variant == "Q2_K-requantized"
    assert report.artifact.facts["requantized_from"] == "Q4_0"
    assert "Q2_K-requantized: made from Q4_0, whose errors add to its own" in report.notes


def test_allowing_to_requantize_changes_nothing_of_a_float_source(float_artifact: Artifact, registry: Registry) -> None:
    made = quantize(float_artifact, "Q4_0", registry, spec=QuantizeSpec(allow_requantize=True)).artifact
    assert made.variant == "Q4_0"
    assert "requantized_from" not in made.facts
    assert not quantize(float_artifact, "Q4_0", registry).fresh


def test_a_quantized_file_with_a_float_name_is_found_out(tiny: str, registry: Registry, session: Session) -> None:
    source = registry.find(tiny, "Q4_0")
    assert source is not None
    disguised = source.root.parent / "disguised-F16.gguf"
    disguised.write_bytes(source.path.read_bytes())
    with pytest.raises(UsageError, match="quantized already"):
        list(verbs.quantize(ModelRef("path", str(disguised)), quant_types(["Q2_K"]), session))


def test_the_shares_are_those_of_the_file(odd: Artifact, registry: Registry) -> None:
    report = quantize(odd, "Q4_K_M", registry)
    made = report.artifact
    counts = read_header(made.path).params_by_type
    total = sum(counts.values())
    assert made.facts["on_label_share"] == pytest.approx(counts.get("Q4_K", 0) / total)
    assert made.facts["fallback_share"] == pytest.approx((counts["Q5_0"] + counts["Q8_0"]) / total)
    (note,) = report.notes
    percent = f"{counts['Q5_0'] / total * 100:.1f}"
    assert f"{percent} % fell back from Q4_K to Q5_0" in note
    assert note.endswith("because rows of 288 and 576 do not divide into blocks of 256")


def test_a_file_that_is_what_it_is_called_has_no_note(float_artifact: Artifact, registry: Registry) -> None:
    assert quantize(float_artifact, "Q8_0", registry).notes == ()


def test_a_mixture_that_has_next_to_nothing_of_its_type_is_said(float_artifact: Artifact, registry: Registry) -> None:
    (note,) = quantize(float_artifact, "MXFP4_MOE", registry).notes
    assert note.startswith("MXFP4_MOE: 0.0 % of the parameters are MXFP4; ")
    assert "are Q8_0, by llama.cpp's mixture" in note


def test_strict_refuses_before_computing_and_names_a_type_that_keeps_the_promise(
    odd: Artifact, registry: Registry
) -> None:
    with pytest.raises(VerdictError, match=r"Q4_K_M of .* would fall back") as caught:
        quantize(odd, "Q4_K_M", registry, strict_share=0.3)
    assert [a.variant for a in registry.artifacts()] == ["F16"]
    named = re.match(r"(\w+) keeps the promise", caught.value.hint or "")
    assert named
    made = quantize(odd, named[1], registry, strict_share=0.3).artifact
    assert made.facts["fallback_share"] <= 0.3
    assert made.facts["on_label_share"] > 0.5


@pytest.mark.parametrize(
    ("kind", "spec", "share"),
    [
        ("IQ3_S", QuantizeSpec(), 0.25),
        ("Q2_K", QuantizeSpec(pure=True), 0.01),
        ("Q3_K_S", QuantizeSpec(pure=True, rules=(Rule("attn_[kv]", "Q8_0"),), output_type="Q8_0"), 0.01),
    ],
)
def test_strict_names_a_type_that_leaves_the_model_whole_and_keeps_the_options(
    session: Session, tmp_path: Path, kind: str, spec: QuantizeSpec, share: float
) -> None:
    source = verbs.convert(ModelRef("path", str(factories.make_llama(tmp_path / "odd", hidden=192))), session)
    with pytest.raises(VerdictError) as caught:
        quantize(source, kind, session.registry, spec=spec, strict_share=share)
    told = re.match(r"(\w+) keeps the promise, with ([\d.]+) instead of ([\d.]+) .*`(.*)`$", caught.value.hint or "")
    assert told
    assert QUANT_TYPES[told[1]].family in ("legacy", "k", "iq")
    assert float(told[2]) >= float(told[3])
    assert told[4] == f"slmkit quantize {source.ref} -t {told[1]} {spec.options}".rstrip()
    made = quantize(source, told[1], session.registry, spec=spec, strict_share=share).artifact
    assert made.facts["fallback_share"] <= share


def test_strict_refuses_what_is_there_already(odd: Artifact, registry: Registry) -> None:
    quantize(odd, "Q4_K_M", registry)
    with pytest.raises(VerdictError, match="fall back"):
        quantize(odd, "Q4_K_M", registry, strict_share=0.3)


def test_strict_lets_pass_what_keeps_the_promise(float_artifact: Artifact, registry: Registry) -> None:
    report = quantize(float_artifact, "Q4_K_M", registry, strict_share=0.0)
    assert report.artifact.facts["fallback_share"] == 0


def test_strict_stops_only_those_that_break_it(odd: Artifact, session: Session) -> None:
    refused: dict[str, int] = {}
    reports = verbs.quantize(
        ModelRef.parse(odd.model),
        quant_types(["Q4_K_M,Q8_0"]),
        session,
        strict_share=0.0,
        on_failure=lambda quant, error: refused.update({quant.name: error.exit_code}),
    )
    assert [report.artifact.variant for report in reports] == ["Q8_0"]
    assert refused == {"Q4_K_M": 3}


def test_a_split_source_becomes_one_file_or_as_many_shards(split: Artifact, registry: Registry) -> None:
    assert len(split.files) > 1
    whole = quantize(split, "Q4_0", registry).artifact
    assert [file.name for file in whole.files] == ["tiny-llama-Q4_0.gguf"]
    with pytest.raises(UsageError, match="another way"):
        quantize(split, "Q4_0", registry, spec=QuantizeSpec(keep_split=True))
    kept = quantize(split, "Q4_0", registry, spec=QuantizeSpec(keep_split=True), force=True).artifact
    assert len(kept.files) == len(split.files)
    assert verify(kept, SILENT) == []
    assert not whole.path.exists()
    types = [{t.name: t.type for p in shards(a.path) for t in read_header(p).tensors} for a in (split, kept)]
    assert types[0].keys() == types[1].keys()
    assert not quantize(split, "Q4_0", registry, spec=QuantizeSpec(keep_split=True)).fresh


def test_a_file_that_is_not_split_has_nothing_to_keep(float_artifact: Artifact, registry: Registry) -> None:
    made = quantize(float_artifact, "Q4_0", registry, spec=QuantizeSpec(keep_split=True)).artifact
    assert [file.name for file in made.files] == ["tiny-llama-Q4_0.gguf"]
    assert not quantize(float_artifact, "Q4_0", registry).fresh


def adopted(session: Session, folder: Path, checkpoint: Path, outtype: str) -> Artifact:
    """A model of which only a float GGUF is here, as `local/alone`."""
    target = folder / f"alone-{outtype.upper()}.gguf"
    verbs.convert(
        ModelRef("path", str(checkpoint)), Session(Registry(folder / "x"), SILENT), outtype=outtype, target=target
    )
    return adopt(target, session.registry, SILENT, model="local/alone")


def test_without_a_checkpoint_the_float_file_becomes_the_other_float_types(
    session: Session, checkpoint: Path, tmp_path: Path
) -> None:
    f16 = adopted(session, tmp_path, checkpoint, "f16")
    ref = ModelRef.parse(f16.model)
    reports = list(verbs.quantize(ref, quant_types(["BF16,F32,F16,Q4_0"]), session))
    assert [r.artifact.variant for r in reports] == ["BF16", "F32", "F16", "Q4_0"]
    assert [r.fresh for r in reports] == [True, True, False, True]
    assert all(r.artifact.provenance.parents == (f16.digest,) for r in reports if r.fresh)
    assert reports[0].notes == ("BF16: made from F16, and no more exact than that",)
    assert reports[1].notes == ("F32: made from F16, and no more exact than that",)
    # what was made of it is no better source than itself
    again = list(verbs.quantize(ref, quant_types(["F32,Q4_0,Q8_0"]), session))
    assert [r.fresh for r in again] == [False, False, True]
    assert again[2].source == f16


def test_a_float_file_that_is_cut_short_is_said_to_be_where_there_is_no_checkpoint(
    session: Session, checkpoint: Path, tmp_path: Path, slmkit: Run
) -> None:
    f16 = adopted(session, tmp_path, checkpoint, "f16")
    f16.path.write_bytes(f16.path.read_bytes()[:-100_000])
    for arguments in (("quantize", f16.model, "-t", "Q4_0"), ("quantize", f16.model, "--target-bpw", "4.5")):
        done = slmkit(*arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"error: {f16.ref} is here, but cut short or changed: {f16.path}" in done.stderr
        assert f"`slmkit verify {f16.ref}`" in done.stderr
        assert "converting it first" not in done.stderr
    f16.path.unlink()
    assert f"error: {f16.ref} is gone" in slmkit("quantize", f16.model, "-t", "Q4_0").stderr


@pytest.mark.parametrize("ref", ["local/none", "org/none"])
def test_what_cannot_be_converted_is_not_said_to_be(slmkit: Run, ref: str) -> None:
    done = slmkit("quantize", ref, "-t", "Q4_0", "--no-pull")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: no checkpoint of {ref} here"), done.stderr


def test_f16_of_a_more_exact_file_needs_no_word(session: Session, checkpoint: Path, tmp_path: Path) -> None:
    bf16 = adopted(session, tmp_path, checkpoint, "bf16")
    (report,) = verbs.quantize(ModelRef.parse(bf16.model), quant_types(["F16"]), session)
    assert (report.artifact.variant, report.fresh, report.notes) == ("F16", True, ())


def test_a_float_file_that_was_adopted_is_not_made_again(session: Session, checkpoint: Path, tmp_path: Path) -> None:
    adopted(session, tmp_path, checkpoint, "bf16")
    f16 = adopted(session, tmp_path, checkpoint, "f16")
    (report,) = verbs.quantize(ModelRef.parse(f16.model), quant_types(["F16"]), session)
    assert (report.artifact, report.fresh) == (f16, False)
