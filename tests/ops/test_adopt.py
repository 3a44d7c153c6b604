from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slmkit.core.convert import ConvertSpec
from slmkit.core.progress import SILENT
from slmkit.core.quant import quant_types
from slmkit.core.refs import ModelRef
from slmkit.errors import FormatError, GgufError, NotInRegistryError, UsageError
from slmkit.ops.adopt import adopt, local_model
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry


def test_a_checkpoint_is_linked_not_copied(checkpoint: Path, session: Session) -> None:
    registry = session.registry
    artifact = adopt(checkpoint, registry, SILENT)
    assert artifact.ref == "local/tiny-llama"
    assert artifact.root == checkpoint
    assert {f.name for f in artifact.files} == {p.name for p in checkpoint.iterdir()}
    assert not list(registry.home.rglob("*.safetensors"))
    assert registry.find("local/tiny-llama", None) == artifact
    assert verbs.convert(ModelRef.parse("local/tiny-llama"), session).provenance.parents == (artifact.digest,)


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("tiny-llama-F16.gguf", "local/tiny-llama:F16"),
        ("Tiny.Llama.f16.gguf", "local/Tiny.Llama:F16"),
        ("my model (2).gguf", "local/my-model-2:F16"),  # the type is in the header
        ("Phi-3.5-mini-instruct-Q4_K_M.gguf", "local/Phi-3.5-mini-instruct:Q4_K_M"),
        ("gemma-3-270m-it-UD-Q4_K_XL.gguf", "local/gemma-3-270m-it-UD-Q4_K_XL:F16"),  # no type of llama.cpp's
        ("model-f16.gguf", "local/model:F16"),
        ("model_q8_0.gguf", "local/model:Q8_0"),
        ("x-Q4_K_M-imatrix.gguf", "local/x:Q4_K_M-imatrix"),  # as slmkit names what has a label
        ("llama3-Q4_0-pure-output-Q8_0.gguf", "local/llama3:Q4_0-pure-output-Q8_0"),
        ("x-Q4_0-embedding-Q5_0-imatrix.gguf", "local/x:Q4_0-embedding-Q5_0-imatrix"),
        ("x-Q4_0-rules-83da01.gguf", "local/x:Q4_0-rules-83da01"),
        ("x-F16-Q4_0.gguf", "local/x-F16:Q4_0"),  # made of F16, as others name it
        ("x-F16-merged-Q4_0.gguf", "local/x-F16-merged:Q4_0"),
        ("x-F16-Q4_0-lean.gguf", "local/x-F16:Q4_0-lean"),
        ("my-output-Q8_0.gguf", "local/my-output:Q8_0"),
        ("llama-q4_0-chat.gguf", "local/llama-q4_0-chat:F16"),
        ("x-Q4_K_M.gguf", "local/x:Q4_K_M"),  # a name is believed: Q4_K_M is a mix that no header shows
    ],
)
def test_the_name_of_a_gguf_gives_model_and_variant(
    f16: Path, tmp_path: Path, session: Session, name: str, ref: str
) -> None:
    path = tmp_path / name
    path.symlink_to(f16)
    artifact = adopt(path, session.registry, SILENT)
    assert artifact.ref == ref
    assert artifact.path == path
    assert artifact.facts["architecture"] == "llama"
    assert ModelRef.parse(artifact.ref).model == artifact.model


def test_a_labelled_variant_that_was_adopted_is_as_good_as_any(f16: Path, tmp_path: Path, session: Session) -> None:
    path = tmp_path / "x-F16-lean.gguf"
    path.symlink_to(f16)
    adopted = adopt(path, session.registry, SILENT)
    assert session.registry.find("local/x", "F16-lean") == adopted
    (made,) = verbs.quantize(ModelRef.parse(adopted.ref), quant_types(["Q4_0"]), session)
    assert made.artifact.ref == "local/x:Q4_0-lean"
    (again,) = verbs.quantize(ModelRef("path", str(path)), quant_types(["Q4_0"]), session)
    assert not again.fresh


def test_shards_are_named_by_what_they_have_in_common(checkpoint: Path, tmp_path: Path, session: Session) -> None:
    ref, spec = ModelRef("path", str(checkpoint)), ConvertSpec(split_max_bytes=1_000_000)
    split = verbs.convert(ref, session, spec=spec)
    for i, file in enumerate(split.files, 1):
        (tmp_path / f"x-F16-lean-{i:05d}-of-{len(split.files):05d}.gguf").symlink_to(split.root / file.name)
    adopted = adopt(next(tmp_path.glob("x-F16-lean-00001*")), session.registry, SILENT)
    assert (adopted.ref, len(adopted.files)) == ("local/x:F16-lean", len(split.files))


def test_removing_an_adopted_file_leaves_it(f16: Path, registry: Registry) -> None:
    artifact = adopt(f16, registry, SILENT)
    registry.remove(registry.plan_removal([artifact]))
    assert f16.exists()
    assert registry.artifacts() == []


def test_what_cannot_be_adopted_says_why(f16: Path, checkpoint: Path, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(UsageError, match="no such file"):
        adopt(tmp_path / "nothing", registry, SILENT)
    with pytest.raises(UsageError, match=r"no config\.json"):
        adopt(tmp_path, registry, SILENT)
    text = tmp_path / "x.txt"
    text.touch()
    with pytest.raises(UsageError, match="neither"):
        adopt(text, registry, SILENT)
    pickled = tmp_path / "pickled"
    shutil.copytree(checkpoint, pickled, ignore=shutil.ignore_patterns("*.safetensors"))
    (pickled / "pytorch_model.bin").touch()
    with pytest.raises(FormatError) as caught:
        adopt(pickled, registry, SILENT)
    assert "unsafe" in (caught.value.hint or "")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(f16.read_bytes()[:-1])
    with pytest.raises(GgufError, match="cut short"):
        adopt(cut, registry, SILENT)
    assert registry.artifacts() == []


@pytest.mark.parametrize("name", ["a", "..", "ü ö", "a--b", "x" * 200, "-.-", "a/b"])
def test_every_local_name_is_a_valid_reference(name: str) -> None:
    model = local_model(name)
    assert str(ModelRef.parse(model)) == model


def test_a_checkpoint_whose_files_are_gone_is_not_here(checkpoint: Path, tmp_path: Path, session: Session) -> None:
    """The Hugging Face cache and the user's folders are cleaned by others: a manifest alone is no model."""
    copy = tmp_path / "gone"
    shutil.copytree(checkpoint, copy)
    adopt(copy, session.registry, SILENT)
    shutil.rmtree(copy)
    with pytest.raises(NotInRegistryError):
        verbs.convert(ModelRef.parse("local/gone"), session)
