from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, QuantType, quant_types
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.refs import ModelRef
from slmkit.core.units import parse_size
from slmkit.errors import ChangedError, DiskFullError, EngineError, NotInRegistryError, RefError, UsageError
from slmkit.formats.gguf.header import read_header
from slmkit.ops.quantize import QuantizeReport
from slmkit.ops.quantize import quantize as quantize_all
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry
from slmkit.registry.verify import verify
from tests import factories

Q4_0 = QUANT_TYPES["Q4_0"]


def quantize(source: Artifact, quant: QuantType, registry: Registry, **options: Any) -> QuantizeReport:
    (report,) = quantize_all(source, [quant], registry, SILENT, **options)
    return report


def files(registry: Registry, model: str) -> set[str]:
    return {p.name for p in paths.model_dir(registry.home, model).iterdir()}


def test_the_report_is_what_the_file_is(float_artifact: Artifact, registry: Registry) -> None:
    report = quantize(float_artifact, Q4_0, registry)
    made = report.artifact
    header = read_header(made.path)
    assert report.fresh
    assert made.path == registry.home / "models" / "local" / "tiny-llama" / "tiny-llama-Q4_0.gguf"
    assert made.size_bytes == made.path.stat().st_size
    assert report.reduction == pytest.approx(1 - made.size_bytes / float_artifact.path.stat().st_size)
    assert made.facts["bpw"] == header.bpw
    assert made.facts["n_params"] == header.n_params
    assert made.facts["elapsed_s"] > 0
    assert "elapsed_s" not in made.provenance.parameters
    assert made.provenance.parents == (float_artifact.digest,)
    assert made.provenance.tools["engine"].startswith("llama-cpp-python")
    assert verify(made, SILENT) == []


def test_done_already_is_left_alone_and_force_remakes_it(float_artifact: Artifact, registry: Registry) -> None:
    first = quantize(float_artifact, Q4_0, registry).artifact
    before = first.path.stat().st_mtime_ns
    again = quantize(float_artifact, Q4_0, registry)
    assert not again.fresh
    assert first.path.stat().st_mtime_ns == before
    forced = quantize(float_artifact, Q4_0, registry, force=True, n_threads=1)
    assert forced.fresh
    assert forced.artifact.digest == first.digest


def test_another_source_or_a_damaged_file_means_that_it_is_not_done(
    float_artifact: Artifact, session: Session, tmp_path: Path
) -> None:
    registry = session.registry
    made = quantize(float_artifact, Q4_0, registry).artifact
    made.path.write_bytes(made.path.read_bytes()[:-1])
    assert quantize(float_artifact, Q4_0, registry).fresh
    other = factories.make_llama(tmp_path / "other" / "tiny-llama", n_layers=3)
    changed = verbs.convert(ModelRef("path", str(other)), session)
    assert changed.model == float_artifact.model
    assert quantize(changed, Q4_0, registry).fresh


def test_a_quantized_source_is_refused(tiny: str, registry: Registry) -> None:
    source = registry.find(tiny, "Q4_0")
    assert source is not None
    with pytest.raises(UsageError, match="quantized already"):
        quantize(source, QUANT_TYPES["Q5_1"], registry)


def test_a_file_that_does_not_work_is_never_registered(float_artifact: Artifact, registry: Registry) -> None:
    """Weights that are far too large quantize without complaint; decoding finds out that the output is infinite."""
    header = read_header(float_artifact.path)
    norm = next(t for t in header.tensors if t.name == "output_norm.weight")
    raw = bytearray(float_artifact.path.read_bytes())
    at = header.data_offset + norm.offset
    raw[at : at + norm.size_bytes] = np.full(norm.n_elements, 3e38, "<f4").tobytes()
    float_artifact.path.write_bytes(raw)
    with pytest.raises(EngineError, match="does not work, and was deleted"):
        quantize(float_artifact, Q4_0, registry)
    assert registry.find(float_artifact.model, "Q4_0") is None
    assert files(registry, float_artifact.model) == {"tiny-llama-F16.gguf", "tiny-llama-F16.json"}


def test_a_damaged_source_is_refused_and_leaves_nothing(float_artifact: Artifact, registry: Registry) -> None:
    float_artifact.path.write_bytes(float_artifact.path.read_bytes()[:-100_000])
    with pytest.raises(ChangedError, match="not what was registered"):
        quantize(float_artifact, Q4_0, registry)
    assert files(registry, float_artifact.model) == {"tiny-llama-F16.gguf", "tiny-llama-F16.json"}


def test_too_little_space_is_known_before_anything_is_written(
    float_artifact: Artifact, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    quant, spec = QUANT_TYPES["Q3_K_M"], QuantizeSpec(pure=True, embedding_type="F32", prune_layers=(0,))
    made = quantize(float_artifact, quant, registry, spec=spec, name="x").artifact
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": made.size_bytes - 1})())
    with pytest.raises(DiskFullError, match=r"Q3_K_M of \S+ needs ([0-9.]+ KiB); .* free$") as caught:
        quantize(float_artifact, quant, registry, spec=spec, name="y")
    said = parse_size(caught.value.message.partition(" needs ")[2].partition(";")[0])
    assert made.size_bytes <= said < made.size_bytes + 4096
    assert len(files(registry, float_artifact.model)) == 4
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": made.size_bytes + 4096})())
    assert quantize(float_artifact, quant, registry, spec=spec, name="y").fresh


def test_a_disk_that_fills_up_while_writing(float_artifact: Artifact, registry: Registry) -> None:
    """A limit on the size of files makes the engine's writes fail as a full disk does."""
    code = (
        "import resource\n"
        "from slmkit.core.progress import SILENT\n"
        "from slmkit.core.quant import QUANT_TYPES\n"
        "from slmkit.errors import ChangedError, DiskFullError\n"
        "from slmkit.ops.quantize import quantize\n"
        "from slmkit.registry.store import Registry\n"
        "registry = Registry()\n"
        f"source = registry.find({float_artifact.model!r}, 'F16')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    list(quantize(source, [QUANT_TYPES['Q4_0']], registry, SILENT))\n"
        "except DiskFullError as error:\n"
        "    print(error.code, error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f"disk.full no space left on the disk of {registry.home} for Q4_0 of {float_artifact.ref}, which takes "
    assert done.stdout.startswith(said), done.stdout + done.stderr
    assert ".partial" not in done.stdout
    assert files(registry, float_artifact.model) == {"tiny-llama-F16.gguf", "tiny-llama-F16.json"}


def test_a_killed_run_leaves_nothing_that_looks_finished(float_artifact: Artifact, registry: Registry) -> None:
    code = (
        "from slmkit.core.progress import SILENT\n"
        "from slmkit.core.quant import QUANT_TYPES\n"
        "from slmkit.ops.quantize import quantize\n"
        "from slmkit.registry.store import Registry\n"
        "registry = Registry()\n"
        f"source = registry.find({float_artifact.model!r}, 'F16')\n"
        "while True:\n"
        "    list(quantize(source, [QUANT_TYPES['Q4_0']], registry, SILENT, force=True))\n"
    )
    for _ in range(3):
        worker = subprocess.Popen([sys.executable, "-c", code])
        folder = paths.model_dir(registry.home, float_artifact.model)
        deadline = time.monotonic() + 60
        while not list(folder.glob(f"{atomic.PARTIAL}*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        for artifact in registry.artifacts():
            assert verify(artifact, SILENT) == []
    assert quantize(float_artifact, Q4_0, registry, force=True).fresh
    assert not list(folder.glob(f"{atomic.PARTIAL}*"))


def test_one_call_converts_first_and_makes_several(checkpoint: Path, session: Session) -> None:
    reports = list(verbs.quantize(ModelRef("path", str(checkpoint)), quant_types(["F16,Q4_0", "Q8_0"]), session))
    assert [r.artifact.ref for r in reports] == [f"local/tiny-llama:{t}" for t in ("F16", "Q4_0", "Q8_0")]
    assert [r.fresh for r in reports] == [False, True, True]


def test_a_gguf_file_is_a_source_too(f16: Path, session: Session) -> None:
    (report,) = verbs.quantize(ModelRef("path", str(f16)), quant_types(["Q5_1"]), session)
    assert report.artifact.ref == "local/tiny-llama:Q5_1"
    assert report.source.path == f16


def test_what_is_not_here_is_not_pulled_when_that_is_forbidden(session: Session) -> None:
    with pytest.raises(NotInRegistryError) as caught:
        list(verbs.quantize(ModelRef.parse("org/name"), [Q4_0], session))
    assert caught.value.hint == "get it: `slmkit pull org/name`"
    with pytest.raises(RefError, match="no model 'nonsense'"):
        list(verbs.quantize(ModelRef.parse("nonsense"), [Q4_0], session))
