"""A job for another machine, and the models for it there: the laptop writes the kit, the small machine measures.

No model is in a kit: it lists them with size and digest, and says how to get them there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from slmkit._version import __version__
from slmkit.core import units
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.job import Job, JobModel, hashes
from slmkit.core.progress import Progress
from slmkit.core.refs import ModelRef
from slmkit.errors import FormatError, NotInRegistryError, RefError, UsageError
from slmkit.ops import adopt
from slmkit.ops.describe import now
from slmkit.registry import atomic
from slmkit.registry.store import Registry, is_whole

JOB, MODELS, README = "job.json", "models.txt", "README.md"


def export(artifacts: Sequence[Artifact], specs: Sequence[BenchSpec], folder: Path, *, max_time_s: float) -> Job:
    """Write `job.json`, `models.txt` and `README.md` into a folder; raises `UsageError` for one with a job in it."""
    models = tuple(dict.fromkeys(map(JobModel.of, artifacts)))
    job = Job(now(), __version__, models, tuple(specs), max_time_s)
    names = [file.name for model in models for file in model.files]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two of the models have a file {double}: they cannot lie beside each other", hint="two kits")
    if (folder / JOB).exists():
        raise UsageError(f"{folder / JOB} is there already", hint="name a new folder")
    atomic.write_text(folder / MODELS, _list(models))
    atomic.write_text(folder / README, _readme(job, artifacts))
    atomic.write_text(folder / JOB, json.dumps(job.document(), indent=1, ensure_ascii=False) + "\n")
    return job


def load(path: Path) -> Job:
    """The job in a file, or in the kit's folder; raises `UsageError` and `FormatError`."""
    path = path / JOB if path.is_dir() else path
    try:
        return Job.from_document(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        hint = "give the job.json of `slmkit bench --export-kit DIR`"
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=hint) from error
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error


def artifacts(job: Job, path: Path, registry: Registry, progress: Progress) -> list[Artifact]:
    """The job's models that are here, in its order: those with the same bytes in the registry or beside the job file,
    else one of the registry with the same name. `progress` is told which are missing or have other bytes.

    Raises `NotInRegistryError` when none is here.
    """
    folder = path if path.is_dir() else path.absolute().parent
    here = {hashes(artifact.files): artifact for artifact in registry.artifacts() if is_whole(artifact)}
    found: list[Artifact] = []
    for model in job.models:
        same = here.get(model.hashes) or _beside(model, folder, progress)
        artifact = replace(same, typed=model.ref) if same else _named(model, registry)
        if artifact is None:
            names = ", ".join(file.name for file in model.files)
            progress.warn(f"{model.ref} is not here: put {names} into {folder}")
        else:
            found.append(artifact)
            if not same:
                progress.warn(f"{artifact.ref} has other bytes here than in the job: its numbers are its own")
    if not found:
        raise NotInRegistryError(
            "none of the job's models is here", hint=f"put them into {folder}: {README} says how, {MODELS} lists them"
        )
    return found


def _beside(model: JobModel, folder: Path, progress: Progress) -> Artifact | None:
    paths = [folder / file.name for file in model.files]
    if not all(p.is_file() and p.stat().st_size == f.size_bytes for p, f in zip(paths, model.files, strict=True)):
        return None
    found = adopt.describe(paths[0], progress)
    if hashes(found.files) == model.hashes:
        return found
    progress.warn(
        f"{paths[0]} has other bytes than the job says: damaged on its way? `sha256sum -c {MODELS}` checks it"
    )
    return None


def _named(model: JobModel, registry: Registry) -> Artifact | None:
    try:
        ref = ModelRef.parse(model.ref)
    except RefError:
        return None
    found = registry.find(ref.model, ref.variant) if ref.kind == "hub" and ref.variant else None
    return found if found and is_whole(found) else None


def _list(models: Sequence[JobModel]) -> str:
    """As `sha256sum -c` reads it."""
    lines = [f"# The models of {JOB}, beside which they belong; `sha256sum -c {MODELS}` checks them.\n"]
    for model in models:
        lines.append(f"# {model.ref}, {units.size(model.size_bytes)}\n")
        lines += [f"{file.sha256}  {file.name}\n" for file in model.files]
    return "".join(lines)


def _readme(job: Job, sources: Sequence[Artifact]) -> str:
    rows = "".join(f"| `{m.ref}` | {units.size(m.size_bytes)} |\n" for m in job.models)
    paths = [source.root / file.name for source in sources for file in source.files]
    pulled = [source.ref for source in sources if source.provenance.action == "pull"]
    return _README.format(
        slmkit=job.slmkit,
        created=job.created,
        n_specs="one configuration" if len(job.specs) == 1 else f"{len(job.specs)} configurations",
        rows=rows,
        size=units.size(sum(model.size_bytes for model in job.models)),
        paths=shlex.join(map(str, paths)),
        pulls=_PULLS.format(pulls="\n".join(f"       slmkit pull {shlex.quote(r)}" for r in pulled)) if pulled else "",
        job=JOB,
        models=MODELS,
    )


_PULLS = """
   These are quants of GGUF repositories, which the other machine can get from the Hub itself:

{pulls}
"""
_README = """# A bench for another machine

Made by slmkit {slmkit} on {created}: these models, each under {n_specs}.

| model | size |
| --- | --- |
{rows}
1. Copy this folder to the other machine, and the models into it ({size}):

       scp -r . OTHER:bench-kit
       scp {paths} OTHER:bench-kit/

   What is in the other machine's registry with the same bytes need not be copied.
{pulls}
2. There, with slmkit and its engine (`pip install 'slmkit[engine]'`):

       cd bench-kit
       sha256sum -c {models}
       slmkit bench --job {job}
       slmkit runs export latest -o run.json

3. Back here:

       scp OTHER:bench-kit/run.json .
       slmkit runs import run.json
       slmkit runs list
"""
