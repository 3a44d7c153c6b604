"""Several types at the same time: their order, their number, and what happens when one or all of them fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slmkit.backends.llamacpp import quantize as engine_quantize
from slmkit.core.artifact import Artifact
from slmkit.core.progress import SILENT
from slmkit.core.quant import QUANT_TYPES, quant_types
from slmkit.core.refs import ModelRef
from slmkit.errors import ChangedError, DiskFullError, ImatrixNeededError
from slmkit.ops.quantize import quantize
from slmkit.recipes import verbs
from slmkit.recipes.session import Session
from slmkit.registry import paths
from slmkit.registry.atomic import PARTIAL
from slmkit.registry.store import Registry
from slmkit.registry.verify import verify


def names(registry: Registry) -> list[str]:
    return [artifact.variant or "" for artifact in registry.artifacts()]


def test_the_results_have_the_order_of_the_request(checkpoint: Path, session: Session) -> None:
    wanted = quant_types(["IQ3_S,Q4_0,F16,BF16,Q8_0,Q2_K"])  # the first one takes longest
    reports = list(verbs.quantize(ModelRef("path", str(checkpoint)), wanted, session, n_threads=4))
    assert [report.artifact.variant for report in reports] == [quant.name for quant in wanted]
    assert [report.quant for report in reports] == list(wanted)
    for artifact in session.registry.artifacts():
        assert verify(artifact, SILENT) == []


def test_together_they_are_the_bytes_that_they_are_alone(float_artifact: Artifact, registry: Registry) -> None:
    wanted = quant_types(["Q4_0,Q5_1,Q4_K_M"])
    together = [r.artifact for r in quantize(float_artifact, wanted, registry, SILENT, n_threads=3)]
    assert [a.provenance.parameters["n_threads"] for a in together] == [3, 3, 3]
    for quant, made in zip(wanted, together, strict=True):
        (alone,) = quantize(float_artifact, [quant], registry, SILENT, n_threads=3, force=True)
        assert alone.artifact.digest == made.digest


def test_one_that_fails_does_not_stop_the_others(float_artifact: Artifact, registry: Registry) -> None:
    failed: dict[str, type] = {}
    reports = quantize(
        float_artifact,
        quant_types(["Q4_0,IQ1_S,Q8_0"]),
        registry,
        SILENT,
        n_threads=3,
        on_failure=lambda quant, error: failed.update({quant.name: type(error)}),
    )
    assert [report.quant.name for report in reports] == ["Q4_0", "Q8_0"]
    assert failed == {"IQ1_S": ImatrixNeededError}


def test_who_stops_listening_stops_the_rest(float_artifact: Artifact, registry: Registry) -> None:
    reports = quantize(float_artifact, quant_types(["Q4_0,Q8_0,IQ3_S,IQ3_M"]), registry, SILENT, n_threads=1)
    next(reports)
    reports.close()
    assert "IQ3_M" not in names(registry)
    assert not list(paths.model_dir(registry.home, float_artifact.model).glob(f"{PARTIAL}*"))
    with registry.locked(float_artifact.model):
        pass


def test_the_disk_must_have_room_for_all_of_them(
    float_artifact: Artifact, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.4M parameters: 0.8 MB in Q4_0, 1.5 MB in Q8_0; what does not fit beside the ones before it is refused."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2_000_000})())
    failed: dict[str, type] = {}
    reports = quantize(
        float_artifact,
        quant_types(["Q4_0,Q8_0,Q4_1"]),
        registry,
        SILENT,
        on_failure=lambda quant, error: failed.update({quant.name: type(error)}),
    )
    assert [report.quant.name for report in reports] == ["Q4_0", "Q4_1"]
    assert failed == {"Q8_0": DiskFullError}


def test_a_disk_that_fills_up_fails_those_that_do_not_fit(float_artifact: Artifact, registry: Registry) -> None:
    """A limit on the size of files makes the engine's writes fail as a full disk does."""
    code = (
        "import resource\n"
        "from slmkit.core.progress import SILENT\n"
        "from slmkit.core.quant import quant_types\n"
        "from slmkit.ops.quantize import quantize\n"
        "from slmkit.registry.store import Registry\n"
        "registry = Registry()\n"
        f"source = registry.find({float_artifact.model!r}, 'F16')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))\n"
        "said = lambda quant, error: print(quant, error.code)\n"
        "for report in quantize(source, quant_types(['Q8_0,Q4_0,Q8_0']), registry, SILENT, n_threads=2,"
        " on_failure=said):\n"
        "    print(report.quant, 'made')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["Q8_0 disk.full", "Q4_0 made"], done.stderr
    assert names(registry) == ["F16", "Q4_0"]
    assert not list(paths.model_dir(registry.home, float_artifact.model).glob(f"{PARTIAL}*"))


def test_a_source_that_changes_while_it_is_read_is_of_no_use(
    float_artifact: Artifact, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is the real one; what it was given is touched when it is done."""
    real = engine_quantize.quantize_together

    def then_touched(source: Path, *arguments: Any, **options: Any) -> object:
        result = real(source, *arguments, **options)
        os.utime(source, ns=(0, 0))
        return result

    monkeypatch.setattr("slmkit.ops.quantize.make.quantize_together", then_touched)
    with pytest.raises(ChangedError, match="has changed while it was read"):
        list(quantize(float_artifact, [QUANT_TYPES["Q4_0"]], registry, SILENT))
    assert names(registry) == ["F16"]


def test_a_source_that_is_not_what_was_registered_is_refused(float_artifact: Artifact, registry: Registry) -> None:
    float_artifact.path.unlink()
    with pytest.raises(ChangedError, match="gone or not what was registered"):
        list(quantize(float_artifact, [QUANT_TYPES["Q4_0"]], registry, SILENT))
