"""Each group of tensors alone: measured, thrown away, and put to use in a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.bench import Failure
from slmkit.core.progress import SILENT
from slmkit.core.quality import Corpus, QualitySpec, Text
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.refs import ModelRef
from slmkit.core.sensitivity import HIGHER, Cost, Kind, Sensitivity, costly, cut, sum_of
from slmkit.errors import EngineTimeoutError, ImatrixNeededError, SlmkitError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.tensor_rules import read_rules
from slmkit.ops import adopt, corpora
from slmkit.ops.quality import quality
from slmkit.recipes import run as recipe_run
from slmkit.recipes import schema, verbs
from slmkit.recipes import sensitivity as module
from slmkit.recipes.sensitivity import sensitivity, write_recipe
from slmkit.recipes.session import Session
from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests import factories, judged
from tests.cli.conftest import leftovers

CORPUS = Corpus("text", (Text("text", corpora.corpus().text[:1500]),))
SPEC = QualitySpec(n_ctx=64, n_chunks=4, n_threads=2)
Q4_0 = QUANT_TYPES["Q4_0"]


def measure(source: Artifact, session: Session, kind: str = "Q4_0", **options: Any) -> Sensitivity:
    return sensitivity(ModelRef.parse(source.ref), QUANT_TYPES[kind], CORPUS, SPEC, session, **options)


def by_name(found: Sensitivity) -> dict[str, Cost]:
    return {cost.group.name: cost for cost in found.costs}


def lossless(source: Path, target: Path, pattern: str) -> Path:
    """A copy of a GGUF whose matrices of that name are such that Q4_0 holds them: a scale times -8 to 7."""
    data = bytearray(source.read_bytes())
    header = read_header(source)
    chance = np.random.default_rng(3)
    for tensor in header.tensors:
        if re.search(pattern, tensor.name) and len(tensor.shape) > 1:
            levels = chance.integers(-7, 8, (tensor.n_elements // 32, 32))
            levels[:, 0] = -8
            at = header.data_offset + tensor.offset
            data[at : at + tensor.size_bytes] = (levels * 2.0**-7).astype(np.float16).tobytes()
    target.write_bytes(data)
    return target


@pytest.fixture(scope="module")
def made(f16: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Artifact, Sensitivity]:
    """A tiny model whose ffn_down loses nothing, and its sensitivity to Q4_0."""
    folder = tmp_path_factory.mktemp("sensitive")
    session = Session(Registry(folder / "home"), SILENT, may_pull=False, offline=True)
    source = adopt.adopt(lossless(f16, folder / "exact-F16.gguf", "ffn_down"), session.registry, SILENT)
    return session, source, measure(source, session, keep_costly=True)


Made = tuple[Session, Artifact, Sensitivity]


def mean_kld(base: Artifact, quant: Artifact, session: Session) -> float:
    run = quality(base, [quant], CORPUS, SPEC, session.registry, SILENT)
    klds = [kld for chunk in run.rows[1].chunks for kld in chunk.kld]
    return sum(klds) / len(klds)


def kld_of(cost: Cost | None) -> float:
    assert cost
    assert cost.kld
    return cost.kld.value


def test_a_group_that_loses_nothing_costs_next_to_nothing(made: Made) -> None:
    found = by_name(made[2])
    assert 0 <= kld_of(found["ffn_down"]) < kld_of(found["ffn_up"]) / 10


def test_the_costs_are_those_of_files_that_quantize_makes(made: Made) -> None:
    session, source, found = made
    assert [c.group.name for c in found.of_kind("layer")] == ["blk.0", "blk.1"]
    assert {"attn_q", "attn_v", "ffn_down", "token_embd", "output"} <= by_name(found).keys()
    (report,) = verbs.quantize(ModelRef.parse(source.model), [Q4_0], session)
    together = kld_of(found.together)
    assert together == pytest.approx(mean_kld(source, report.artifact, session), rel=1e-6)
    saved = sum(t.size_bytes for t in read_header(source.path).tensors)
    saved -= sum(t.size_bytes for t in read_header(report.artifact.path).tensors)
    assert found.together.saved_bytes == saved
    kinds: tuple[Kind, ...] = ("role", "layer")
    for kind in kinds:
        assert sum(cost.saved_bytes for cost in cut(found.costs, kind)) == saved
        total = sum_of(found.costs, kind)
        assert total is not None
        assert 0.5 < total / together < 2  # random weights; the sum is about the whole


def test_the_recipe_keeps_the_costly_and_is_what_it_says(made: Made, tmp_path: Path) -> None:
    session, source, found = made
    kept = {name for cost in costly(found.costs) for name in cost.group.tensors}
    assert kept
    assert {kind for _, kind in found.rules} == {HIGHER}
    write_recipe(found, tmp_path / "kept.toml")
    recipe = schema.load(tmp_path / "kept.toml")
    assert [str(model.ref) for model in recipe.models] == [source.model]
    (mixed,) = recipe_run.run(recipe, session).artifacts
    types = {tensor.name: tensor.type.name for tensor in read_header(mixed.path).tensors}
    assert {types[name] for name in kept} == {HIGHER}
    assert {types[name] for name in types.keys() - kept} <= {"F32", "Q4_0", "Q6_K"}
    assert kld_of(found.kept) == pytest.approx(mean_kld(source, mixed, session), rel=1e-6)
    assert kld_of(found.kept) < kld_of(found.together)
    assert found.kept
    assert found.kept.saved_bytes < found.together.saved_bytes


def test_the_same_as_rules_for_quantize(made: Made, tmp_path: Path) -> None:
    write_recipe(made[2], tmp_path / "rules.txt")
    rules = read_rules(tmp_path / "rules.txt")
    assert [(rule.pattern, rule.type) for rule in rules] == list(made[2].rules)


def test_nothing_is_left_but_the_run(float_artifact: Artifact, session: Session) -> None:
    registry = session.registry
    before = {path for path in registry.home.rglob("*") if path.is_file()}
    found = measure(float_artifact, session)
    after = {path for path in registry.home.rglob("*") if path.is_file()} - before
    ((stored,), damaged) = runs.sensitivity_runs(registry.home)
    assert (stored.run, damaged) == (found, [])
    assert {path.parent.name for path in after if path.suffix != ".lock"} == {"runs"}
    assert leftovers(registry.home) == []
    assert [a.variant for a in registry.artifacts()] == ["F16"]


def interrupting(after: int) -> Callable[..., Any]:
    """`quality`, with a Ctrl-C in the call after so many."""
    n_calls = 0

    def run(*arguments: Any, **options: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls > after:
            raise KeyboardInterrupt
        return quality(*arguments, **options)

    return run


def test_an_interrupted_run_leaves_no_file_and_goes_on_where_it_was(
    float_artifact: Artifact, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOGETHER", 3)
    with monkeypatch.context() as patched:
        patched.setattr(module, "quality", interrupting(2))
        with pytest.raises(KeyboardInterrupt):
            measure(float_artifact, session)
    assert leftovers(session.registry.home) == []
    assert runs.sensitivity_runs(session.registry.home) == ([], [])
    read: list[str] = []

    def counting(base: Artifact, files: list[Artifact], *arguments: Any, **options: Any) -> Any:
        read.extend(file.variant or "" for file in files)
        return quality(base, files, *arguments, **options)

    monkeypatch.setattr(module, "quality", counting)
    found = measure(float_artifact, session, resume=True)
    assert [cost.group.name for cost in found.costs][6:] == read
    assert all(cost.kld for cost in found.costs)
    with pytest.raises(UsageError, match="nothing to resume"):
        measure(float_artifact, session, resume=True)
    monkeypatch.undo()
    assert measure(float_artifact, session).costs == found.costs


def test_the_time_is_for_all_batches_and_what_is_measured_is_kept(
    float_artifact: Artifact, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TOGETHER", 3)
    given: list[float] = []

    def slow(base: Artifact, files: list[Artifact], corpus: Corpus, spec: QualitySpec, *others: Any) -> Any:
        given.append(spec.timeout_s or 0)
        return quality(base, files, corpus, replace(spec, timeout_s=0.01) if len(given) == 2 else spec, *others)

    monkeypatch.setattr(module, "quality", slow)
    ref, limited = ModelRef.parse(float_artifact.ref), replace(SPEC, timeout_s=500)
    with pytest.raises(EngineTimeoutError, match="more than 500 s and was stopped: what is measured is kept"):
        sensitivity(ref, Q4_0, CORPUS, limited, session)
    assert 500 >= given[0] > given[1] > 0
    found = sensitivity(ref, Q4_0, CORPUS, SPEC, session, resume=True)
    assert all(cost.kld for cost in found.costs)


def test_a_group_that_breaks_the_file_keeps_its_scores_and_is_costly(made: Made) -> None:
    group = made[2].costs[0].group
    base, broken = judged.row("F16", None), replace(judged.row("Q4_0", 7.0), defect="it guesses")
    found = module._cost(group, 5 << 20, broken, base)
    assert kld_of(found) == pytest.approx(7.0, rel=0.1)
    assert (found.defect, found.failure) == ("it guesses", None)
    assert found in costly([found, *made[2].costs])
    unread = module._cost(group, 5 << 20, replace(broken, chunks=()), base)
    assert (unread.klds, unread.defect, unread.failure) == ((), "it guesses", "it guesses")
    assert unread in costly([unread, *made[2].costs])
    crashed = module._cost(
        group, 5, replace(broken, defect=None, failure=Failure("engine.crashed", "it crashed")), base
    )
    assert (crashed.failure, crashed.defect, costly([crashed])) == ("it crashed", None, [])
    assert module._cost(group, 5, broken, replace(base, defect="it guesses")).defect is None


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M"])
def test_types_that_mix_or_have_nothing_above_them(
    float_artifact: Artifact, session: Session, tmp_path: Path, kind: str
) -> None:
    found = measure(float_artifact, session, kind, keep_costly=True)
    write_recipe(found, tmp_path / "kept.toml")
    recipe = schema.load(tmp_path / "kept.toml")
    assert recipe.models[0].types == (QUANT_TYPES[kind],)
    (mixed,) = recipe_run.run(recipe, session).artifacts
    if kind == "Q8_0":
        assert (found.rules, found.kept) == ((), None)
    kept = {name for cost in costly(found.costs) for name in cost.group.tensors} if found.kept else set()
    types = {tensor.name: tensor.type.name for tensor in read_header(mixed.path).tensors}
    (plain,) = verbs.quantize(ModelRef.parse(float_artifact.model), [QUANT_TYPES[kind]], session)
    for tensor in read_header(plain.artifact.path).tensors:
        assert types[tensor.name] == (HIGHER if tensor.name in kept else tensor.type.name)


def test_a_layer_alone_may_be_kept(session: Session, tmp_path: Path) -> None:
    """All layers but one lose nothing; the rules name that one."""
    folder = factories.make_llama(tmp_path / "deep", n_layers=4)
    source = verbs.convert(ModelRef("path", str(folder)), session)
    path = lossless(source.path, tmp_path / "one-F16.gguf", r"blk\.[013]\.")
    found = measure(adopt.adopt(path, session.registry, SILENT), session, keep_costly=True)
    assert "blk.2" in {cost.group.name for cost in costly(found.costs)}
    assert any(pattern.startswith(r"^blk\.(2)\.") for pattern, _ in found.rules)


@pytest.mark.parametrize(
    ("variant", "kind", "error", "what"),
    [
        ("Q4_0", "Q4_0", UsageError, "quantized already"),
        ("F16", "BF16", UsageError, "quantizes nothing"),
        ("F16", "IQ2_XXS", ImatrixNeededError, "importance matrix"),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(
    tiny: str, session: Session, variant: str, kind: str, error: type[SlmkitError], what: str
) -> None:
    ref = ModelRef.parse(f"{tiny}:{variant}")
    with pytest.raises(error, match=what) as caught:
        sensitivity(ref, QUANT_TYPES[kind], CORPUS, SPEC, session)
    assert "--imatrix" not in (caught.value.hint or "")  # `quality` has no such option
    assert leftovers(session.registry.home) == []


def test_sixteen_chunks_unless_said_otherwise(float_artifact: Artifact, session: Session) -> None:
    spec = QualitySpec(n_ctx=32, n_threads=2, max_kld=0.05, until_decided=True)
    found = sensitivity(ModelRef.parse(float_artifact.ref), Q4_0, CORPUS, spec, session)
    assert len(found.together.klds) == module.DEFAULT_CHUNKS
    assert not found.spec.until_decided
