"""A float file that was dropped is not made again for what is here already."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.convert import ConvertSpec
from slmkit.core.imatrix import Calibration
from slmkit.core.quant import quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.core.target import TargetSpec
from slmkit.ops import adopt, corpora
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.recipes.target import quantize_to_target
from slmkit.registry import atomic
from slmkit.registry.store import Registry
from tests import factories
from tests.conftest import Run

MODEL = "local/tiny-llama"


@pytest.fixture
def ref(checkpoint: Path) -> ModelRef:
    return ModelRef("path", str(checkpoint))


def drop_f16(registry: Registry) -> Artifact:
    found = registry.find(MODEL, "F16")
    assert found
    with registry.locked(MODEL):
        registry.drop(found)
    return found


def is_dropped(registry: Registry) -> bool:
    return registry.find(MODEL, "F16") is None


def test_types_that_are_here_need_no_source(ref: ModelRef, session: Session) -> None:
    types = quant_types(["Q8_0,Q4_0"])
    first = [report.artifact for report in verbs.quantize(ref, types, session)]
    source = drop_f16(session.registry)
    for one in (ref, ModelRef.parse(MODEL)):
        again = list(verbs.quantize(one, types, session))
        assert [(r.artifact, r.fresh, r.source) for r in again] == [(a, False, source) for a in first]
        assert again[0].reduction == 1 - first[0].size_bytes / source.size_bytes
    assert is_dropped(session.registry)


def test_what_is_missing_or_asked_for_otherwise_needs_it(ref: ModelRef, session: Session) -> None:
    list(verbs.quantize(ref, quant_types(["Q4_0"]), session))
    for types, options in (
        ("Q4_0,Q8_0", {}),
        ("Q4_0,F16", {}),
        ("Q4_0", {"force": True}),
        ("Q4_0", {"strict_share": 1.0}),
        ("Q4_0", {"spec": QuantizeSpec(pure=True)}),
        ("Q4_0", {"convert_spec": ConvertSpec(split_max_bytes=10**6)}),
    ):
        drop_f16(session.registry)
        list(verbs.quantize(ref, quant_types([types]), session, **options))
        assert not is_dropped(session.registry), (types, options)


def test_another_checkpoint_of_the_name_needs_its_own(tmp_path: Path, session: Session) -> None:
    folder = factories.make_llama(tmp_path / "tiny-llama", n_layers=1)
    list(verbs.quantize(ModelRef("path", str(folder)), quant_types(["Q4_0"]), session))
    drop_f16(session.registry)
    other = factories.make_llama(tmp_path / "other" / "tiny-llama", n_layers=2)
    (report,) = verbs.quantize(ModelRef("path", str(other)), quant_types(["Q4_0"]), session)
    assert report.fresh


def test_with_an_importance_matrix(ref: ModelRef, session: Session) -> None:
    text = Calibration("words.txt", corpora.corpus().text[:20_000])
    verbs.imatrix(ref, text, session, n_chunks=1)
    (made,) = verbs.quantize(ref, quant_types(["Q4_0"]), session, imatrix="auto")
    drop_f16(session.registry)
    (again,) = verbs.quantize(ref, quant_types(["Q4_0"]), session, imatrix="auto")
    assert (again.artifact, again.fresh) == (made.artifact, False)
    assert is_dropped(session.registry)


def test_a_mix(ref: ModelRef, session: Session) -> None:
    target = TargetSpec("bpw", 6)
    made = quantize_to_target(ref, target, session)
    drop_f16(session.registry)
    again = quantize_to_target(ref, target, session)
    assert (again.artifact, again.fresh) == (made.artifact, False)
    assert is_dropped(session.registry)
    assert quantize_to_target(ref, TargetSpec("bpw", 7), session).fresh
    assert not is_dropped(session.registry)


def test_the_program_says_that_it_is_there(ref: ModelRef, slmkit: Run, registry: Registry) -> None:
    assert slmkit("quantize", ref.name, "-t", "Q4_0").returncode == 0
    drop_f16(registry)
    done = slmkit("quantize", ref.name, "-t", "Q4_0")
    assert done.returncode == 0, done.stderr
    assert "there already" in done.stdout
    assert "converting it first" not in done.stderr
    assert is_dropped(registry)


def test_a_file_that_is_named_by_its_path_is_read_once_for_its_digest(
    f16: Path, tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "elsewhere-F16.gguf"
    path.symlink_to(f16)
    hashed: list[Path] = []

    def sha256(path: Path) -> str:
        hashed.append(path)
        return atomic.sha256(path)

    monkeypatch.setattr(adopt, "sha256", sha256)
    (report,) = verbs.quantize(ModelRef("path", str(path)), quant_types(["Q4_0"]), session)
    assert report.fresh
    assert hashed == [path]
