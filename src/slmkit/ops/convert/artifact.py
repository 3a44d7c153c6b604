"""A checkpoint of the registry becomes a GGUF of the registry."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from slmkit._version import __version__
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import Progress
from slmkit.ops.convert.pipeline import convert
from slmkit.ops.convert.plan import resolve_type
from slmkit.ops.describe import now
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry


def convert_artifact(
    source: Artifact,
    registry: Registry,
    progress: Progress,
    *,
    outtype: str = "f16",
    target: Path | None = None,
    force: bool = False,
) -> Artifact:
    """Convert and register; with `target` write there instead, registering nothing.

    Raises the converter's errors, `DiskFullError`, `LockedError`. Whatever goes wrong, nothing half made is registered.
    """
    resolved = resolve_type(source.root, outtype)
    variant = resolved.upper()
    if target is None and not force and (found := registry.find_current(source, variant)):
        progress.say(f"{found.ref} is there already")
        return found
    final = target.absolute() if target else paths.gguf_path(registry.home, source.model, variant)
    with ExitStack() as stack:
        if target is None:
            stack.enter_context(registry.locked(source.model))
        with atomic.partial(final) as temporary:
            report = convert(source.root, temporary, outtype=resolved, model_id=source.repo_id, progress=progress)
            if target is None:  # an old manifest must not describe the new file for even a moment
                paths.manifest_path(registry.home, source.model, variant).unlink(missing_ok=True)
        artifact = Artifact(
            model=source.model,
            variant=variant,
            root=final.parent,
            files=(File(final.name, report.size_bytes, report.sha256),),
            owned=True,
            provenance=Provenance(
                "convert",
                repo=source.provenance.repo,
                commit=source.provenance.commit,
                parents=(source.digest,) if source.files else (),
                parameters={"type": variant, "source": source.ref},
                tools={"slmkit": __version__},
                notes=source.provenance.notes,
            ),
            created=now(),
            facts=report.facts,
        )
        if target is None:
            registry.publish(artifact)
    return artifact
