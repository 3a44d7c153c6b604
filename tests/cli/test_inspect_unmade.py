"""`slmkit inspect` of a checkpoint: what it would be, from headers, as it then is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slmkit.core.refs import ModelRef
from slmkit.ops.inspect import Inspection, inspect
from slmkit.recipes import foresight, verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.test_convert import files_of, reach
from tests.conftest import Run
from tests.hubserver import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def as_made(foreseen: Inspection, made: Path) -> Inspection:
    return replace(foreseen, path=made, checkpoint=None, remarks=())


@pytest.mark.parametrize("outtype", ["F16", "BF16"])
def test_it_is_what_converting_makes(tmp_path: Path, outtype: str, session: Session) -> None:
    """With the factors of RoPE, which are computed."""
    ref = ModelRef("path", str(factories.make_llama3(tmp_path / "three")))
    verbs.convert(ref, session, outtype="f32")
    model = ModelRef("hub", "local/three", variant=outtype)
    session.registry.publish(verbs.checkpoint(ref, session))
    foreseen = foresight.inspect(model, session)
    assert foreseen.path is None
    assert foreseen.attention.rope_factors == {"rope_freqs.weight": (1.0, 32.0)}
    made = verbs.convert(ref, session, outtype=outtype.lower())
    assert as_made(foreseen, made.path) == inspect(made.path) == foresight.inspect(model, session)


def test_a_folder_and_a_registered_checkpoint(checkpoint: Path, slmkit: Run) -> None:
    done = slmkit("inspect", checkpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{checkpoint}, as it would be converted"
    assert "F16 by metadata, F16 by name" in done.stdout
    assert f"hint: slmkit convert {checkpoint}" in done.stderr
    assert "never stop" in done.stderr  # the problems of its chat template
    slmkit("adopt", checkpoint)
    again = slmkit("inspect", "local/tiny-llama")
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]


def test_no_engine_is_needed(checkpoint: Path, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert foresight.inspect(ModelRef("path", str(checkpoint)), session).weights.claimed == "F16"


def test_a_hub_id_costs_headers_only(slmkit: Run, hub: HubServer, checkpoint: Path, registry: Registry) -> None:
    hub.add("org/tiny-llama", files_of(checkpoint))
    done = slmkit("inspect", "org/tiny-llama", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["path"], found["checkpoint"]) == (None, "org/tiny-llama")
    weights = (checkpoint / "model.safetensors").read_bytes()
    asked = [seen for seen in hub.log if seen.path.endswith(".safetensors") and seen.host == "storage"]
    assert sum(seen.sent_bytes for seen in asked) == 8 + int.from_bytes(weights[:8], "little")
    assert registry.artifacts() == []

    made = slmkit("convert", "org/tiny-llama", "--json", env=reach(hub))
    assert made.returncode == 0, made.stderr
    after = json.loads(slmkit("inspect", "org/tiny-llama", "--json").stdout)
    assert after["path"].endswith("tiny-llama-F16.gguf")
    assert {**after, "path": None, "checkpoint": "org/tiny-llama"} == found


def test_what_cannot_be_foreseen_says_so(slmkit: Run, tmp_path: Path, tiny: str) -> None:
    (tmp_path / "empty").mkdir()
    for ref, options, status in (
        ("org/nowhere", ("--no-pull",), 1),
        (tmp_path / "empty", (), 1),
        (tmp_path / "nothing", (), 2),
        (f"{tiny}:Q5_1", (), 1),  # only float types are converted to
        (tiny, (), 2),  # which of them?
    ):
        done = slmkit("inspect", ref, *options)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert "Traceback" not in done.stderr
        assert "hint: " in done.stderr
