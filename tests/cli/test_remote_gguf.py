"""`slmkit plan` and `slmkit inspect` of GGUFs that are only on the Hub: from their headers, as of a local file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES
from slmkit.core.refs import ModelRef
from slmkit.formats.gguf.hollow import read_hollow
from slmkit.formats.gguf.writer import string
from slmkit.hub.hollows import FIRST_BYTES
from slmkit.ops.split import split
from slmkit.recipes import foresight, verbs
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry
from tests import factories
from tests.cli.test_convert import files_of, reach
from tests.cli.test_plan import without_measured
from tests.conftest import Run
from tests.hubserver import HubServer

REPO = "org/x-GGUF"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def q4_0(f16: Path, tmp_path: Path) -> Path:
    """A quant with a header of more than 1 MiB."""
    session = Session(Registry(tmp_path / "made"), SILENT, may_pull=False, offline=True)
    (made,) = verbs.quantize(ModelRef("path", str(f16)), [QUANT_TYPES["Q4_0"]], session)
    hollow = read_hollow(made.artifact.path)
    path = tmp_path / "x-Q4_0.gguf"
    type(hollow)({**hollow.metadata, "general.description": string("x" * FIRST_BYTES)}, hollow.entries).write(path)
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + (4 << 20))  # only to be larger than what is asked for
    return path


def asked_for(hub: HubServer) -> int:
    """Bytes of GGUFs that were sent."""
    every = hub.seen(".gguf", host="storage")
    assert all(seen.range for seen in every)
    return sum(seen.sent_bytes for seen in every)


def error_of(done: Any) -> dict[str, str]:
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    said: dict[str, str] = json.loads(done.stderr.splitlines()[-1])
    return said


def test_a_quant_costs_its_header_and_is_planned_as_a_local_one(slmkit: Run, hub: HubServer, q4_0: Path) -> None:
    hub.add(REPO, {q4_0.name: q4_0.read_bytes(), "x-Q8_0.gguf": b"not looked at"})
    done = slmkit("plan", f"{REPO}:q4_0", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    assert asked_for(hub) == 2 * FIRST_BYTES
    here = slmkit("plan", q4_0, "--json")
    assert without_measured(done.stdout) == without_measured(here.stdout)
    assert json.loads(done.stdout)["ref"] == f"{REPO}:Q4_0"


def test_a_quant_is_inspected_as_a_local_one(slmkit: Run, hub: HubServer, q4_0: Path, registry: Registry) -> None:
    hub.add(REPO, {q4_0.name: q4_0.read_bytes()})
    done = slmkit("inspect", f"{REPO}:Q4_0", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    assert asked_for(hub) == 2 * FIRST_BYTES
    here = json.loads(slmkit("inspect", q4_0, "--json").stdout)
    assert json.loads(done.stdout) == {**here, "path": None, "hub": f"{REPO}:Q4_0"}
    people = slmkit("inspect", REPO, env=reach(hub))  # the only one there is
    assert people.stdout.splitlines()[0] == f"{REPO}:Q4_0, on the Hub"
    assert f"hint: slmkit pull {REPO}:Q4_0" in people.stderr
    assert registry.artifacts() == []


def test_the_factors_of_rope_are_read(slmkit: Run, hub: HubServer, tmp_path: Path, session: Session) -> None:
    ref = ModelRef("path", str(factories.make_llama3(tmp_path / "three")))
    made = verbs.convert(ref, session, outtype="f16")
    hub.add(REPO, {"three-F16.gguf": made.path.read_bytes()})
    done = slmkit("inspect", f"{REPO}:F16", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["attention"]["rope_factors"] == {"rope_freqs.weight": [1.0, 32.0]}


def test_without_a_variant_the_float_file_stands_for_all_types(
    slmkit: Run, hub: HubServer, f16: Path, q4_0: Path
) -> None:
    hub.add(REPO, {"x-fp16.gguf": f16.read_bytes(), q4_0.name: q4_0.read_bytes()})
    done = slmkit("plan", REPO, "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    assert without_measured(done.stdout) == without_measured(slmkit("plan", f16, "--json").stdout)
    assert {row["variant"] for row in json.loads(done.stdout)["types"]} == set(QUANT_TYPES)
    assert hub.seen(q4_0.name) == []


def test_several_quants_are_listed(slmkit: Run, hub: HubServer) -> None:
    hub.add(REPO, {"x-Q4_0.gguf": b"GGUF", "x-Q8_0.gguf": b"GGUF", "mmproj-F16.gguf": b"GGUF"})
    for verb in ("plan", "inspect"):
        said = error_of(slmkit(verb, REPO, "--json", env=reach(hub)))
        assert said == {
            "error": "hub.file",
            "message": f"{REPO} has only GGUF files: Q4_0, Q8_0",
            "hint": f"say which: `slmkit {verb} {REPO}:Q4_0`",
        }
        said = error_of(slmkit(verb, f"{REPO}:Q5_1", "--json", env=reach(hub)))
        assert said["message"] == f"{REPO} has no GGUF in Q5_1, but Q4_0, Q8_0"
        assert said["hint"] == f"`slmkit {verb} {REPO}:Q4_0`"
    assert hub.seen(".gguf") == []


def test_shards(slmkit: Run, hub: HubServer, f16: Path, tmp_path: Path) -> None:
    (tmp_path / "cut").mkdir()
    split(f16, tmp_path / "cut" / "x-F16", max_tensors=8)
    shards = files_of(tmp_path / "cut")
    assert len(shards) > 2
    hub.add(REPO, {f"F16/{name}": data for name, data in shards.items()})
    done = slmkit("plan", f"{REPO}:F16", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    assert without_measured(done.stdout) == without_measured(slmkit("plan", f16, "--json").stdout)
    found = json.loads(slmkit("inspect", f"{REPO}:F16", "--json", env=reach(hub)).stdout)
    assert (found["n_files"], found["size_bytes"]) == (len(shards), sum(map(len, shards.values())))

    del hub.repos[REPO].files[f"F16/{min(shards)}"]
    said = error_of(slmkit("plan", f"{REPO}:F16", "--json", env=reach(hub)))
    assert (said["error"], said["message"].split(": ")[0]) == ("hub.file", f"{REPO} is incomplete")


def test_a_file_that_is_not_whole_is_named_by_the_hub(slmkit: Run, hub: HubServer, f16: Path) -> None:
    whole = f16.read_bytes()
    for data, what in ((whole[:5000], "is damaged"), (whole[:-5000], "is cut short"), (b"<html>", "is not a GGUF")):
        hub.add(REPO, {"x-Q4_0.gguf": data})
        said = error_of(slmkit("plan", f"{REPO}:Q4_0", "--json", env=reach(hub)))
        assert said["error"] == "format.gguf"
        assert said["message"].startswith(f"{REPO}/x-Q4_0.gguf {what}")
        assert "take another quant" in said["hint"]


def test_what_the_hub_refuses(slmkit: Run, hub: HubServer, checkpoint: Path) -> None:
    hub.add(REPO, {"x-Q4_0.gguf": b"GGUF"}, gated=True)
    said = error_of(slmkit("plan", f"{REPO}:Q4_0", "--json", env=reach(hub)))
    assert said["error"] == "hub.gated"
    assert error_of(slmkit("plan", "org/no:Q4_0", "--json", env=reach(hub)))["error"] == "hub.not-found"
    hub.add("org/tiny-llama", files_of(checkpoint))
    said = error_of(slmkit("plan", "org/tiny-llama:Q4_0", "--json", env=reach(hub)))
    assert said["hint"] == "make it: `slmkit quantize org/tiny-llama -t Q4_0`"
    hub.add("org/old", {"pytorch_model.bin": b"", "config.json": b"{}"})
    for verb, ref in (("plan", "org/old"), ("inspect", "org/old:F16")):
        assert "only as pickles" in error_of(slmkit(verb, ref, "--json", env=reach(hub)))["message"]


@pytest.mark.parametrize("verb", ["plan", "inspect"])
def test_without_network_it_says_what_is_not_here(slmkit: Run, verb: str) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    for env, why in ((nowhere, "cannot reach http://127.0.0.1:9"), ({}, "offline mode is on")):
        said = error_of(slmkit(verb, f"{REPO}:Q4_0", "--json", env=env))
        assert said["error"] == "registry.not-found"
        assert said["message"].startswith(f"no {REPO}:Q4_0 here: ")
        assert why in said["message"]
        assert said["hint"] == f"get it: `slmkit pull {REPO}:Q4_0`"
    said = error_of(slmkit(verb, f"{REPO}:Q4_0", "--json", "--no-pull", env=nowhere))
    assert said["message"] == f"no {REPO}:Q4_0 here"


def test_what_is_here_asks_nothing_of_the_hub(slmkit: Run, hub: HubServer, tiny: str) -> None:
    assert slmkit("plan", f"{tiny}:Q4_0", "--json", env=reach(hub)).returncode == 0
    assert error_of(slmkit("plan", f"{tiny}:Q5_1", "--json", env=reach(hub)))["error"] == "registry.not-found"
    assert hub.log == []


def test_no_engine_is_needed_to_inspect(
    hub: HubServer, f16: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(REPO, {"x-F16.gguf": f16.read_bytes()})
    monkeypatch.setattr("slmkit.hub.client.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = foresight.inspect(ModelRef.parse(REPO), Session(registry, SILENT))
    assert (found.hub, found.weights.named) == (f"{REPO}:F16", "F16")
