"""`export`: a GGUF back to a Hugging Face checkpoint, in a folder or in the registry."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit._version import __version__
from slmkit.core.artifact import Artifact, Provenance
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.ops import adopt, locate
from slmkit.recipes.session import Session
from slmkit.registry import atomic, paths

if TYPE_CHECKING:
    from slmkit.ops.export import ExportReport


def export(ref: ModelRef, folder: Path, session: Session) -> ExportReport:
    """Turn one GGUF back into a Hugging Face checkpoint in `folder`."""
    from slmkit.ops.export import export_hf  # loads numpy

    found = locate.ggufs(ref, session.registry, session.progress)
    if len(found) > 1:
        raise UsageError(f"{ref} has several types", hint=f"say which: `slmkit export {found[0].ref} DIR`")
    return export_hf(found[0].path, folder, progress=session.progress)


def restore(gguf: Path, model: str, repo: str, session: Session) -> Artifact:
    """Register a checkpoint restored from a GGUF as `model`; its notes say what the weights went through."""
    from slmkit.ops.export import export_hf  # loads numpy

    registry = session.registry
    folder = paths.model_dir(registry.home, model) / "checkpoint"
    with registry.locked(model, session.progress):
        shutil.rmtree(folder, ignore_errors=True)  # without a manifest it is what an interrupted run left
        report = export_hf(gguf, folder, progress=session.progress)
        found = adopt.describe(folder, session.progress, model)
        artifact = replace(
            found,
            owned=True,
            provenance=Provenance(
                "export",
                repo=repo,
                parents=(f"sha256:{atomic.sha256(gguf)}",),
                parameters={"source": gguf.name},
                tools={"slmkit": __version__},
                notes=report.notes,
            ),
        )
        registry.publish(artifact)
    return artifact
