from __future__ import annotations

from pathlib import Path

import pytest

from slmkit.core.progress import SILENT
from slmkit.ops.doctor import examine
from slmkit.registry.store import Registry


def test_a_well_machine_has_no_fault(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    findings = {f.what: f for f in examine(registry, SILENT)}
    assert [f for f in findings.values() if f.ok is False] == []
    assert "Q4_0" in findings["decode self-test"].found
    assert {"clock", "heat", "energy", "memory limit"} <= set(findings)
    assert findings["Hub"].ok is None
    assert "127.0.0.1:9" in findings["Hub"].found


def test_what_is_wrong_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("slmkit.ops.doctor.installed", lambda: None)
    monkeypatch.setattr("os.access", lambda *_: False)
    findings = {f.what: f for f in examine(Registry(Path("/proc/no")), SILENT)}
    for what, cure in (("engine", "slmkit[engine]"), ("registry", "SLMKIT_HOME")):
        assert findings[what].ok is False
        assert cure in (findings[what].hint or "")
    assert "offline" in findings["Hub"].found
