"""Made again from what the manifests say: rederived, dropped and got back, with the real engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.imatrix import Calibration
from slmkit.core.progress import SILENT, Task, Unit
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import Override, QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.errors import ChangedError, NotInRegistryError, NotRebuiltError, RegistryError
from slmkit.formats.gguf.header import read_header
from slmkit.ops import adopt, locate
from slmkit.recipes import verbs
from slmkit.recipes.get import get
from slmkit.recipes.rebuildable import candidates, drop
from slmkit.recipes.rederive import Rederived, rederive
from slmkit.recipes.session import Session
from slmkit.registry import atomic, dropped, imatrices, paths
from slmkit.registry.lineage import Family
from slmkit.registry.store import Registry
from tests import factories
from tests.registry.invariants import check

MODEL = "local/tiny-llama"
REF = ModelRef.parse(MODEL)


@pytest.fixture(scope="module")
def _made(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    session = Session(Registry(tmp_path_factory.mktemp("family") / "home"), SILENT, may_pull=False, offline=True)
    adopt.adopt(checkpoint, session.registry, SILENT)
    list(verbs.quantize(REF, quant_types(["F16,Q4_0,Q8_0"]), session))
    return session.registry.home


@pytest.fixture
def family(_made: Path, registry: Registry) -> Registry:
    """The tiny model with its checkpoint registered, as F16, Q4_0 and Q8_0."""
    shutil.copytree(_made, registry.home)
    return registry


def named(registry: Registry, variant: str | None) -> Artifact:
    found = registry.find(MODEL, variant)
    assert found is not None
    return found


def dropped_all(registry: Registry, *artifacts: Artifact) -> list[str | None]:
    found = candidates(artifacts, registry, engine.build)
    gone, left = drop([c.artifact for c in found if c.why_not is None], registry)
    assert left == []
    return [artifact.variant for artifact in gone]


def digests(registry: Registry) -> dict[str, str]:
    return {a.ref: a.digest for a in registry.artifacts()}


# ------------------------------------------------------------------ verify --rederive


def test_all_that_was_made_is_made_again_with_the_same_bytes(family: Registry, session: Session) -> None:
    artifacts = [named(family, variant) for variant in ("F16", "Q4_0", "Q8_0")]
    assert list(rederive(artifacts, session)) == [Rederived(a.ref, "same") for a in artifacts]
    assert list(rederive(artifacts[1:], session, n_threads=3)) == [Rederived(a.ref, "same") for a in artifacts[1:]]
    check(family.home, settled=True)


def test_with_every_option_that_makes_another_file(family: Registry, session: Session) -> None:
    spec = QuantizeSpec(
        rules=(Rule("ffn_down", "Q6_K"),),
        output_type="Q8_0",
        prune_layers=(1,),
        overrides=(Override("llama.context_length", 1024), Override("tokenizer.ggml.add_bos_token", False)),
    )
    (report,) = verbs.quantize(REF, [QUANT_TYPES["Q4_K_M"]], session, spec=spec)
    assert list(rederive([report.artifact], session)) == [Rederived(report.artifact.ref, "same")]
    before = report.artifact.digest
    assert dropped_all(family, report.artifact) == [report.artifact.variant]
    assert [got.artifact.digest for got in get(ModelRef.parse(report.artifact.ref), session)] == [before]


def test_with_an_importance_matrix(family: Registry, session: Session) -> None:
    """It is a parent: without it nothing can be made again."""
    verbs.imatrix(REF, TEXT, session, n_chunks=3)
    spec_types = [QUANT_TYPES["IQ2_XXS"], QUANT_TYPES["Q4_K_M"]]
    reports = list(verbs.quantize(REF, spec_types, session, imatrix="auto"))
    (imatrix,) = imatrices.all_of(family)
    made = [report.artifact for report in reports]
    assert [a.provenance.parents for a in made] == [(named(family, "F16").digest, imatrix.digest)] * 2
    assert [r.answer for r in rederive(made, session)] == ["same", "same"]
    node = Family(family).lineage([made[0]]).node(imatrix.digest)
    assert node.known is not None
    assert (node.known.artifact, node.known.state) == (imatrix, "here")

    before = digests(family)
    assert len(dropped_all(family, *made)) == 2
    check(family.home, settled=True)
    assert all(got.fresh for artifact in made for got in get(ModelRef.parse(artifact.ref), session))
    assert digests(family) == before

    imatrix.path.unlink()
    (found,) = rederive(made[:1], session)
    assert found.why == f"{imatrix.ref} is gone"
    (candidate,) = candidates(made[:1], family, engine.build)
    assert candidate.why_not == f"{imatrix.ref} is gone: not convert or quantize made it, but imatrix"


TEXT = Calibration("words", "the of and to in a is that for it as was with be by on not he his but at are " * 300)


def test_with_a_file_that_has_the_bytes_of_a_registered_importance_matrix(
    family: Registry, session: Session, tmp_path: Path
) -> None:
    """The file's name is in the metadata, and the manifest's parent is the registered one: both must come back."""
    known = verbs.imatrix(REF, TEXT, session, n_chunks=3).artifact
    for name in ("mine.gguf", "old.imatrix", known.path.name):
        mine = tmp_path / name
        shutil.copy(known.path, mine)
        (made,) = [r.artifact for r in verbs.quantize(REF, [QUANT_TYPES["Q4_0"]], session, imatrix=mine, force=True)]
        assert read_header(made.path).metadata["quantize.imatrix.file"] == name
        mine.unlink()
        assert [r.answer for r in rederive([made], session)] == ["same"]
        assert dropped_all(family, made) == [made.variant]
        (got,) = get(ModelRef.parse(made.ref), session)
        assert got.artifact.digest == made.digest
    check(family.home, settled=True)


@pytest.mark.parametrize(
    ("parameters", "variant", "command"),
    [
        ({"type": "Q4_0", "imatrix": "mixed"}, "Q4_0-imatrix", "slmkit quantize {} -t Q4_0 --imatrix auto"),
        ({"type": "Q4_0", "pure": True}, "Q4_0-mine", "slmkit quantize {} -t Q4_0 --pure --name mine"),
        (
            {"type": "Q3_K_M", "target": {"bpw": 4.5}, "imatrix": "mixed", "rules": [["ffn", "Q6_K"]]},
            "MIX-4.50bpw",
            "slmkit quantize {} --target-bpw 4.5 --imatrix auto",
        ),
        ({"type": "Q3_K_M", "target": {"size": 12582912}}, "MIX-12.0MiB", "slmkit quantize {} --target-size 12582912"),
    ],
)
def test_what_is_made_instead_is_made_the_same_way(
    family: Registry, session: Session, parameters: dict[str, object], variant: str, command: str
) -> None:
    """What a manifest names as parents is not here: the hint makes something like it."""
    q4 = named(family, "Q4_0")
    provenance = replace(q4.provenance, parents=(), parameters=parameters)
    gone = (replace(q4.files[0], name="gone.gguf"),)
    dropped.keep(family.home, replace(q4, variant=variant, files=gone, provenance=provenance))
    with pytest.raises(NotRebuiltError, match="cannot be made again") as caught:
        list(get(ModelRef.parse(f"{MODEL}:{variant}"), session))
    assert caught.value.hint == f"make a new one: `{command.format(MODEL)}`"


def test_shards(checkpoint: Path, session: Session) -> None:
    registry = session.registry
    adopt.adopt(checkpoint, registry, SILENT)
    whole = verbs.convert(REF, session, spec=ConvertSpec(split_max_bytes=1_000_000))
    assert len(whole.files) > 2
    (kept,) = verbs.quantize(REF, [QUANT_TYPES["Q4_0"]], session, spec=QuantizeSpec(keep_split=True))
    assert len(kept.artifact.files) == len(whole.files)
    assert [r.answer for r in rederive([whole, kept.artifact], session)] == ["same", "same"]
    before = digests(registry)
    assert dropped_all(registry, kept.artifact, whole) == [kept.artifact.variant, "F16"]
    assert list(paths.model_dir(registry.home, MODEL).glob("*.gguf")) == []
    assert [got.artifact.variant for got in get(ModelRef.parse(kept.artifact.ref), session)] == [
        "F16",
        kept.artifact.variant,
    ]
    assert digests(registry) == before
    check(registry.home, settled=True)


def forged(registry: Registry, artifact: Artifact, change: Callable[[bytearray], None]) -> Artifact:
    """The artifact with other bytes, registered as if they were right."""
    data = bytearray(artifact.path.read_bytes())
    change(data)
    artifact.path.write_bytes(data)
    other = replace(artifact, files=(replace(artifact.files[0], sha256=atomic.sha256(artifact.path)),))
    registry.publish(other)
    return other


def test_the_first_tensor_that_differs_is_named(family: Registry, session: Session) -> None:
    artifact = named(family, "Q4_0")
    header = read_header(artifact.path)
    tensor = sorted(header.tensors, key=lambda t: t.offset)[5]

    def flip(data: bytearray) -> None:
        data[header.data_offset + tensor.offset + 17] ^= 1
        data[-40] ^= 1

    (found,) = rederive([forged(family, artifact, flip)], session)
    assert (found.answer, found.other_tools) == ("differs", ())
    assert found.why == f"tensor {tensor.name} ({tensor.type.name}), at byte 17 of {tensor.size_bytes:,}"


def test_what_cannot_be_made_again_says_why(family: Registry, session: Session, tmp_path: Path) -> None:
    q4, f16, source = named(family, "Q4_0"), named(family, "F16"), named(family, None)
    upstream = replace(f16, provenance=replace(f16.provenance, parameters={"type": "F16", "converter": "upstream"}))
    orphan = replace(q4, provenance=replace(q4.provenance, parents=("sha256:" + 64 * "0",)))
    reasons = [found.why for found in rederive([source, upstream, orphan], session)]
    assert reasons == [
        "not convert or quantize made it, but adopt",
        "it was made by the converter 'upstream', which slmkit does not keep",
        f"{MODEL}:F16 (sha256:000000000000) is not registered with these bytes",
    ]
    assert dropped_all(family, f16) == ["F16"]
    (found,) = rederive([q4], session)
    assert (found.answer, found.why) == ("cannot", f"{MODEL}:F16 is dropped: `slmkit get {MODEL}:F16`")


def test_another_engine_is_reported_but_tried(family: Registry, session: Session) -> None:
    q4 = named(family, "Q4_0")
    tools = {**q4.provenance.tools, "engine": "llama-cpp-python 0.0.1"}
    older = replace(q4, provenance=replace(q4.provenance, tools=tools))
    (found,) = rederive([older], session)
    assert found.answer == "same"
    assert found.other_tools == (f"engine: llama-cpp-python 0.0.1 then, {q4.provenance.tools['engine']} now",)


# ------------------------------------------------------------------ gc --rebuildable, get


def test_dropped_files_come_back_bit_by_bit_parents_first(family: Registry, session: Session) -> None:
    before = digests(family)
    assert dropped_all(family, *family.artifacts()) == ["F16", "Q4_0", "Q8_0"]
    assert digests(family) == {MODEL: before[MODEL]}
    assert list(paths.model_dir(family.home, MODEL).glob("*.gguf")) == []
    check(family.home, settled=True)
    got = list(get(ModelRef.parse(f"{MODEL}:Q8_0"), session))
    assert [(g.artifact.variant, g.fresh) for g in got] == [("F16", True), ("Q8_0", True)]
    assert [a.variant for a in dropped.all_of(family.home)] == ["Q4_0"]
    got = list(get(REF, session))
    assert {g.artifact.variant: g.fresh for g in got} == {None: False, "F16": False, "Q8_0": False, "Q4_0": True}
    assert digests(family) == before
    check(family.home, settled=True)


def test_a_file_that_somebody_deleted_comes_back_too(family: Registry, session: Session) -> None:
    artifact = named(family, "Q4_0")
    artifact.path.unlink()
    assert [(g.artifact.digest, g.fresh) for g in get(ModelRef.parse(artifact.ref), session)] == [
        (artifact.digest, True)
    ]
    check(family.home, settled=True)


def test_other_bytes_than_before_are_an_error_and_not_kept(family: Registry, session: Session) -> None:
    artifact = named(family, "Q4_0")
    assert dropped_all(family, artifact) == ["Q4_0"]
    recipe = dropped.path(family.home, MODEL, "Q4_0")
    tools = {**artifact.provenance.tools, "features": "another CPU"}
    edited = json.loads(recipe.read_text())
    edited["files"][0]["sha256"] = 64 * "0"
    edited["provenance"]["tools"] = tools
    recipe.write_text(json.dumps(edited))
    with pytest.raises(NotRebuiltError, match="features: another CPU then") as caught:
        list(get(ModelRef.parse(artifact.ref), session))
    assert caught.value.hint == f"make a new one: `slmkit quantize {MODEL} -t Q4_0`"
    assert family.find(MODEL, "Q4_0") is None
    assert recipe.is_file()
    check(family.home, settled=True)


def test_what_might_not_come_back_stays(family: Registry, session: Session, tmp_path: Path) -> None:
    def why_not(artifact: Artifact) -> str | None:
        (candidate,) = candidates([artifact], family, engine.build)
        return candidate.why_not

    q4, f16, source = named(family, "Q4_0"), named(family, "F16"), named(family, None)
    assert [why_not(a) for a in (q4, f16)] == [None, None]
    assert "but adopt" in (why_not(source) or "")
    for name in q4.provenance.tools:
        tools = {**q4.provenance.tools, name: "other"}
        assert f"made by other tools: {name}: other then" in (
            why_not(replace(q4, provenance=replace(q4.provenance, tools=tools))) or ""
        )
    family.remove(family.plan_removal([source]))
    assert "is not registered" in (why_not(f16) or "")
    assert why_not(q4) is None  # its F16 is here
    f16.path.unlink()
    assert why_not(q4) == f"{f16.ref} is gone: {why_not_of_parent(family, f16)}"


def changed(path: Path) -> None:
    """One byte is another, the size is the same, and the file was written after it was registered."""
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    os.utime(path, (4e9, 4e9))


@pytest.mark.parametrize("which", ["source", "imatrix"])
@pytest.mark.parametrize("when", ["before it is asked about", "after"])
def test_what_is_made_of_a_file_that_changed_stays(family: Registry, session: Session, which: str, when: str) -> None:
    known = verbs.imatrix(REF, TEXT, session, n_chunks=3).artifact
    (q4,) = [r.artifact for r in verbs.quantize(REF, [QUANT_TYPES["Q4_0"]], session, imatrix="auto")]
    parent = named(family, "F16") if which == "source" else known
    os.utime(parent.path, (4e9, 4e9))  # written later, but the same bytes
    (candidate,) = candidates([q4], family, engine.build)
    assert candidate.why_not is None
    changed(parent.path)
    if when == "after":
        assert [(a, b.why_not) for a, b in zip([q4], drop([q4], family)[1], strict=True)] == [(q4, why_changed(parent))]
    else:
        (candidate,) = candidates([q4], family, engine.build)
        assert candidate.why_not == why_changed(parent)
    assert q4.path.is_file()
    assert named(family, q4.variant) == q4


def why_changed(parent: Artifact) -> str:
    return f"{parent.ref} has changed since it was registered: {parent.path} has other contents"


def test_of_a_parent_that_was_dropped_the_parents_are_looked_at(family: Registry, session: Session) -> None:
    f16, q4, source = named(family, "F16"), named(family, "Q4_0"), named(family, None)
    assert dropped_all(family, f16) == ["F16"]
    weights = next(file for file in source.files if file.name.endswith(".safetensors"))
    mine = paths_copied(family, source)
    changed(mine.root / weights.name)
    (candidate,) = candidates([q4], family, engine.build)
    assert candidate.why_not == (
        f"{f16.ref} is dropped: {source.ref} has changed since it was registered: "
        f"{mine.root / weights.name} has other contents"
    )


def paths_copied(registry: Registry, source: Artifact) -> Artifact:
    """The checkpoint registered at a place where a test may write."""
    root = shutil.copytree(source.root, registry.home.parent / "mine")
    mine = replace(source, root=root)
    registry.publish(mine)
    return mine


def why_not_of_parent(registry: Registry, artifact: Artifact) -> str:
    return f"what it was made from is not registered: {artifact.provenance.parents[0][:19]}"


def test_without_an_engine_what_it_made_stays(family: Registry) -> None:
    def missing() -> dict[str, str]:
        from slmkit.errors import EngineMissingError

        raise EngineMissingError("none")

    found = candidates([named(family, "F16"), named(family, "Q4_0")], family, missing)
    assert [c.why_not is None for c in found] == [True, False]


def test_a_dropped_name_is_known_everywhere(family: Registry, session: Session) -> None:
    assert dropped_all(family, named(family, "Q4_0")) == ["Q4_0"]
    ref = ModelRef.parse(f"{MODEL}:q4_0")
    with pytest.raises(NotInRegistryError, match="no local/tiny-llama:q4_0 here") as caught:
        locate.ggufs(ref, family, SILENT)
    assert caught.value.hint == f"it was dropped; make it again: `slmkit get {ref}`"
    with pytest.raises(NotInRegistryError, match="nothing registered") as caught:
        locate.everything(ref, family)
    assert caught.value.hint == f"make it again: `slmkit get {MODEL}:Q4_0`"
    removal = locate.removal(ref, family)
    assert [a.variant for a in removal.recipes] == ["Q4_0"]
    family.remove(removal)
    assert dropped.all_of(family.home) == []
    with pytest.raises(NotInRegistryError):
        list(get(ref, session))


def test_what_a_dropped_file_is_made_from_is_not_removed_by_itself(family: Registry, session: Session) -> None:
    f16 = named(family, "F16")
    assert dropped_all(family, named(family, "Q4_0")) == ["Q4_0"]
    for state in ("here", "dropped"):
        with pytest.raises(RegistryError, match=f"F16 is what {MODEL}:Q4_0 would be made of again") as caught:
            locate.removal(ModelRef.parse(f16.ref), family)
        assert caught.value.hint == f"make it first: `slmkit get {MODEL}:Q4_0`; or forget it: `slmkit rm {MODEL}:Q4_0`"
        if state == "here":
            assert dropped_all(family, f16) == ["F16"]
    assert locate.removal(ModelRef.parse(f"{MODEL}:Q8_0"), family).orphans == ()
    whole = locate.removal(REF, family)
    assert [a.variant for a in whole.recipes] == ["F16", "Q4_0"]
    family.remove(locate.removal(ModelRef.parse(f"{MODEL}:Q4_0"), family))
    assert locate.removal(ModelRef.parse(f16.ref), family).orphans == ()


def test_making_it_anew_forgets_the_recipe(family: Registry, session: Session) -> None:
    assert dropped_all(family, named(family, "Q4_0")) == ["Q4_0"]
    list(verbs.quantize(REF, quant_types(["Q4_0"]), session))
    assert not dropped.path(family.home, MODEL, "Q4_0").exists()
    check(family.home, settled=True)


# ------------------------------------------------------------------ lineage


def test_the_lineage_of_a_quant_goes_up_to_the_checkpoint(family: Registry) -> None:
    f16, q4, source = named(family, "F16"), named(family, "Q4_0"), named(family, None)
    dropped_all(family, f16)
    found = Family(family).lineage([q4])
    assert {node.ref: node.known and node.known.state for node in found.nodes} == {
        source.ref: "here",
        f16.ref: "dropped",
        q4.ref: "here",
    }
    assert set(found.edges) == {(source.digest, f16.digest), (f16.digest, q4.digest)}
    both = Family(family).lineage([source])
    assert {node.ref for node in both.nodes} == {a.ref for a in (*family.artifacts(), f16)}


def test_variants_with_the_same_bytes_are_all_there(family: Registry, session: Session) -> None:
    """Each by its own name, in whatever order the registry has them."""
    specs = {"a": QuantizeSpec(), "z": QuantizeSpec(pure=True)}
    for name, spec in specs.items():
        list(verbs.quantize(REF, [QUANT_TYPES["Q4_0"]], session, spec=spec, name=name))
    one, other = named(family, "Q4_0"), named(family, "Q4_0-a")
    assert one.digest == other.digest
    for asked in (one, other):
        found = Family(family).lineage([asked])
        assert found.nodes[0].ref == asked.ref
        assert found.nodes[0].known is not None
        assert found.nodes[0].known.artifact == asked
    whole = Family(family).lineage([named(family, None)])
    assert {node.ref for node in whole.nodes} == {a.ref for a in family.artifacts()}
    assert len(whole.nodes) == 6


def test_a_source_that_was_replaced_is_no_parent_any_more(family: Registry, session: Session, tmp_path: Path) -> None:
    q4, f16 = named(family, "Q4_0"), named(family, "F16")
    other = factories.make_llama(tmp_path / "other" / "tiny-llama", n_layers=3)
    adopt.adopt(other, family, SILENT)
    node = Family(family).lineage([f16]).node(f16.provenance.parents[0])
    assert (node.ref, node.known, node.replaced) == (MODEL, None, True)
    (found,) = rederive([f16], session)
    assert found.why == f"{MODEL} ({f16.provenance.parents[0][:19]}) is not registered with these bytes"
    family.remove(family.plan_removal([named(family, None)]))
    node = Family(family).lineage([q4]).node(f16.provenance.parents[0])
    assert (node.ref, node.known, node.replaced) == (MODEL, None, False)


def test_manifests_that_name_each_other_as_parents_end_in_no_circle(family: Registry) -> None:
    q4, q8 = named(family, "Q4_0"), named(family, "Q8_0")
    for one, other in ((q4, q8), (q8, q4)):
        family.publish(replace(one, provenance=replace(one.provenance, parents=(other.digest,))))
    found = Family(family).lineage([named(family, "Q4_0")])
    assert len(found.nodes) == 2
    assert candidates([named(family, "Q4_0")], family, engine.build)


# ------------------------------------------------------------------ a source that changes


class Interfering:
    """A progress that lets another process change a file when a piece of work has begun."""

    def __init__(self, label: str, path: Path, code: str) -> None:
        self.label, self.path, self.code = label, path, code

    @contextmanager
    def task(self, label: str, total: int | None, unit: Unit, *, done: int = 0) -> Iterator[Task]:
        if label.startswith(self.label):
            subprocess.run([sys.executable, "-c", self.code, str(self.path)], check=True)
        with SILENT.task(label, total, unit, done=done) as task:
            yield task

    def say(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


CHANGES = {
    "another byte": "import sys; f = open(sys.argv[1], 'rb+'); f.seek(-9, 2); f.write(b'x')",
    "another file": "import sys, os; p = sys.argv[1]; d = open(p, 'rb').read(); open(p + '~', 'wb').write(d);"
    "os.replace(p + '~', p)",
    "cut short": "import sys, os; p = sys.argv[1]; os.truncate(p, os.path.getsize(p) // 2)",
    "gone": "import sys, os; os.unlink(sys.argv[1])",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_changes_while_it_is_converted(
    checkpoint: Path, session: Session, tmp_path: Path, change: str
) -> None:
    folder = shutil.copytree(checkpoint, tmp_path / "mine" / "tiny-llama")
    interfering = replace(session, progress=Interfering("convert", folder / "model.safetensors", CHANGES[change]))
    with pytest.raises(ChangedError, match="while it was read"):
        verbs.convert(ModelRef("path", str(folder)), interfering)
    assert session.registry.artifacts() == []
    check(session.registry.home, settled=True)


@pytest.mark.parametrize("change", CHANGES)
def test_a_gguf_that_changes_while_it_is_quantized(family: Registry, session: Session, change: str) -> None:
    source = named(family, "F16")
    interfering = replace(session, progress=Interfering("quantize", source.path, CHANGES[change]))
    with pytest.raises(ChangedError, match="while it was read"):
        list(verbs.quantize(ModelRef.parse(source.ref), quant_types(["Q5_1"]), interfering))
    assert family.find(MODEL, "Q5_1") is None


def test_an_adopted_file_that_changed_since(f16: Path, session: Session, tmp_path: Path) -> None:
    """In the same size, so that only its time gives it away."""
    mine = tmp_path / "mine-F16.gguf"
    shutil.copy(f16, mine)
    adopted = adopt.adopt(mine, session.registry, SILENT)
    long_ago = replace(adopted, created="2026-01-01T00:00:00+00:00")
    session.registry.publish(long_ago)
    ref = ModelRef.parse(adopted.ref)
    list(verbs.quantize(ref, quant_types(["Q4_0"]), session))  # written later, but the same bytes
    data = bytearray(mine.read_bytes())
    data[-9] ^= 1
    mine.write_bytes(data)
    with pytest.raises(ChangedError, match="since it was registered") as caught:
        list(verbs.quantize(ref, quant_types(["Q8_0"]), session))
    assert f"slmkit adopt {mine}" in (caught.value.hint or "")
