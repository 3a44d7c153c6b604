"""A checkpoint of the registry becomes a GGUF of the registry."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from slmkit._version import __version__
from slmkit.core.artifact import JSON, Artifact, File, Provenance
from slmkit.core.convert import ConvertSpec
from slmkit.core.progress import Progress
from slmkit.core.quant import FLOATS
from slmkit.errors import UsageError
from slmkit.formats.pretokenizer_names import check_name
from slmkit.formats.safetensors import read_checkpoint
from slmkit.ops.convert.pipeline import convert
from slmkit.ops.convert.plan import resolve_type, wanted_type
from slmkit.ops.describe import gguf_facts, now
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry, is_whole
from slmkit.registry.unchanged import unchanged


def convert_artifact(
    source: Artifact,
    registry: Registry,
    progress: Progress,
    *,
    outtype: str = "f16",
    spec: ConvertSpec | None = None,
    target: Path | None = None,
    force: bool = False,
) -> Artifact:
    """Convert and register; with `target` write there instead, registering nothing.

    The file appears only after it was loaded and has decoded tokens, unless `spec` says otherwise. One that is there
    already, made from these bytes and in all that `spec` asks for, is not made again.

    Raises the converter's errors, `EngineError` for a file that does not work, `DiskFullError`. Another
    process that works on the model is waited for. Whatever
    goes wrong, nothing half made is registered or left.
    """
    spec = spec or ConvertSpec()
    check_spec(spec)
    resolved = _type(source.root, outtype, spec)
    variant = resolved.upper()
    if target is None and not force and (found := _there(source, variant, spec, registry, progress)):
        return found if found.facts.get("verified") or not spec.verify else _verified(found, registry, progress)
    final = target.absolute() if target else paths.gguf_path(registry.home, source.model, variant)
    with ExitStack() as stack:
        if target is None:
            stack.enter_context(registry.locked(source.model, progress))
            if not force and (found := _there(source, variant, spec, registry, progress)):
                return found  # who had the lock has made it
            if not force:
                _check_is_free(source.model, variant, registry)
        with atomic.staged(final) as folder:
            started = time.perf_counter()
            with unchanged(source):
                files, facts, tools = _make(source, folder / final.name, resolved, spec, progress)
            elapsed_s = round(time.perf_counter() - started, 3)
            verified = spec.verify and _works(folder / files[0].name, progress)
            artifact = Artifact(
                model=source.model,
                variant=variant,
                root=final.parent,
                files=files,
                owned=True,
                provenance=Provenance(
                    "convert",
                    repo=source.provenance.repo,
                    commit=source.provenance.commit,
                    parents=(source.digest,) if source.files else (),
                    parameters={"type": variant, "source": source.ref, **spec.parameters},
                    tools={"slmkit": __version__, **tools},
                    notes=source.provenance.notes,
                ),
                created=now(),
                facts={**facts, "elapsed_s": elapsed_s, "verified": verified},
            )
            if target is None:
                registry.publish(artifact, folder)
    return artifact


def _there(
    source: Artifact, variant: str, spec: ConvertSpec, registry: Registry, progress: Progress
) -> Artifact | None:
    """What need not be made: of these bytes, and made as asked."""
    found = registry.find_current(source, variant)
    if found is None or not spec.is_met_by(found):
        return None
    progress.say(f"{found.ref} is there already")
    return found


def _check_is_free(model: str, variant: str, registry: Registry) -> None:
    """Raise `UsageError` where `quantize` has made a file of that name, which has other bytes; its float files are made
    of other floats, and the converter's are better.
    """
    found = registry.find(model, variant)
    if found and found.provenance.action == "quantize" and variant not in FLOATS and is_whole(found):
        raise UsageError(
            f"{found.ref} is there already, made in another way (by quantize)",
            hint=f"replace it: `--force`, or `slmkit rm {found.ref}` first",
        )


def check_spec(spec: ConvertSpec) -> None:
    """Raise now what would stop the conversion later: a name that llama.cpp does not know, no converter of its own."""
    if spec.pre is not None:
        check_name(spec.pre)
    if spec.converter == "upstream":
        from slmkit.backends.llamacpp import upstream

        upstream.find(spec.llama_cpp)


def _type(checkpoint: Path, outtype: str, spec: ConvertSpec) -> str:
    if spec.converter == "upstream" and outtype.lower() == "auto":  # of any architecture, quantized or not
        return wanted_type(outtype, read_checkpoint(checkpoint))
    return resolve_type(checkpoint, outtype)


def _works(path: Path, progress: Progress) -> bool:
    from slmkit.ops.convert.verify import verify  # 10 ms of imports that `--no-verify` need not wait for

    return verify(path, progress)


def _verified(found: Artifact, registry: Registry, progress: Progress) -> Artifact:
    """One that was made when it could not be tried."""
    if not _works(found.path, progress):
        return found
    artifact = replace(found, facts={**found.facts, "verified": True})
    with registry.locked(found.model, progress):
        registry.publish(artifact)
    return artifact


def _make(
    source: Artifact, target: Path, outtype: str, spec: ConvertSpec, progress: Progress
) -> tuple[tuple[File, ...], Mapping[str, JSON], Mapping[str, str]]:
    """The files, all beside `target`, their facts, and what else made them than slmkit."""
    if spec.converter == "slmkit":
        report = convert(
            source.root,
            target,
            outtype=outtype,
            model_id=source.repo_id,
            commit=source.provenance.commit,
            pre=spec.pre,
            split_max_bytes=spec.split_max_bytes,
            progress=progress,
        )
        return report.files, report.facts, {}
    from slmkit.backends.llamacpp import upstream

    found = upstream.find(spec.llama_cpp)
    with _named(source) as checkpoint:
        made = upstream.convert(
            found, checkpoint, target, outtype=outtype, split_max_bytes=spec.split_max_bytes, progress=progress
        )
    files = tuple(File(path.name, path.stat().st_size, atomic.sha256(path)) for path in made)
    return files, gguf_facts(made[0]), found.tools


@contextmanager
def _named(source: Artifact) -> Iterator[Path]:
    """The checkpoint under its own name: the converter reads it off the folder, which in a cache is a commit."""
    name = source.repo_id.partition("/")[2]
    if source.root.name == name:
        yield source.root
        return
    with tempfile.TemporaryDirectory(prefix="slmkit-") as folder:
        link = Path(folder) / name
        link.symlink_to(source.root.absolute(), target_is_directory=True)
        yield link
