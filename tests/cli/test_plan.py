"""`slmkit plan` as users run it: for folders, files and the Hub, in every form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import slmkit as package
from slmkit.core.artifact import Artifact
from slmkit.core.quant import QUANT_TYPES
from tests import factories
from tests.cli.test_convert import files_of, in_process, reach
from tests.conftest import Run
from tests.hubserver import HubServer


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def without_measured(text: str) -> list[dict[str, Any]]:
    """The types of a document, but for what the machine was doing in that moment."""
    types: list[dict[str, Any]] = json.loads(text)["types"]
    for row in types:
        for measured in (row, *row["contexts"]):
            measured.pop("tg_estimate_tok_per_s")
    return types


def test_a_hub_id_costs_headers_only(slmkit: Run, hub: HubServer, checkpoint: Path, tmp_path: Path) -> None:
    sharded = factories.split_shards(checkpoint, tmp_path / "tiny-llama", 3)
    hub.add("org/tiny-llama", files_of(sharded))
    done = slmkit("plan", "org/tiny-llama", "--json", env=reach(hub))
    assert done.returncode == 0, done.stderr
    asked = [seen for seen in hub.log if seen.path.endswith(".safetensors") and seen.host == "storage"]
    assert asked
    assert all(seen.range for seen in asked)
    headers = sum(8 + int.from_bytes(f.read_bytes()[:8], "little") for f in sharded.glob("*.safetensors"))
    assert sum(seen.sent_bytes for seen in asked) == headers
    sizes = {row["variant"]: row["size_bytes"] for row in without_measured(done.stdout)}
    assert set(sizes) == set(QUANT_TYPES)

    made = slmkit("quantize", "org/tiny-llama", "-t", "F16,Q4_0,Q5_1,Q8_0", "--json", env=reach(hub))
    assert made.returncode == 0, made.stderr
    for row in json.loads(made.stdout):
        assert row["after_bytes"] == sizes[row["ref"].partition(":")[2]]

    hub.forget()
    again = slmkit("plan", "org/tiny-llama", "--json", "--no-pull", env=reach(hub))
    assert without_measured(again.stdout) == without_measured(done.stdout)
    assert hub.log == []


def test_people_get_a_table_with_marks_and_reasons(slmkit: Run, checkpoint: Path) -> None:
    done = slmkit("plan", checkpoint, "--ctx", "512,1024", "--ram", "8MB", "-t", "F16,Q4_0,IQ2_XXS")
    assert done.returncode == 0, done.stderr
    titles, f16, q4_0, iq2, *notes = done.stdout.splitlines()
    assert titles.split("  ")[0] == "type"
    assert [t.strip() for t in titles.split("  ") if t.strip()][-4:-1] == ["RAM @ 512", "fits", "RAM @ 1,024"]
    assert (f16.split()[0], "baseline" in f16, "~" in f16) == ("F16", True, True)
    assert " needed " in iq2
    assert " needed " not in q4_0
    assert "~" in q4_0
    assert {"yes", "tight", "no"} & set(q4_0.split())
    assert any(note.startswith("512 tokens, KV cache in f16: ") for note in notes)
    assert any("an estimate from above" in note for note in notes)


@pytest.mark.parametrize(("ram", "fits"), [("1GiB", "yes"), ("1MB", "no")])
def test_what_has_to_fit_into_what(f16: Path, ram: str, fits: str) -> None:
    done = in_process("plan", f16, "-t", "F16", "--ram", ram, "--json")
    assert {context["fits"] for row in json.loads(done.stdout)["types"] for context in row["contexts"]} == {fits}


@pytest.mark.parametrize("form", ["md", "csv", "html", "jsonl"])
def test_forms(f16: Path, form: str) -> None:
    done = in_process("plan", f16, "-t", "F16,Q4_0", "--ctx", "256", "--cache-type", "f16,q8_0", "--format", form)
    assert done.exit_code == 0, done.output
    size = f16.stat().st_size
    machine = form in ("csv", "jsonl")
    assert (str(size) if machine else f"{size:,}") in done.stdout
    assert ("memory_256_q8_0_bytes" if machine else "RAM @ 256 q8_0") in done.stdout


def test_sizes_are_drawn(f16: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "sizes.svg"
    done = in_process("plan", f16, "-t", "F16,Q4_0,Q8_0", "--ram", "3MB", "--plot", drawn)
    assert done.exit_code == 0, done.output
    assert drawn.read_text().startswith("<?xml")
    assert in_process("plan", f16, "--plot", tmp_path / "sizes.txt").exit_code == 2


def test_a_plot_that_cannot_be_written_and_no_type_are_refused_before_the_work(f16: Path, tmp_path: Path) -> None:
    lost = tmp_path / "nowhere" / "sizes.svg"
    done = in_process("plan", "org/not-looked-for", "--no-pull", "-t", "Q4_0", "--plot", lost)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"cannot write {lost}: No such file or directory" in done.stderr
    for types in ("", ",", " "):
        done = in_process("plan", f16, "-t", types)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"no quant type in {types!r}" in done.stderr


def test_a_variant_of_the_registry(slmkit: Run, float_artifact: Artifact) -> None:
    done = slmkit("plan", float_artifact.ref, "-t", "F16,Q8_0", "--json")
    sizes = {row["variant"]: row["size_bytes"] for row in json.loads(done.stdout)["types"]}
    assert sizes["F16"] == float_artifact.size_bytes


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["./nowhere"], 2, "usage"),
        (["./nowhere.gguf"], 2, "usage"),
        (["org/name"], 1, "hub.offline"),
        (["org/name", "--no-pull"], 1, "registry.not-found"),
        (["org/name:Q4_0"], 1, "registry.not-found"),
        (["local/name"], 1, "registry.not-found"),
        (["FOLDER", "--types", "Q4_9"], 2, "usage.type"),
        (["FOLDER", "--ctx", "many"], 2, "usage"),
        (["FOLDER", "--ctx", "-1"], 2, "usage"),
        (["FOLDER", "--ram", "8 apples"], 2, "usage"),
        (["FOLDER", "--cache-type", "q9"], 2, "usage"),
        (["DAMAGED"], 1, "format.gguf"),
    ],
)
def test_what_goes_wrong_is_told(
    slmkit: Run, checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, error: str
) -> None:
    damaged = tmp_path / "x.gguf"
    damaged.write_bytes(b"GGUF but nothing else")
    names = {"FOLDER": str(checkpoint), "DAMAGED": str(damaged)}
    done = slmkit("plan", *(names.get(a, a) for a in arguments), "--json")
    said = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, said["error"], done.stdout) == (code, error, "")
    assert said["hint"] or error == "format.gguf"


def test_a_checkpoint_that_does_not_convert(slmkit: Run, tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    folder = factories.make_checkpoint(tmp_path / "other", "OtherForCausalLM", "other", shape)
    done = slmkit("plan", folder, "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]) == (1, "convert.arch")


def test_as_a_function(f16: Path) -> None:
    found = package.plan(str(f16), ["Q4_0"], n_ctx=[256], ram_bytes=2**30)
    assert isinstance(found, package.ModelPlan)
    assert [row.variant for row in found.types] == ["Q4_0"]
    assert found.types[0].contexts[0].fits == "yes"
