"""The program as users run it: child processes, the real engine, real tiny models."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from slmkit._version import __version__
from slmkit.cli.app import app
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, leftovers
from tests.conftest import Run
from tests.hubserver import HubServer

SHORT = ("-p", "8", "-n", "4", "-r", "2", "--threads", "1")
COMMANDS = (
    *("demo", "pull", "convert", "quantize", "export", "split", "merge", "recipe", "bench", "compare", "diff"),
    *("doctor", "catalog", "list", "show", "inspect", "adopt", "verify", "rm"),
)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


def reach(hub: HubServer) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}


def in_process(*arguments: str) -> Result:
    """The same program without a process of its own: quicker, where only its words count."""
    return CliRunner().invoke(app, arguments, prog_name="slmkit")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ------------------------------------------------------------------ help and version


def test_help_names_every_command(slmkit: Run) -> None:
    done = slmkit("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^│ {command} ", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize("command", [*COMMANDS, "recipe run", "recipe plan"])
def test_every_command_has_help(command: str) -> None:
    done = in_process(*command.split(), "-h")
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"slmkit {command} " in done.stdout


def test_version_names_the_engine(slmkit: Run) -> None:
    done = slmkit("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"slmkit {re.escape(__version__)} \(llama-cpp-python [\d.]+, llama\.cpp [0-9a-f]+\)\n", done.stdout
    )


def test_nothing_typed_is_wrong_usage_and_shows_the_help(slmkit: Run) -> None:
    done = slmkit()
    assert done.returncode == 2
    assert "quantize" in done.stdout + done.stderr


# ------------------------------------------------------------------ the main job


def test_the_main_path(slmkit: Run, checkpoint: Path, registry: Registry, tmp_path: Path) -> None:
    def ok(*arguments: str | Path) -> str:
        done = slmkit(*arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done.stdout

    converted = ok("convert", checkpoint)
    assert converted == f"{MODEL}:F16  2.8 MiB  llama, 1.4M parameters in 21 tensors, 16.01 bpw\n"
    made = ok("quantize", MODEL, "-t", "Q4_0", "-t", "Q8_0")
    assert re.search(rf"{MODEL}:Q4_0 +2\.8 MiB +842\.9 KiB +70\.3 % +4\.71 +90\.8 % +none\s*$", made, re.MULTILINE)
    assert re.search(rf"{MODEL}:Q8_0 ", made)

    again = ok("quantize", MODEL, "-t", "Q4_0")
    assert again.rstrip().endswith("there already")

    listed = ok("list").splitlines()
    assert [line.split()[:2] for line in listed[1:4]] == [[MODEL, "F16"], [MODEL, "Q4_0"], [MODEL, "Q8_0"]]
    assert listed[4:] == ["5.1 MiB made here"]

    shown = ok("show", f"{MODEL}:Q4_0")
    assert shown.splitlines()[0] == f"{MODEL}:Q4_0"
    assert "llama" in shown
    assert "2,048 tokens" in shown
    assert "type=Q4_0" in shown

    before = ok("compare", MODEL)
    assert "–" in before  # not measured yet: dashes, not zeros
    measured = ok("bench", f"{MODEL}:F16", f"{MODEL}:Q4_0", *SHORT)
    assert "pp8 tok/s" in measured
    assert "peak RSS" in measured

    rows = json.loads(ok("compare", MODEL, "--json"))
    assert [row["variant"] for row in rows] == ["F16", "Q8_0", "Q4_0"]
    assert [row["pp_tok_per_s"] is None for row in rows] == [False, True, False]
    assert rows == json.loads(ok("compare", MODEL, "--format", "json"))
    assert rows == [json.loads(line) for line in ok("compare", MODEL, "--format", "jsonl").splitlines()]
    sheet = list(csv.DictReader(io.StringIO(ok("compare", MODEL, "--format", "csv"))))
    assert [row["size_bytes"] for row in sheet] == [str(row["size_bytes"]) for row in rows]
    assert sheet[1]["pp_tok_per_s"] == ""
    assert sum(line.startswith("|") for line in ok("compare", MODEL, "--format", "md").splitlines()) == 5
    assert ok("compare", MODEL, "--format", "html").startswith("<!doctype html>")

    ok("compare", MODEL, "--plot", tmp_path / "plot.svg")
    ok("compare", MODEL, "--plot", tmp_path / "plot.png")
    assert ET.parse(tmp_path / "plot.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")

    assert ok("verify") == "3 of 3 sound\n"
    assert ok("rm", f"{MODEL}:Q8_0", "--dry-run").splitlines()[-1] == "would free 1.5 MiB"
    assert len(registry.artifacts()) == 3
    assert ok("rm", f"{MODEL}:Q8_0").splitlines()[-1] == "freed 1.5 MiB"
    assert [a.variant for a in registry.artifacts()] == ["F16", "Q4_0"]
    ok("rm", MODEL)
    assert registry.artifacts() == []
    assert list((registry.home / "models").iterdir()) == []


def test_one_command_pulls_converts_and_quantizes(
    slmkit: Run, hub: HubServer, checkpoint: Path, registry: Registry
) -> None:
    repo = hub.add("org/tiny", files_of(checkpoint))
    done = slmkit("quantize", "org/tiny", "-t", "Q4_0", env=reach(hub))
    assert done.returncode == 0, done.stderr
    said = done.stderr
    assert said.index("org/tiny is not here yet: pulling it first") < said.index("no F16 of org/tiny yet: converting")
    found = registry.artifacts()
    assert [a.ref for a in found] == ["org/tiny", "org/tiny:F16", "org/tiny:Q4_0"]
    assert found[0].provenance.commit == repo.commit
    assert found[1].provenance.parents == (found[0].digest,)
    assert found[2].provenance.parents == (found[1].digest,)

    hub.forget()
    again = slmkit("quantize", "org/tiny", "-t", "Q4_0", "--json", env=reach(hub))
    assert (again.returncode, again.stderr) == (0, "")
    assert [row["fresh"] for row in json.loads(again.stdout)] == [False]
    assert hub.log == []


def test_pull_says_what_came(slmkit: Run, hub: HubServer, checkpoint: Path) -> None:
    repo = hub.add("org/tiny", {**files_of(checkpoint), "pytorch_model.bin": b"no"})
    done = slmkit("pull", "org/tiny", "--json", env=reach(hub))
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    assert (values["ref"], values["commit"]) == ("org/tiny", repo.commit)
    assert "model.safetensors" in values["files"]
    assert "pytorch_model.bin" not in values["files"]


def test_types_that_fail_do_not_stop_the_others(slmkit: Run, furnished: Registry) -> None:
    done = slmkit("quantize", MODEL, "-t", "Q4_1,IQ2_XXS,Q5_0")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == [f"{MODEL}:Q4_1", f"{MODEL}:Q5_0"]
    assert "could not be made: IQ2_XXS: " in done.stderr
    assert done.stderr.splitlines()[-1].startswith("hint: let it be made: `--imatrix auto`")
    assert leftovers(furnished.home) == []


def test_a_float_type_that_is_there_is_not_made_again(slmkit: Run, checkpoint: Path, furnished: Registry) -> None:
    first = json.loads(slmkit("quantize", checkpoint, "-t", "BF16", "--json").stdout)
    again = json.loads(slmkit("quantize", checkpoint, "-t", "BF16", "--json").stdout)
    assert [row["fresh"] for row in (*first, *again)] == [True, False]


# ------------------------------------------------------------------ every command, once good and once bad


@pytest.mark.parametrize(
    "arguments",
    [
        "list",
        f"show {MODEL}",
        f"show {MODEL}:Q4_0",
        "catalog --class micro --open",
        f"quantize {MODEL} -t Q4_0",
        f"bench {MODEL}:Q4_0 -p 4 -n 2 -r 1",
        f"compare {MODEL}",
        "verify",
        f"rm {MODEL} --dry-run",
        f"rm {MODEL}:Q4_0",
        f"export {MODEL}:Q4_0 folder",
        "adopt CHECKPOINT",
        "convert CHECKPOINT --type bf16",
        "recipe plan RECIPE",
        "recipe run RECIPE",
        "doctor",
    ],
)
def test_json_is_one_value_on_stdout_and_nothing_else(
    slmkit: Run, furnished: Registry, checkpoint: Path, tmp_path: Path, arguments: str
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'[[models]]\nref = "{checkpoint}"\ntypes = ["Q4_0"]\n')
    places = {"CHECKPOINT": str(checkpoint), "RECIPE": str(recipe)}
    done = slmkit(*(places.get(word, word) for word in arguments.split()), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)
    assert done.stdout.endswith("\n")


BAD: list[tuple[str, int, str]] = [
    ("pull org/name@", 2, "usage.ref"),
    ("pull org/name --offline", 1, "hub.offline"),
    ("pull ./here", 2, "usage"),
    ("convert org/name --no-pull", 1, "registry.not-found"),
    ("convert ./here --type q9", 2, "usage"),
    (f"quantize {MODEL} -t Q4_9", 2, "usage.type"),
    ("quantize org/name -t Q4_0 --no-pull", 1, "registry.not-found"),
    ("quantize local/name -t Q4_0", 1, "registry.not-found"),
    (f"quantize {MODEL}:Q4_0 -t Q5_0", 2, "usage"),
    (f"quantize {MODEL} -t IQ1_S", 1, "engine.imatrix"),
    ("export org/name folder", 1, "registry.not-found"),
    (f"export {MODEL} folder", 2, "usage"),
    (f"export {MODEL}:Q4_0 folder --to onnx", 2, "usage"),
    ("bench org/name", 1, "registry.not-found"),
    (f"bench {MODEL} -p 0 -n 0", 2, "usage"),
    (f"bench {MODEL} --format xml", 2, "usage"),
    ("compare org/name", 1, "registry.not-found"),
    (f"compare {MODEL} --plot x.pdf", 2, "usage"),
    (f"compare {MODEL} --plot no/folder/x.svg", 1, "disk.write"),
    (f"compare {MODEL}:Q8_0 --plot x.svg", 2, "usage"),
    ("catalog --class giant", 2, "usage"),
    ("list --format xml", 2, "usage"),
    ("show org/name", 1, "registry.not-found"),
    ("show no-such-alias", 2, "usage.ref"),
    ("adopt ./nothing.gguf", 2, "usage"),
    ("verify org/name", 1, "registry.not-found"),
    ("rm org/name", 1, "registry.not-found"),
    (f"rm {MODEL}:Q2_K", 1, "registry.not-found"),
    ("recipe run nothing.toml", 2, "usage.recipe"),
    ("recipe plan nothing.toml", 2, "usage.recipe"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "code"), BAD)
def test_an_error_is_a_line_and_a_hint_on_stderr(
    furnished: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: str,
    exit_code: int,
    code: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(p.name for p in furnished.home.rglob("*") if p.suffix != ".lock")
    done = in_process(*arguments.split())
    assert (done.exit_code, done.stdout) == (exit_code, ""), done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" first")]  # "converting it first"
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert len(lines) <= 2

    as_json = in_process(*arguments.split(), "--json")
    assert (as_json.exit_code, as_json.stdout) == (exit_code, "")
    told = json.loads(as_json.stderr)
    assert told["error"] == code
    assert lines == [f"error: {told['message']}", *([f"hint: {told['hint']}"] if told["hint"] else [])]
    assert sorted(p.name for p in furnished.home.rglob("*") if p.suffix != ".lock") == before


@pytest.mark.parametrize("arguments", ["nonsense", "quantize", "list --nonsense", "demo --nonsense"])
def test_a_wrong_command_line_exits_2(slmkit: Run, arguments: str) -> None:
    done = slmkit(*arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: slmkit" in done.stderr

    as_json = in_process(*arguments.split(), "--json")
    assert (as_json.exit_code, as_json.stdout) == (2, "")
    told = json.loads(as_json.stderr)
    assert told["error"] == "usage"
    assert told["message"]


def test_a_home_that_cannot_be_written_is_said(slmkit: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    there = {"SLMKIT_HOME": str(tmp_path / "file" / "home")}
    done = slmkit("adopt", checkpoint, env=there)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: the registry cannot be written: {tmp_path / 'file' / 'home'}")

    unwell = slmkit("doctor", "--json", env=there)
    assert unwell.returncode == 3
    assert [row["what"] for row in json.loads(unwell.stdout) if row["ok"] is False] == ["registry"]
    assert json.loads(unwell.stderr)["error"] == "verdict"


@pytest.mark.parametrize(("typed", "valid"), [("a//b", "org/name:Q4_0"), ("https://hf.co/a/b", "./model.gguf")])
def test_a_wrong_reference_shows_a_valid_one(slmkit: Run, typed: str, valid: str) -> None:
    done = slmkit("show", typed)
    assert done.returncode == 2
    assert f"error: not a model reference: '{typed}'" in done.stderr
    assert f"`{valid}`" in done.stderr.splitlines()[-1]


def test_a_bare_word_that_is_a_folder_here_gets_the_hint(slmkit: Run, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "my-model").mkdir(parents=True)
    done = slmkit("convert", "my-model")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "hint: for the file or folder that is here type `./my-model`"


def test_a_folder_that_looks_like_a_hub_id_is_pointed_at(slmkit: Run, tmp_path: Path) -> None:
    (tmp_path / "cwd" / "models" / "mine").mkdir(parents=True)
    done = slmkit("convert", "models/mine")
    assert done.returncode == 1
    assert "models/mine is taken for a model on the Hub; the one that is here is `./models/mine`" in done.stderr
    assert "is taken for" not in slmkit("convert", "models/other").stderr


def test_no_pull_asks_nobody(slmkit: Run, hub: HubServer, checkpoint: Path, registry: Registry) -> None:
    hub.add("org/tiny", files_of(checkpoint))
    done = slmkit("quantize", "org/tiny", "-t", "Q4_0", "--no-pull", env=reach(hub))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-2:] == [
        "error: no checkpoint of org/tiny here",
        "hint: get it: `slmkit pull org/tiny`",
    ]
    assert hub.log == []
    assert registry.artifacts() == []


# ------------------------------------------------------------------ damage


def corrupt(path: Path) -> None:
    with path.open("rb+") as file:
        file.seek(-1000, 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))


def truncate(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size // 2)


def behead(path: Path) -> None:
    with path.open("rb+") as file:
        file.write(struct.pack("<I", 0))


@pytest.mark.parametrize("damage", [corrupt, truncate, behead, Path.unlink])
def test_verify_names_what_is_damaged(slmkit: Run, furnished: Registry, damage: Any) -> None:
    found = furnished.find(MODEL, "Q4_0")
    assert found is not None
    damage(found.path)
    done = slmkit("verify")
    assert done.returncode == 3
    assert done.stdout.startswith(f"{MODEL}:Q4_0: {found.path} ")
    assert done.stdout.splitlines()[-1] == "2 of 3 sound"
    assert done.stderr.splitlines()[-2:] == [
        f"error: damaged: {MODEL}:Q4_0",
        f"hint: delete and make again: `slmkit rm {MODEL}:Q4_0`, then what made it",
    ]
    as_json = slmkit("verify", "--json")
    assert as_json.returncode == 3
    assert [d["ref"] for d in json.loads(as_json.stdout)["damaged"]] == [f"{MODEL}:Q4_0"]
    assert json.loads(as_json.stderr)["error"] == "registry.damaged"
    assert slmkit("verify", f"{MODEL}:F16").returncode == 0


def test_a_model_that_cannot_be_measured_does_not_stop_the_others(slmkit: Run, furnished: Registry) -> None:
    found = furnished.find(MODEL, "Q4_0")
    assert found is not None
    truncate(found.path)
    done = slmkit("bench", f"{MODEL}:Q4_0", f"{MODEL}:Q8_0", *SHORT, "--json")
    assert done.returncode == 1
    bad, good = json.loads(done.stdout)["rows"]
    assert bad["failure"]["message"]
    assert bad["blocks"] == []
    assert good["failure"] is None
    assert good["blocks"][0]["pp_ns"]
    assert json.loads(done.stderr)["error"] == "some-failed"

    table = slmkit("bench", f"{MODEL}:Q4_0", f"{MODEL}:Q8_0", *SHORT)
    assert table.returncode == 1
    assert "error: 1 of 2 could not be measured: local/tiny-llama:Q4_0" in table.stderr
    assert bad["failure"]["message"].split(":")[0] in table.stdout


# ------------------------------------------------------------------ how it speaks


def test_quiet_prints_the_result_only(slmkit: Run, checkpoint: Path) -> None:
    done = slmkit("quantize", checkpoint, "-t", "Q4_0", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{MODEL}:Q4_0" in done.stdout


def test_an_empty_registry_says_how_to_begin(slmkit: Run) -> None:
    done = slmkit("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "hint: slmkit pull " in done.stderr
    assert json.loads(slmkit("list", "--json").stdout) == []
