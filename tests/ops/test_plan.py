"""`plan`: what it promises is what is then made and loaded, for every type."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.backends.llamacpp.quantize import quantize
from slmkit.core.artifact import Artifact
from slmkit.core.imatrix import Calibration
from slmkit.core.plan import Context, LoadMemory, ModelPlan, TypePlan
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineMissingError, NotInRegistryError, UsageError
from slmkit.formats import imatrix as imatrix_file
from slmkit.formats.gguf.header import read_header
from slmkit.formats.gguf.hollow import Hollow, read_hollow
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Entry, string, u32
from slmkit.host import bandwidth, cgroups
from slmkit.ops import adopt, corpora
from slmkit.ops.convert import convert
from slmkit.ops.imatrix import imatrix
from slmkit.recipes import foresight, verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories
from tests.real_load import assert_as_planned

CONTEXTS = (256, 1024)
CACHES = ("F16", "Q8_0", "Q4_0")


def plan(ref: Path | str, session: Session, *types: str, **options: object) -> ModelPlan:
    parsed = ModelRef.parse(str(ref))
    return foresight.plan(parsed, session, types=quant_types(types), **options)  # type: ignore[arg-type]


def row_of(found: ModelPlan, variant: str) -> TypePlan:
    return next(row for row in found.types if row.variant == variant)


@pytest.fixture(scope="module")
def weighed(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> ImatrixFile:
    """The importance matrix of the tiny model that `--imatrix auto` would collect, but for how long it collects."""
    artifact = adopt.describe(f16, SILENT)
    registry = Registry(tmp_path_factory.mktemp("weighed"))
    made = imatrix(artifact, corpora.corpus(), registry, SILENT, n_chunks=2).artifact
    return ImatrixFile(made.variant or "", made.path, made.digest)


def test_every_type_is_as_large_and_takes_as_much_as_promised(
    checkpoint: Path, f16: Path, weighed: ImatrixFile, session: Session, tmp_path: Path
) -> None:
    found = plan(checkpoint, session, n_ctx=CONTEXTS, cache_types=CACHES)
    assert {row.variant for row in found.types} == set(QUANT_TYPES)
    assert found.contexts == tuple(Context(n, kind) for n in CONTEXTS for kind in CACHES)
    for row in found.types:
        quant, made = QUANT_TYPES[row.variant], tmp_path / f"{row.variant}.gguf"
        if row.refusal:
            with pytest.raises(Exception, match=row.refusal.partition(": ")[2]):
                quantize(f16, made, quant, n_threads=2, progress=SILENT)
            continue
        if quant.is_float:
            convert(checkpoint, made, outtype=row.variant.lower(), model_id="local/tiny-llama")
        else:
            spec = QuantizeSpec(imatrix=weighed if row.needs_imatrix else None)
            result = quantize(f16, made, quant, n_threads=2, progress=SILENT, spec=spec)
            header = read_header(made)
            fallen = {fallback.name for fallback in result.fallbacks}
            n_fallen = sum(tensor.n_elements for tensor in header.tensors if tensor.name in fallen)
            assert row.fallback_share == n_fallen / header.n_params
        assert row.size_bytes == made.stat().st_size, row.variant
        assert row.bpw == read_header(made).bpw
        assert row.reduction == 1 - made.stat().st_size / f16.stat().st_size
        assert_as_planned(made, row.contexts)


def test_with_an_importance_matrix_types_are_as_it_makes_them(
    checkpoint: Path, f16: Path, weighed: ImatrixFile, session: Session, tmp_path: Path
) -> None:
    other = weighed.path.with_name("a longer name of the same matrix.gguf")
    shutil.copyfile(weighed.path, other)
    plain = {row.variant: row.size_bytes for row in plan(checkpoint, session).types}
    auto, from_file = plan(checkpoint, session, imatrix="auto"), plan(checkpoint, session, "Q4_0,Q2_K", imatrix=other)
    assert (auto.imatrix, from_file.imatrix) == (weighed.name, other.name)
    for found, path in ((auto, weighed.path), (from_file, other)):
        for row in found.types:
            quant, made = QUANT_TYPES[row.variant], tmp_path / f"{row.variant}.gguf"
            if quant.is_float:
                assert row.size_bytes == plain[row.variant]
            elif row.refusal is None and not row.needs_imatrix:  # those that do are made above
                spec = QuantizeSpec(imatrix=replace(weighed, path=path))
                quantize(f16, made, quant, n_threads=2, progress=SILENT, spec=spec)
                assert row.size_bytes == made.stat().st_size, row.variant
                assert row.bpw == read_header(made).bpw


def test_an_importance_matrix_changes_types(session: Session, tmp_path: Path) -> None:
    deep = factories.make_llama(tmp_path / "deep", n_layers=8)
    (plain,), (weighed,) = plan(deep, session, "Q4_0").types, plan(deep, session, "Q4_0", imatrix="auto").types
    assert plain.bpw is not None
    assert weighed.bpw is not None
    assert plain.bpw < weighed.bpw  # the engine makes the first of eight `ffn_down` Q4_1 then
    assert not weighed.needs_imatrix


def test_an_importance_matrix_that_cannot_be(
    checkpoint: Path, weighed: ImatrixFile, tiny: str, session: Session, tmp_path: Path
) -> None:
    wider = factories.make_llama(tmp_path / "wider", hidden=512)
    with pytest.raises(UsageError, match="is of another model"):
        plan(wider, session, imatrix=weighed.path)
    with pytest.raises(UsageError, match="no such file"):
        plan(checkpoint, session, imatrix=tmp_path / "none.gguf")
    with pytest.raises(UsageError, match="quantized already"):
        plan(f"{tiny}:Q4_0", session, imatrix="auto")


def test_of_an_importance_matrix_that_knows_half(
    checkpoint: Path, weighed: ImatrixFile, session: Session, tmp_path: Path
) -> None:
    whole = imatrix_file.read(weighed.path)
    half = {name: entry for name, entry in whole.entries.items() if name.startswith("blk.0.")}
    imatrix_file.write(tmp_path / "half.gguf", replace(whole, entries=half))
    found = plan(checkpoint, session, "IQ2_XXS,Q4_0", imatrix=tmp_path / "half.gguf")
    assert "half.gguf says nothing of it" in (row_of(found, "IQ2_XXS").refusal or "")
    assert row_of(found, "Q4_0").refusal is None


def test_the_newest_importance_matrix_is_planned_with(float_artifact: Artifact, session: Session) -> None:
    text = Calibration("a text of its own.txt", corpora.corpus().text)
    verbs.imatrix(ModelRef.parse(float_artifact.ref), text, session, n_chunks=2)
    for ref in (float_artifact.ref, str(float_artifact.path)):
        found = plan(ref, session, "IQ2_XXS,Q4_0", imatrix="auto")
        assert (found.imatrix or "").startswith("a_text_of_its_own-")
        made = verbs.quantize(ModelRef.parse(ref), quant_types(["IQ2_XXS", "Q4_0"]), session, imatrix="auto")
        assert {row.variant: row.size_bytes for row in found.types} == {
            report.quant.name: report.artifact.size_bytes for report in made
        }


def test_a_matrix_of_another_file_gives_the_next_one_another_name(
    checkpoint: Path, float_artifact: Artifact, session: Session
) -> None:
    verbs.imatrix(ModelRef.parse(float_artifact.ref), corpora.corpus(), session, n_chunks=2)
    f32 = verbs.convert(ModelRef.parse(str(checkpoint)), session, outtype="f32")
    found = plan(f32.ref, session, "Q4_0", imatrix="auto")
    (made,) = verbs.quantize(ModelRef.parse(f32.ref), quant_types(["Q4_0"]), session, imatrix="auto")
    assert read_header(made.artifact.path).metadata["quantize.imatrix.file"] == "mixed-of-F32.gguf"
    assert row_of(found, "Q4_0").size_bytes == made.artifact.size_bytes


def test_rows_that_do_not_divide_are_told(session: Session, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=96)
    found = plan(odd, session, "Q4_K_M,Q8_0")
    assert row_of(found, "Q8_0").fallback_share == 0
    share = row_of(found, "Q4_K_M").fallback_share
    assert share is not None
    assert share > 0.9


def test_in_a_container_its_memory_counts(f16: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "memory_limit_bytes", lambda: 1 << 20)
    found = plan(f16, session, "F16")
    assert found.ram_bytes == 1 << 20
    assert row_of(found, "F16").contexts[0].fits == "no"
    assert [note for note in found.notes if "container" in note]
    assert "1.0 MiB, the limit of this container; the machine has " in found.notes[0]
    asked = plan(f16, session, "F16", ram_bytes=8 << 30)
    assert (asked.ram_bytes, asked.notes) == (8 << 30, ())


def test_types_that_come_to_the_same_name_the_truest(session: Session, tmp_path: Path) -> None:
    odd = factories.make_llama(tmp_path / "odd", hidden=96)
    found = plan(odd, session, "Q4_0,Q8_0,Q6_K,Q5_K_M")
    assert [row_of(found, name).same_as for name in ("Q4_0", "Q8_0", "Q6_K")] == [None, None, "Q8_0"]
    assert row_of(found, "Q6_K").size_bytes == row_of(found, "Q8_0").size_bytes
    alone = plan(odd, session, "Q6_K")
    assert row_of(alone, "Q6_K").same_as is None


def test_the_largest_comes_first_and_what_cannot_be_last(checkpoint: Path, session: Session) -> None:
    sizes = [row.size_bytes for row in plan(checkpoint, session).types]
    known = [size for size in sizes if size is not None]
    assert sizes == sorted(known, reverse=True) + [None] * (len(sizes) - len(known))


def test_a_gguf_is_planned_with_as_it_is(f16: Path, checkpoint: Path, session: Session) -> None:
    of_file = plan(f16, session, "F32,F16,Q4_0,Q5_1")
    of_checkpoint = plan(checkpoint, session, "F32,F16,Q4_0,Q5_1")
    assert [dataclasses.replace(row, tg_estimate_tok_per_s=None, contexts=()) for row in of_file.types] == [
        dataclasses.replace(row, tg_estimate_tok_per_s=None, contexts=()) for row in of_checkpoint.types
    ]


def test_shards_are_planned_with_as_one(checkpoint: Path, f16: Path, session: Session, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "tiny-F16.gguf", model_id="local/tiny-llama", split_max_bytes=600_000)
    (first, *others) = sorted(tmp_path.glob("*.gguf"))
    assert others
    target = tmp_path / "q.gguf"
    quantize(first, target, QUANT_TYPES["Q5_0"], n_threads=1, progress=SILENT)
    assert row_of(plan(first, session, "Q5_0"), "Q5_0").size_bytes == target.stat().st_size


def test_a_quantized_file_stands_for_itself(f16: Path, session: Session, tmp_path: Path) -> None:
    made = tmp_path / "tiny-Q4_K_M.gguf"
    quantize(f16, made, QUANT_TYPES["Q4_K_M"], n_threads=1, progress=SILENT)
    (row,) = plan(made, session).types
    assert (row.variant, row.size_bytes, row.reduction) == ("Q4_K_M", made.stat().st_size, None)
    assert_as_planned(made, row.contexts)
    unknown = made.rename(tmp_path / "tiny-UD-Q4_K_XL.gguf")
    assert plan(unknown, session).types[0].size_bytes == row.size_bytes
    itself, other = plan(unknown, session, "Q4_K_M,Q2_K").types
    assert (itself.variant, other.variant) == ("Q4_K_M", "Q2_K")
    assert "quantized already" in (other.refusal or "")


def test_a_registered_model_is_found_whatever_of_it_is_here(tiny: str, session: Session) -> None:
    registry = session.registry
    named = plan(f"{tiny}:Q4_0", session)
    assert [row.variant for row in named.types] == ["Q4_0"]
    from_float = plan(tiny, session, "Q5_1")  # there is no checkpoint in the registry, but an F16
    (report,) = verbs.quantize(ModelRef.parse(tiny), quant_types(["Q5_1"]), session)
    assert from_float.types[0].size_bytes == report.artifact.size_bytes
    with pytest.raises(NotInRegistryError, match="no local/tiny-llama:Q6_K here"):
        plan(f"{tiny}:Q6_K", session)
    for variant in ("F16", "Q5_1"):
        registry.remove(registry.plan_removal([a for a in registry.artifacts(tiny) if a.variant == variant]))
    assert [row.variant for row in plan(tiny, session).types] == ["Q4_0"]


def test_the_float_that_is_here_is_what_is_quantized_from(
    checkpoint: Path, float_artifact: Artifact, session: Session
) -> None:
    verbs.convert(ModelRef.parse(str(checkpoint)), session, outtype="f32")
    promised = plan(checkpoint, session, "Q3_K_M")
    (report,) = verbs.quantize(ModelRef.parse(str(checkpoint)), quant_types(["Q3_K_M"]), session)
    assert report.source.variant == "F32"
    assert promised.types[0].size_bytes == report.artifact.size_bytes


def test_contexts_are_the_models_own_unless_asked_for(checkpoint: Path, session: Session, tmp_path: Path) -> None:
    assert [c.n_ctx for c in plan(checkpoint, session, "F16").contexts] == [2048]
    longer = factories.make_llama(tmp_path / "longer", max_position_embeddings=131072)
    assert [c.n_ctx for c in plan(longer, session, "F16").contexts] == [4096, 32768]
    beyond = plan(checkpoint, session, "F16", n_ctx=[4096])
    assert beyond.notes == ("beyond the 2,048 tokens that the model was trained for: 4,096",)


def test_a_cache_that_the_engine_refuses_is_no_number(session: Session, tmp_path: Path) -> None:
    narrow = factories.make_llama(tmp_path / "narrow", hidden=64)  # heads of 16: no whole block of 32
    good, bad = plan(narrow, session, "F16", n_ctx=[256], cache_types=["f16", "q8_0"]).types[0].contexts
    assert good.memory is not None
    assert (bad.memory, bad.fits) == (None, None)
    assert "block size 32" in (bad.refusal or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctx": [0]}, "a context of 0 tokens"),
        ({"cache_types": ["q2_k"]}, "no type of KV cache: 'Q2_K'"),
    ],
)
def test_what_cannot_be_asked_for(checkpoint: Path, session: Session, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(checkpoint, session, **options)


def test_no_engine_no_sums(checkpoint: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineMissingError):
        plan(checkpoint, session)


def test_what_fits_is_a_rule() -> None:
    memory = LoadMemory({"CPU": 50, "CPU_REPACK": 20}, 10, 15, 5)
    assert (memory.total_bytes, memory.file_backed_bytes, memory.anonymous_bytes) == (100, 50, 50)
    assert [memory.fits(ram) for ram in (99, 100, 124, 125)] == ["no", "tight", "tight", "yes"]


def _hollow(names: dict[str, int], **hyper: int) -> Hollow:
    metadata = {"general.architecture": string("x")} | {f"x.{key}": u32(value) for key, value in hyper.items()}
    return Hollow(metadata, [Entry(name, (n,), GGML_TYPES_BY_NAME["F16"]) for name, n in names.items()])


def test_what_one_token_reads() -> None:
    tied = _hollow({"token_embd.weight": 100, "blk.0.attn_q.weight": 10})
    assert tied.bytes_per_token == 220
    untied = _hollow({"token_embd.weight": 100, "output.weight": 100, "blk.0.attn_q.weight": 10})
    assert untied.bytes_per_token == 220
    experts = {"token_embd.weight": 100, "blk.0.ffn_up_exps.weight": 80, "blk.0.attn_q.weight": 10}
    assert _hollow(experts, expert_count=8, expert_used_count=2).bytes_per_token == 2 * (100 + 20 + 10)


def test_bandwidth_is_that_of_some_computer() -> None:
    assert 1e8 < bandwidth.read_bytes_per_s(1, seconds=0.01) < 1e13


def test_the_estimate_is_bandwidth_over_bytes(f16: Path, session: Session) -> None:
    found = plan(f16, session, "F16")
    (row,) = found.types
    assert row.read_bytes == read_hollow(f16).bytes_per_token
    assert row.tg_estimate_tok_per_s == found.bandwidth_bytes_per_s / row.read_bytes
    for way in row.contexts:
        assert way.memory
        assert way.tg_estimate_tok_per_s == found.bandwidth_bytes_per_s / (row.read_bytes + way.memory.kv_bytes)


def test_the_document_is_json_with_sums(f16: Path, session: Session) -> None:
    document = json.loads(json.dumps(plan(f16, session, "Q8_0", n_ctx=[512]).document()))
    memory = document["types"][0]["contexts"][0]["memory"]
    parts = sum(memory["weights_bytes"].values()) + memory["kv_bytes"] + memory["compute_bytes"]
    assert memory["total_bytes"] == parts + memory["output_bytes"]
    assert memory["total_bytes"] == memory["file_backed_bytes"] + memory["anonymous_bytes"]
