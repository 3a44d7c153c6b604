"""Importance matrices in the registry, and what `quantize` does with them."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.imatrix import SETTLED_CHECKS, SETTLED_SHARE, Calibration, is_settled
from slmkit.core.progress import SILENT
from slmkit.core.quant import quant_types
from slmkit.core.quantize import ImatrixFile, QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.errors import ChangedError, DiskFullError, ImatrixNeededError, NotInRegistryError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.formats.imatrix import Imatrix, Importance, read, write
from slmkit.ops import corpora
from slmkit.ops.imatrix import ImatrixReport, imatrix, label
from slmkit.ops.imatrix_statistics import statistics
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.recipes.target import quantize_to_target
from slmkit.registry import imatrices, manifests, paths
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import collect_again, unchanged
from slmkit.registry.verify import verify
from tests.registry.test_crashes import killed_at

TEXT = Calibration("words.txt", corpora.corpus().text[:20_000])


def collect(source: Artifact, registry: Registry, n_chunks: int | None = 2, *, force: bool = False) -> ImatrixReport:
    return imatrix(source, TEXT, registry, SILENT, n_chunks=n_chunks, force=force, n_threads=2)


def quantized(source: Artifact, session: Session, types: str, imatrix: Path | Literal["auto"]) -> list[Artifact]:
    ref = ModelRef.parse(source.model)
    return [r.artifact for r in verbs.quantize(ref, quant_types([types]), session, imatrix=imatrix, n_threads=2)]


def test_it_is_registered_with_what_it_was_made_from(float_artifact: Artifact, registry: Registry) -> None:
    made = collect(float_artifact, registry).artifact
    assert made.path.parent == registry.home / "imatrix" / "local" / "tiny-llama"
    assert re.fullmatch(r"words-[0-9a-f]{8}\.gguf", made.path.name)
    assert made.provenance.parents == (float_artifact.digest,)
    assert made.provenance.parameters["text_sha256"] == hashlib.sha256(TEXT.text.encode()).hexdigest()
    assert (made.facts["n_chunks"], made.facts["reason"]) == (2, "chunks")
    assert verify(made, SILENT) == []
    assert read(made.path).datasets == ("words.txt",)
    assert imatrices.newest(registry, float_artifact) == made
    assert {p.suffix for p in made.path.parent.iterdir()} == {".gguf", ".json"}
    assert [a.variant for a in registry.artifacts()] == [None, "F16"][1:]  # it is no variant of the model


def test_what_is_there_is_not_collected_again(float_artifact: Artifact, registry: Registry) -> None:
    first = collect(float_artifact, registry)
    assert first.fresh
    assert not collect(float_artifact, registry).fresh
    assert collect(float_artifact, registry, 3).fresh  # more of the text
    assert collect(float_artifact, registry, 2).fresh
    forced = collect(float_artifact, registry, 2, force=True)
    assert forced.fresh
    assert forced.artifact.digest == first.artifact.digest
    forced.artifact.path.write_bytes(forced.artifact.path.read_bytes()[:-1])
    assert collect(float_artifact, registry, 2).fresh


def test_one_that_is_made_again_is_there_all_the_time(float_artifact: Artifact, registry: Registry) -> None:
    """Killed at whatever moment: the old one is there until the new one is."""
    before = collect(float_artifact, registry, 1).artifact
    step = 0
    while killed_at(step, lambda r: collect(float_artifact, r, 1, force=True), registry):
        found = imatrices.newest(registry, float_artifact)
        assert found is not None
        assert verify(found, SILENT) == []
        assert found.digest == before.digest
        step += 1
    assert step > 5


def test_a_text_that_ended_is_not_collected_again(float_artifact: Artifact, registry: Registry) -> None:
    short = Calibration("short.txt", TEXT.text[:3000])
    first = imatrix(float_artifact, short, registry, SILENT, n_threads=2)
    assert first.artifact.facts["reason"] == "text"
    most = first.artifact.facts["n_chunks"]
    assert not imatrix(float_artifact, short, registry, SILENT, n_chunks=most + 1).fresh
    assert imatrix(float_artifact, short, registry, SILENT, n_chunks=most - 1).fresh


def test_it_goes_with_the_last_of_its_model(tiny: str, registry: Registry) -> None:
    source = registry.find(tiny, "F16")
    assert source
    made = collect(source, registry).artifact
    kept = registry.plan_removal([source])
    assert kept.imatrix_dirs == ()
    registry.remove(kept)
    assert made.path.is_file()
    last = registry.plan_removal(registry.artifacts(tiny))
    assert last.imatrix_dirs == (made.root,)
    assert last.size_bytes > made.size_bytes
    registry.remove(last)
    assert not list((registry.home / "imatrix").iterdir())


def test_checkpoints_are_refused(float_artifact: Artifact, checkpoint: Path, registry: Registry) -> None:
    from slmkit.ops import adopt

    with pytest.raises(UsageError, match="is a checkpoint"):
        collect(adopt.describe(checkpoint, SILENT), registry)


def test_a_full_disk_says_so_and_leaves_nothing(float_artifact: Artifact, registry: Registry) -> None:
    code = (
        "from slmkit.core.imatrix import Calibration\n"
        "from slmkit.core.progress import SILENT\n"
        "from slmkit.errors import DiskFullError\n"
        "from slmkit.ops import corpora\n"
        "from slmkit.ops.imatrix import imatrix\n"
        "from slmkit.registry.store import Registry\n"
        "registry = Registry()\n"
        f"source = registry.find({float_artifact.model!r}, 'F16')\n"
        "try:\n"
        "    imatrix(source, corpora.corpus(), registry, SILENT, n_chunks=1, n_threads=1)\n"
        "except DiskFullError as error:\n"
        "    print(error)\n"
    )

    def small_files() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))

    command = [sys.executable, "-c", code]
    found = subprocess.run(command, preexec_fn=small_files, capture_output=True, text=True, timeout=120, check=False)
    assert "no space left" in found.stdout, found.stderr
    assert list(paths.imatrix_dir(registry.home, float_artifact.model).iterdir()) == []
    assert DiskFullError.code == "disk.full"


def test_auto_collects_once_and_is_a_parent(float_artifact: Artifact, session: Session) -> None:
    first = collect(float_artifact, session.registry).artifact
    (made,) = quantized(float_artifact, session, "IQ2_XXS", "auto")
    assert made.ref == "local/tiny-llama:IQ2_XXS-imatrix"
    assert made.provenance.parents == (float_artifact.digest, first.digest)
    assert made.provenance.parameters["imatrix"] == first.variant
    assert read_header(made.path).metadata["quantize.imatrix.file"] == first.path.name
    again = list(verbs.quantize(ModelRef.parse(made.model), quant_types(["IQ2_XXS"]), session, imatrix="auto"))
    assert not again[0].fresh
    second = collect(float_artifact, session.registry, 3, force=True).artifact  # the quant is made anew
    (other,) = quantized(float_artifact, session, "IQ2_XXS", "auto")
    assert other.provenance.parents == (float_artifact.digest, second.digest)
    assert other.digest != made.digest


def test_a_type_that_needs_one_says_so_before_any_work(float_artifact: Artifact, session: Session) -> None:
    failed: dict[str, str | None] = {}
    ref, types = ModelRef.parse(float_artifact.model), quant_types(["IQ1_S,Q4_0,Q2_K_S,IQ4_XS"])
    for report in verbs.quantize(ref, types, session, on_failure=lambda q, e: failed.update({q.name: e.hint})):
        assert set(failed) >= {"IQ1_S"}, report
    assert set(failed) == {"IQ1_S", "Q2_K_S"}
    assert "--imatrix auto" in (failed["IQ1_S"] or "")
    with pytest.raises(ImatrixNeededError):
        list(verbs.quantize(ref, quant_types(["IQ1_S"]), session))


def test_float_types_do_without(float_artifact: Artifact, session: Session) -> None:
    (made,) = quantized(float_artifact, session, "F16", "auto")
    assert made == float_artifact
    assert not imatrices.every(session.registry, float_artifact.model)


def test_one_of_another_model_is_refused(float_artifact: Artifact, session: Session, tmp_path: Path) -> None:
    def with_entry(name: str, n_columns: int) -> Path:
        path = tmp_path / "other.gguf"
        write(path, Imatrix({name: Importance(np.ones((1, n_columns), np.float32), np.array([1]))}, (), 1, 512))
        return path

    with pytest.raises(UsageError, match="has 128 columns in it, not 256"):
        quantized(float_artifact, session, "Q4_0", with_entry("blk.0.attn_q.weight", 128))
    with pytest.raises(UsageError, match="none of the 14 matrices"):
        quantized(float_artifact, session, "Q4_0", with_entry("blk.9.attn_q.weight", 256))
    with pytest.raises(UsageError, match="no such file"):
        quantized(float_artifact, session, "Q4_0", tmp_path / "missing.gguf")
    (made,) = quantized(float_artifact, session, "Q4_K_M", with_entry("blk.0.attn_q.weight", 256))
    assert made.provenance.parameters["imatrix"] == "other.gguf"


def test_the_corpora_are_what_their_page_says() -> None:
    folder = resources.files("slmkit") / "data" / "corpora"
    page = (folder / "README.md").read_text(encoding="utf-8")
    for name in corpora.names():
        data = (folder / f"{name}.txt").read_bytes()
        row = re.search(rf"\| `{name}\.txt` \| (\d+) \| `([0-9a-f]{{64}})` \|", page)
        assert row, name
        assert (int(row[1]), row[2]) == (len(data), hashlib.sha256(data).hexdigest())
    assert corpora.DEFAULT in corpora.names()
    with pytest.raises(UsageError, match="no corpus 'nothing'"):
        corpora.corpus("nothing")


def test_texts_have_names_of_their_own(tmp_path: Path) -> None:
    assert label(corpora.corpus("mixed")) == "mixed"
    assert label(Calibration("mixed", "another")) != "mixed"
    assert label(Calibration("../my text.v2.txt", "x")) == f"my_text.v2-{hashlib.sha256(b'x').hexdigest()[:8]}"
    assert label(Calibration("…", "x")).startswith(("_-", "text-"))
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8 text: byte 0"):
        corpora.text_file(path)
    with pytest.raises(UsageError, match="cannot read"):
        corpora.text_file(tmp_path / "missing.txt")


def test_settled_means_several_times_in_a_row() -> None:
    little, much = SETTLED_SHARE / 2, SETTLED_SHARE
    assert is_settled([1.0] + [little] * SETTLED_CHECKS)
    assert not is_settled([little] * (SETTLED_CHECKS - 1))
    assert not is_settled([little] * SETTLED_CHECKS + [much])


def test_statistics_of_known_numbers() -> None:
    one = Importance(np.array([[4.0, 0.0, 4.0, 8.0]], np.float32), np.array([4]))
    two = Importance(np.array([[0.0, 4.0], [9.0, 9.0]], np.float32), np.array([2, 0]))
    first, last, experts = statistics(
        Imatrix({"blk.1.ffn_up.weight": one, "blk.0.ffn_up.weight": one, "blk.0.ffn_up_exps.weight": two}, (), 1, 512)
    )
    assert (first.layer, last.layer) == (1, 0)
    assert (first.total, first.minimum, first.maximum, first.mean) == (4, 0, 2, 1)
    assert (first.active, first.entropy, first.entropy_share, first.z_share) == (0.75, 1.5, 0.75, 0.25)
    assert first.deviation == pytest.approx(0.5**0.5)
    assert first.cosine == pytest.approx(1)
    assert last.cosine is None
    assert (experts.n_columns, experts.total) == (2, 2)  # the expert that was never asked is left out


def test_there_is_nothing_to_show_of_what_was_not_collected(float_artifact: Artifact, session: Session) -> None:
    with pytest.raises(NotInRegistryError, match="no importance matrix of local/tiny-llama"):
        verbs.imatrix_statistics(ModelRef.parse(float_artifact.model), session)


@pytest.mark.parametrize(
    ("kind", "spec", "with_imatrix", "what"),
    [
        ("Q4_0", QuantizeSpec(output_type="IQ2_XXS"), False, r"output\.weight .*`--output-type IQ2_XXS`"),
        ("Q4_0", QuantizeSpec(output_type="IQ1_S"), True, r"output\.weight .*`--output-type IQ1_S`"),
        ("Q4_0", QuantizeSpec(embedding_type="IQ2_XXS"), True, r"token_embd\.weight .*`--embedding-type IQ2_XXS`"),
        ("IQ2_XXS", QuantizeSpec(pure=True), True, r"(output|token_embd)\.weight .*IQ2_XXS, as `--pure`"),
        ("Q4_0", QuantizeSpec(rules=(Rule("ffn_down", "IQ2_XXS"),)), False, r"ffn_down.* IQ2_XXS, as `--rule 'ffn_d"),
        ("Q8_0", QuantizeSpec(output_type="IQ2_XS", prune_layers=(0,)), True, r"output\.weight .*IQ2_XS"),
    ],
)
def test_what_would_crash_the_engine_for_want_of_importance_is_refused(
    float_artifact: Artifact, session: Session, kind: str, spec: QuantizeSpec, with_imatrix: bool, what: str
) -> None:
    """The engine's own check leaves out output and embedding, its kernels do not."""
    if with_imatrix:
        collect(float_artifact, session.registry)
    before = session.registry.artifacts()
    imatrix_option: Literal["auto"] | None = "auto" if with_imatrix else None
    ref = ModelRef.parse(float_artifact.model)
    with pytest.raises(ImatrixNeededError, match=what):
        list(verbs.quantize(ref, quant_types([kind]), session, spec=spec, imatrix=imatrix_option))
    assert session.registry.artifacts() == before


def test_layers_that_are_counted_anew_keep_their_importance(float_artifact: Artifact, session: Session) -> None:
    collect(float_artifact, session.registry)
    spec = QuantizeSpec(prune_layers=(0,))
    ref = ModelRef.parse(float_artifact.model)
    (made,) = verbs.quantize(ref, quant_types(["IQ2_XXS"]), session, spec=spec, imatrix="auto")
    assert read_header(made.artifact.path).hyper("block_count") == 1


def test_a_source_that_has_changed_is_refused(float_artifact: Artifact, registry: Registry) -> None:
    raw = bytearray(float_artifact.path.read_bytes())
    raw[-1] ^= 1
    float_artifact.path.write_bytes(raw)
    os.utime(float_artifact.path, (2e9, 2e9))
    with pytest.raises(ChangedError, match="has changed since it was registered"):
        collect(float_artifact, registry)
    assert imatrices.all_of(registry) == []
    assert not any(path.is_file() for path in (registry.home / "imatrix").rglob("*"))


def test_one_that_has_changed_is_not_quantized_with(float_artifact: Artifact, session: Session) -> None:
    """Its digest is what a manifest names as parent."""
    registry = session.registry
    made = collect(float_artifact, registry).artifact
    before = registry.artifacts()
    data = bytearray(made.path.read_bytes())
    data[-9] ^= 1
    made.path.write_bytes(data)
    ref = ModelRef.parse(float_artifact.model)
    with pytest.raises(ChangedError, match=rf"importance matrix '{made.variant}' has changed since") as caught:
        quantized(float_artifact, session, "Q2_K", "auto")
    assert caught.value.hint == f"collect it again: `slmkit imatrix {float_artifact.ref} --text FILE --force`"
    with pytest.raises(ChangedError, match="has changed since it was registered"):
        quantize_to_target(ref, TargetSpec("bpw", 5), session, imatrix="auto")
    assert registry.artifacts() == before
    assert not any((registry.home / "distortion").glob("*"))
    collect(float_artifact, registry, force=True)
    assert quantized(float_artifact, session, "Q2_K", "auto")


def test_the_hint_names_what_it_was_collected_on(float_artifact: Artifact) -> None:
    assert collect_again("a/b:F16", "mixed") == "collect it again: `slmkit imatrix a/b:F16 --corpus mixed --force`"
    assert "--corpus mixed " in collect_again("a/b:Q4_0-lean", "mixed-of-Q4_0-lean")
    for name in (label(TEXT), f"{label(TEXT)}-of-Q4_0"):
        assert "--text FILE" in collect_again("a/b:F16", name)
    assert all(f"--corpus {name} " in collect_again("a/b:F16", name) for name in corpora.names())


def test_one_that_changes_while_it_is_read(float_artifact: Artifact, session: Session, tmp_path: Path) -> None:
    made = collect(float_artifact, session.registry).artifact
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(made.path.read_bytes())
    file = ImatrixFile(mine.name, mine, made.digest)
    with pytest.raises(ChangedError, match=r"importance matrix 'mine\.gguf' has changed while"):  # noqa: SIM117
        with unchanged(float_artifact, file):
            mine.write_bytes(made.path.read_bytes())
    with pytest.raises(ChangedError, match=r"importance matrix 'mine\.gguf' has changed while"):  # noqa: SIM117
        with unchanged(float_artifact, file):
            mine.unlink()
            raise UsageError("that it led to")


def test_one_that_files_were_made_with_is_replaced_by_force_only(float_artifact: Artifact, session: Session) -> None:
    registry = session.registry
    first = collect(float_artifact, registry, 1).artifact
    (made,) = quantized(float_artifact, session, "IQ3_XXS", "auto")
    for _ in ("here", "dropped"):
        with pytest.raises(
            UsageError, match=rf"{made.ref} was made with .* \(1 chunk\) that is here, and could"
        ) as caught:
            collect(float_artifact, registry, 2)
        assert caught.value.hint == "replace it all the same: `slmkit imatrix` with `--force`"
        assert imatrices.newest(registry, float_artifact) == first
        assert verify(first, SILENT) == []
        assert not collect(float_artifact, registry, 1).fresh
        if registry.find(made.model, made.variant):
            registry.drop(made)
    assert collect(float_artifact, registry, 2, force=True).artifact.digest != first.digest
    assert collect(float_artifact, registry, 3).fresh, "nothing can be made with it that was"


def test_one_of_another_file_of_the_model_has_a_name_of_its_own(float_artifact: Artifact, session: Session) -> None:
    registry = session.registry
    first = collect(float_artifact, registry).artifact
    (q8,) = [r.artifact for r in verbs.quantize(ModelRef.parse(float_artifact.ref), quant_types(["Q8_0"]), session)]
    other = collect(q8, registry).artifact
    assert (first.variant, other.variant) == (label(TEXT), f"{label(TEXT)}-of-Q8_0")
    assert not collect(q8, registry).fresh
    assert not collect(float_artifact, registry).fresh
    assert imatrices.newest(registry, float_artifact) == first
    assert imatrices.newest(registry, q8) == other
    (made,) = quantized(float_artifact, session, "Q4_0", "auto")
    assert first.digest in made.provenance.parents
    registry.remove(registry.plan_removal([q8]))
    assert not collect(float_artifact, registry).fresh


def test_one_of_a_file_that_is_no_more_gives_its_name_up(float_artifact: Artifact, registry: Registry) -> None:
    first = collect(float_artifact, registry).artifact
    stale = replace(first, provenance=replace(first.provenance, parents=("sha256:" + 64 * "0",)))
    manifests.write(imatrices.place(registry, first.model, label(TEXT)).manifest, stale)
    again = collect(float_artifact, registry)
    assert (again.fresh, again.artifact.variant) == (True, first.variant)
