"""A tensor that is out of order is found in every type; an honest quant is never taken for one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.divergence import BROKEN, scores, verdict
from slmkit.core.progress import SILENT
from slmkit.core.quality import Corpus, QualityRun, QualitySpec, Text
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.formats.gguf.model import StoredTensor, open_model
from slmkit.ops import corpora
from slmkit.ops.adopt import adopt
from slmkit.ops.quality import quality
from slmkit.ops.quality.likeness import foreign_tensor
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories

EVERY = [
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K_S",
    "Q4_K_M",
    "Q5_K_S",
    "Q6_K",
    "IQ1_S",
    "IQ1_M",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ2_M",
    "IQ3_XXS",
    "IQ3_S",
    "IQ4_NL",
    "IQ4_XS",
    "TQ1_0",
    "TQ2_0",
]
"""Of each ggml type a file; newer ones (Q1_0) the gguf package does not turn into floats."""
SOME = ["Q8_0", "Q4_0", "Q4_K_M", "IQ2_XXS", "TQ2_0"]
BY_ROWS = ["blk.0.attn_k.weight", "blk.1.ffn_down.weight", "token_embd.weight", "output.weight"]
CORPUS = Corpus("text", (Text("text", corpora.corpus().text[:14_000]),))


@pytest.fixture(scope="module")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The tiny model in every type that there is, F32 the base."""
    session = Session(Registry(tmp_path_factory.mktemp("every")), SILENT, may_pull=False, offline=True)
    base = verbs.convert(ModelRef("path", str(checkpoint)), session, outtype="f32")
    return made_of(base, EVERY, session)


def made_of(base: Artifact, types: Sequence[str], session: Session) -> dict[str, Artifact]:
    """Those of `types` that can be made, by name, and `base`; with an importance matrix of two chunks."""
    ref = ModelRef.parse(base.ref)
    verbs.imatrix(ref, corpora.corpus(), session, n_chunks=2)
    kinds = [QUANT_TYPES[name] for name in types if name != base.variant]
    reports = verbs.quantize(ref, kinds, session, imatrix="auto", on_failure=lambda *_: None)
    return {str(base.variant): base, **{report.quant.name: report.artifact for report in reports}}


def tensor(path: Path, name: str) -> StoredTensor:
    return next(each for each in open_model(path).tensors if each.name == name)


def overwrite(path: Path, name: str, data: bytes) -> None:
    found = tensor(path, name)
    assert len(data) == found.info.size_bytes
    with path.open("r+b") as file:
        file.seek(found.header.data_offset + found.info.offset)
        file.write(data)


def shuffle(path: Path, name: str, *, element_bytes: int | None = None) -> None:
    """The rows of a tensor in another order, or what is so many bytes long."""
    found = tensor(path, name)
    length = element_bytes or found.info.type.size_bytes(found.info.shape[0])
    parts = np.frombuffer(found.read(0, found.info.size_bytes), np.uint8).reshape(-1, length)
    overwrite(path, name, np.random.default_rng(0).permutation(parts).tobytes())


def copy(artifact: Artifact, folder: Path) -> Path:
    return Path(shutil.copy(artifact.path, folder / "copy.gguf"))


@pytest.mark.parametrize("kind", EVERY)
def test_no_type_is_taken_for_damage_and_shuffled_rows_are_found_in_each(
    files: dict[str, Artifact], tmp_path: Path, kind: str
) -> None:
    base = files["F32"].path
    assert foreign_tensor(base, files[kind].path) is None
    for name in BY_ROWS:
        path = copy(files[kind], tmp_path)
        shuffle(path, name)
        found = foreign_tensor(base, path)
        assert found is not None
        assert found.startswith(f"{name} is damaged")


def test_shuffled_weights_are_found(files: dict[str, Artifact], session: Session, tmp_path: Path) -> None:
    path = tmp_path / "shuffled-F32.gguf"
    shutil.copy(files["F32"].path, path)
    shuffle(path, "blk.1.attn_q.weight", element_bytes=4)
    made = made_of(adopt(path, session.registry, SILENT), SOME, session)
    assert set(made) == {"F32", *SOME}
    for artifact in made.values():
        found = foreign_tensor(files["F32"].path, artifact.path)
        assert found is not None
        assert found.startswith("blk.1.attn_q.weight is damaged")


@pytest.mark.parametrize("kind", ["F16", "Q4_0"])
def test_shuffled_norms_and_numbers_that_are_none_are_found(
    files: dict[str, Artifact], tmp_path: Path, kind: str
) -> None:
    path = copy(files[kind], tmp_path)
    shuffle(path, "blk.0.ffn_norm.weight", element_bytes=4)
    assert str(foreign_tensor(files["F32"].path, path)).startswith("blk.0.ffn_norm.weight is damaged")
    path = copy(files[kind], tmp_path)
    overwrite(path, "output_norm.weight", np.full(256, np.nan, np.float32).tobytes())
    assert str(foreign_tensor(files["F32"].path, path)).startswith("output_norm.weight is damaged")


def test_a_model_of_other_weights_is_found(files: dict[str, Artifact], session: Session, tmp_path: Path) -> None:
    other = factories.make_llama(tmp_path / "other")
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[:-400_000] + weights[-800_000:-400_000])
    path = verbs.convert(ModelRef("path", str(other)), session).path
    assert foreign_tensor(files["F32"].path, path) is not None


def test_rows_that_are_alike_or_zero_are_no_damage(
    files: dict[str, Artifact], session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "alike-F32.gguf"
    shutil.copy(files["F32"].path, path)
    row = np.random.default_rng(0).standard_normal(256, np.float32)
    overwrite(path, "blk.0.attn_k.weight", np.tile(row, 128).tobytes())
    overwrite(path, "blk.1.attn_v.weight", bytes(4 * 256 * 128))
    source = adopt(path, session.registry, SILENT)
    for report in verbs.quantize(ModelRef.parse(source.ref), quant_types(["Q8_0,Q4_0,Q4_K_M,TQ2_0"]), session):
        assert foreign_tensor(path, report.artifact.path) is None


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_pruned_layers_are_no_damage(files: dict[str, Artifact], session: Session, tmp_path: Path, kind: str) -> None:
    base = adopt(files["F32"].path, session.registry, SILENT)
    spec = QuantizeSpec(prune_layers=(0,))
    (report,) = verbs.quantize(ModelRef.parse(base.ref), quant_types([kind]), session, spec=spec)
    assert foreign_tensor(base.path, report.artifact.path) is None
    path = tmp_path / f"brought-{kind}.gguf"
    shutil.copy(report.artifact.path, path)
    assert judged(base, adopt(path, session.registry, SILENT), session).rows[1].defect is None


def judged(base: Artifact, artifact: Artifact, session: Session) -> QualityRun:
    spec = QualitySpec(n_ctx=64, n_chunks=4, n_threads=1)
    return quality(base, [artifact], CORPUS, spec, session.registry, SILENT)


def test_quality_calls_it_broken_though_its_scores_do_not_tell(
    files: dict[str, Artifact], session: Session, tmp_path: Path
) -> None:
    base = adopt(files["F32"].path, session.registry, SILENT)
    path = tmp_path / "brought-Q4_0.gguf"
    shutil.copy(files["Q4_0"].path, path)
    _, honest = judged(base, adopt(path, session.registry, SILENT), session).rows
    assert honest.defect is None
    shuffle(path, "blk.1.attn_k.weight")
    reference, row = judged(base, adopt(path, session.registry, SILENT), session).rows
    found = scores(row, reference)
    assert found is not None
    assert found.kld is not None
    assert found.kld.value < 0.5
    assert str(row.defect).startswith("blk.1.attn_k.weight is damaged")
    assert verdict(row, found) == BROKEN
