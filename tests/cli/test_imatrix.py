"""`slmkit imatrix` as users run it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from slmkit.core.imatrix import CHECK_EVERY
from slmkit.ops import corpora
from slmkit.registry import paths
from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, Start, wait_until
from tests.conftest import Run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(corpora.corpus().text[:30_000], encoding="utf-8")
    return path


def test_it_is_collected_shown_and_quantized_with(furnished: Registry, slmkit: Run, text: Path) -> None:
    made = slmkit("imatrix", MODEL, "--text", text, "--chunks", "2", "--json")
    assert made.returncode == 0, made.stderr
    values = json.loads(made.stdout)
    assert (values["n_chunks"], values["reason"], values["n_entries"], values["fresh"]) == (2, "chunks", 14, True)
    assert Path(values["path"]).is_file()
    again = slmkit("imatrix", MODEL, "--text", text, "--chunks", "2")
    assert "stopped after 2 chunks: as many as asked for (was there already)" in again.stdout
    assert "hint: slmkit quantize" in again.stderr
    shown = json.loads(slmkit("imatrix", MODEL, "--show", "--json").stdout)
    assert len(shown) == 14
    by_path = json.loads(slmkit("imatrix", values["path"], "--show", "--json").stdout)
    assert shown == by_path
    quantized = slmkit("quantize", MODEL, "-t", "IQ2_XXS", "--imatrix", "auto", "--json")
    assert quantized.returncode == 0, quantized.stderr
    assert json.loads(quantized.stdout)[0]["ref"] == f"{MODEL}:IQ2_XXS-imatrix"
    named = slmkit("quantize", MODEL, "-t", "Q4_K_M", "--imatrix", values["path"], "--name", "mine")
    assert named.returncode == 0, named.stderr
    assert f"imatrix={Path(values['path']).name}" in slmkit("show", f"{MODEL}:Q4_K_M-mine").stdout


def test_show_says_which_one_it_is(furnished: Registry, slmkit: Run, text: Path) -> None:
    for ref, n_chunks in ((f"{MODEL}:Q8_0", "1"), (f"{MODEL}:F16", "2")):
        assert slmkit("imatrix", ref, "--text", text, "--chunks", n_chunks).returncode == 0
    shown = slmkit("imatrix", MODEL, "--show")
    path = next(paths.imatrix_dir(furnished.home, MODEL).glob("*-of-F16.gguf"))
    assert f"{path}: 2 chunks of the text text.txt by {MODEL}:F16" in shown.stderr
    assert "text text.txt" not in slmkit("imatrix", MODEL, "--show", "--quiet").stderr
    by_path = slmkit("imatrix", path, "--show", "--format", "csv")
    assert f"{path}: 2 chunks of the text text.txt" in by_path.stderr
    assert by_path.stdout.startswith("layer,")


def test_verify_reads_it_with_its_model(furnished: Registry, slmkit: Run, text: Path) -> None:
    values = json.loads(slmkit("imatrix", MODEL, "--text", text, "--chunks", "2", "--json").stdout)
    path = Path(values["path"])
    assert slmkit("verify", MODEL).stdout == "4 of 4 sound\n"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    for arguments in ((), (MODEL,)):
        done = slmkit("verify", *arguments)
        assert done.returncode == 3
        assert f"{path} has other contents" in done.stdout
        assert f"hint: collect it again: `slmkit imatrix {MODEL}:F16 --text FILE --force`" in done.stderr
    assert slmkit("verify", f"{MODEL}:F16").stdout == "1 of 1 sound\n"


def statistics_of(program: Path, model: Path, imatrix: str) -> list[tuple[str, str, str]]:
    """Layer, tensor and numbers of each row. It may leave before its log is written: it is asked until it has said the
    most that it says twice.
    """
    command = [str(program), "-m", str(model), "--in-file", imatrix, "--show-statistics"]
    most: list[tuple[str, str, str]] = []
    for _ in range(100):
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=True)
        rows = re.findall(r"^.*?\b(\d+)\t(\w+)\s*\t(.+)$", found.stdout + found.stderr, re.MULTILINE)
        if rows and rows == most:
            return rows
        most = max(most, rows, key=lambda told: sum(map(len, (text for row in told for text in row))))
    raise AssertionError(f"{program.name} has never said anything twice")


def test_the_statistics_are_those_of_llama_imatrix(
    furnished: Registry, slmkit: Run, text: Path, llama_tools: Path
) -> None:
    values = json.loads(slmkit("imatrix", MODEL, "--text", text, "--chunks", "2", "--json").stdout)
    ours = json.loads(slmkit("imatrix", MODEL, "--show", "--json").stdout)
    rows = statistics_of(llama_tools / "llama-imatrix", paths.gguf_path(furnished.home, MODEL, "F16"), values["path"])
    assert [(row["layer"], row["tensor"]) for row in ours] == [(int(layer), tensor) for layer, tensor, _ in rows]
    for row, (_, _, numbers) in zip(ours, rows, strict=True):
        told = [float(number) for number in re.findall(r"-?[\d.]+", numbers)]
        mine = [row[k] for k in ("total", "minimum", "maximum", "mean", "deviation")]
        mine += [row["active"] * 100, row["n_columns"], row["entropy_bits"]]
        mine += [row["entropy_share"] * 100, row["z_share"] * 100, row["cosine"] or 0]
        assert told == pytest.approx(mine, rel=1e-4, abs=0.0051)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(
    how: signal.Signals, furnished: Registry, slmkit: Run, start: Start, text: Path
) -> None:
    folder = paths.imatrix_dir(furnished.home, MODEL)
    arguments = ["imatrix", MODEL, "--text", text, "--chunks", str(CHECK_EVERY + 4)]
    running = start(*arguments)
    wait_until(running, lambda: list(folder.glob(".unfinished-*.gguf")) != [])
    running.send_signal(how)
    running.communicate(timeout=60)
    assert running.returncode in (130, -signal.SIGKILL)
    assert not list(folder.glob("[!.]*"))
    finished = slmkit(*arguments)
    assert re.search(r"going on after \d+ chunks", finished.stderr)
    assert f"stopped after {CHECK_EVERY + 4} chunks" in finished.stdout
    assert {p.suffix for p in folder.iterdir()} == {".gguf", ".json"}
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (["--corpus", "nothing"], 2, "usage"),
        (["--text", "missing.txt"], 2, "usage"),
        (["--text", "missing.txt", "--corpus", "mixed"], 2, "usage"),
        (["--chunks", "0"], 2, "usage"),
        (["--show"], 1, "registry.not-found"),
        (["--show", "--chunks", "2"], 2, "usage"),
        (["--show", "--threads", "2"], 2, "usage"),
        (["--show", "--force"], 2, "usage"),
    ],
)
def test_what_cannot_be(arguments: list[str], exit_code: int, code: str, furnished: Registry, slmkit: Run) -> None:
    found = slmkit("imatrix", MODEL, *arguments, "--json")
    assert found.returncode == exit_code, found.stderr
    assert json.loads(found.stderr)["error"] == code


def test_a_form_without_a_table_is_refused(furnished: Registry, slmkit: Run) -> None:
    done = slmkit("imatrix", MODEL, "--format", "csv")
    assert (done.returncode, "`--format` does nothing" in done.stderr) == (2, True)


def test_a_damaged_file_is_an_error(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    path = tmp_path / "damaged.dat"
    path.write_bytes(b"nothing of the kind")
    for arguments in (["imatrix", path, "--show"], ["quantize", MODEL, "-t", "Q4_1", "--imatrix", path]):
        found = slmkit(*arguments, "--json")
        assert found.returncode == 1
        assert json.loads(found.stderr)["error"] == "format.imatrix"
