"""`split`, `merge` and `diff` as users run them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from slmkit.registry.store import Registry
from tests.cli.conftest import MODEL, leftovers
from tests.conftest import Run


def test_split_and_merge(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    source = furnished.home / "models" / "local" / "tiny-llama" / "tiny-llama-F16.gguf"
    done = slmkit("split", f"{MODEL}:F16", tmp_path / "out" / "tiny", "--max-size", "1M")
    assert done.returncode == 0, done.stderr
    first = tmp_path / "out" / "tiny-00001-of-00004.gguf"
    assert done.stdout.splitlines()[0].startswith(f"{first}  ")
    assert f"slmkit merge {first} OUT.gguf" in done.stderr
    merged = json.loads(slmkit("merge", first, tmp_path / "whole.gguf", "--json").stdout)
    assert (merged["n_shards"], merged["size_bytes"]) == (4, source.stat().st_size)
    assert (tmp_path / "whole.gguf").read_bytes() == source.read_bytes()
    again = slmkit("merge", first, tmp_path / "whole.gguf")
    assert (again.returncode, again.stdout) == (1, "")
    assert "--force" in again.stderr
    assert slmkit("bench", first, "-p", "8", "-n", "4", "-r", "1", "--threads", "1").returncode == 0
    assert leftovers(tmp_path) == []


def test_split_of_what_is_not_one_file(furnished: Registry, slmkit: Run, tmp_path: Path) -> None:
    done = slmkit("split", MODEL, tmp_path / "x")
    assert done.returncode == 2
    assert f"`{MODEL}:F16`" in done.stderr
    assert slmkit("split", f"{MODEL}:Q5_0", tmp_path / "x").returncode == 1
    both = slmkit("split", f"{MODEL}:F16", tmp_path / "x", "--max-size", "1M", "--max-tensors", "2")
    assert (both.returncode, "not both" in both.stderr) == (2, True)
    assert "nothing to split" in slmkit("split", f"{MODEL}:F16", tmp_path / "x").stderr  # 2 GB is the default


def test_diff(furnished: Registry, slmkit: Run) -> None:
    pair = (f"{MODEL}:F16", f"{MODEL}:Q4_0")
    done = slmkit("diff", *pair)
    assert done.returncode == 0, done.stderr
    assert "relative RMS error" in done.stdout
    assert "general.file_type: 1 -> 2" in done.stdout
    assert "tokenizer: the same, 512 tokens" in done.stdout
    found = json.loads(slmkit("diff", *pair, "--json").stdout)
    assert found["same"] is False
    assert 0.01 < found["error"] < 0.2
    assert len(found["tensors"]) == sum(kind["n_tensors"] for kind in found["kinds"])
    rows = json.loads(slmkit("diff", *pair, "--tensors", "--format", "json").stdout)
    assert {row["b_type"] for row in rows} == {"Q4_0", "Q6_K"}
    errors = [row["error"] for row in rows]
    assert errors == sorted(errors, reverse=True)


def test_diff_is_a_gate_when_asked(furnished: Registry, slmkit: Run) -> None:
    assert slmkit("diff", f"{MODEL}:F16", f"{MODEL}:Q4_0", "--exit-code").returncode == 3
    same = slmkit("diff", f"{MODEL}:Q4_0", f"{MODEL}:Q4_0", "--exit-code")
    assert (same.returncode, same.stderr) == (0, "")
    assert "weights: the same" in same.stdout


def test_a_checkpoint_is_no_gguf(checkpoint: Path, slmkit: Run) -> None:
    done = slmkit("diff", checkpoint, checkpoint)
    assert done.returncode == 2
    assert f"slmkit convert {checkpoint}" in done.stderr


def test_inspect(furnished: Registry, slmkit: Run) -> None:
    done = slmkit("inspect", f"{MODEL}:Q4_0")
    assert done.returncode == 0, done.stderr
    assert "claims to be   Q4_0 by metadata, Q4_0 by name" in done.stdout
    assert "never stop" in done.stderr  # the factory's template ends no answer
    found = json.loads(slmkit("inspect", f"{MODEL}:Q4_0", "--json").stdout)
    assert found["attention"]["grouping"] == "GQA 2:1"
    assert found["vocabulary"]["n_tokens"] == 512
    assert found["problems"]
    assert f"hint: slmkit inspect {MODEL}:Q4_0" in slmkit("show", f"{MODEL}:Q4_0").stderr


def test_inspect_of_what_is_no_gguf(checkpoint: Path, slmkit: Run, tmp_path: Path) -> None:
    assert f"slmkit convert {checkpoint}" in slmkit("inspect", checkpoint).stderr
    other = tmp_path / "x.gguf"
    other.write_text("no")
    done = slmkit("inspect", other, "--json")
    assert (done.returncode, json.loads(done.stderr)["error"]) == (1, "format.gguf")
    assert slmkit("inspect", tmp_path / "none.gguf").returncode == 2


def test_how_long_making_took_is_shown(slmkit: Run, furnished: Registry) -> None:
    for variant in ("F16", "Q4_0"):
        assert re.search(r"^  made in  +\d+\.\d+ m?s$", slmkit("show", f"{MODEL}:{variant}").stdout, re.MULTILINE)
