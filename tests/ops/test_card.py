"""What a card is gathered from: the model's own files, manifests, and nothing of this machine."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.artifact import Artifact, Provenance
from slmkit.core.card import Card, License
from slmkit.core.progress import SILENT
from slmkit.core.quant import quant_types
from slmkit.core.quantize import QuantizeSpec, Rule
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import adopt, compare
from slmkit.ops.card import card
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.report.card import card_markdown


def card_of(artifacts: list[Artifact], session: Session, **options: str) -> Card:
    return card(artifacts, compare.compare(artifacts, session.registry), session.registry, **options)


@pytest.fixture
def model(checkpoint: Path, tmp_path: Path, session: Session) -> list[Artifact]:
    """F16, and a Q4_0 that is not made by the defaults, of a checkpoint that is registered and may be changed."""
    folder = shutil.copytree(checkpoint, tmp_path / "tiny-llama")
    found = adopt.adopt(folder, session.registry, SILENT)
    float_file = verbs.convert(ModelRef.parse(found.model), session)
    spec = QuantizeSpec(rules=(Rule("ffn_down", "Q6_K"),))
    (report,) = verbs.quantize(ModelRef.parse(found.model), quant_types(["Q4_0"]), session, spec=spec, name="mine")
    return [float_file, report.artifact]


def test_the_licence_is_that_of_the_models_card_then_its_config_then_the_gguf(
    model: list[Artifact], session: Session, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-llama"
    assert card_of(model, session).license == License("cc0-1.0", "the model's card")
    assert card_of(model, session, license_id="mit").license == License("mit", "who publishes these files")
    own = "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n"
    (folder / "README.md").write_text(own, encoding="utf-8")
    assert card_of(model, session).license == License("other", "the model's card", "mine", None)
    (folder / "README.md").unlink()
    assert card_of(model, session).license == License("cc0-1.0", "the metadata of the GGUF")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "license": "mit"}), encoding="utf-8")
    assert card_of(model, session).license == License("mit", "the model's config.json")


def test_the_source_is_where_the_model_was_pulled_from(model: list[Artifact], session: Session) -> None:
    found = card_of(model, session)
    assert (found.source, found.commit) == (None, None)
    assert any(remark.startswith("base_model is left out") for remark in found.remarks)
    checkpoint = session.registry.find(model[0].model, None)
    assert checkpoint
    pulled = replace(checkpoint, provenance=Provenance("pull", repo="org/tiny", commit="c" * 40))
    with session.registry.locked(pulled.model, SILENT):
        session.registry.publish(pulled)
    found = card_of(model, session)
    assert (found.source, found.commit) == ("org/tiny", "c" * 40)
    text = card_markdown(found)
    assert "base_model: org/tiny\nbase_model_relation: quantized\n" in text
    assert "huggingface.co/org/tiny/tree/" + "c" * 40 in text


def test_files_say_how_they_were_made_and_nothing_of_this_machine(
    model: list[Artifact], session: Session, tmp_path: Path
) -> None:
    found = card_of(model, session)
    float_file, quant = found.files
    assert (float_file.action, float_file.source) == ("convert", None)
    assert (quant.variant, quant.source, quant.settings[0]) == ("Q4_0-mine", "F16", "1 rules for tensors")
    text = card_markdown(found)
    assert model[1].files[0].sha256 in text
    assert "llama-cpp-python" in text
    assert str(tmp_path) not in text
    assert "quantized_by" not in text


def test_one_model_and_a_repository(model: list[Artifact], session: Session) -> None:
    other = replace(model[0], model="local/other")
    with pytest.raises(UsageError, match="a card is of one model: local/tiny-llama, local/other"):
        card_of([*model, other], session)
    with pytest.raises(UsageError, match="not a name of a repository"):
        card_of(model, session, repo="me")
    assert card_of(model, session, repo="me/tiny-GGUF").repo == "me/tiny-GGUF"
