"""What another machine is to measure: models by digest, configurations, and how long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from slmkit.core.artifact import Artifact, File
from slmkit.core.bench import BenchSpec
from slmkit.errors import FormatError, UsageError

SCHEMA = 1
KIND = "bench-job"


@dataclass(frozen=True)
class JobModel:
    """One GGUF: what it is called, and the bytes that it has. A split one has several files."""

    ref: str
    digest: str
    files: tuple[File, ...]

    @classmethod
    def of(cls, artifact: Artifact) -> JobModel:
        """An artifact that is here; of its files only the names count, wherever they are."""
        files = tuple(File(file.name.rpartition("/")[2], file.size_bytes, file.sha256) for file in artifact.files)
        return cls(artifact.ref, artifact.digest, files)

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of the files, whatever these are called."""
        return hashes(self.files)

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


def hashes(files: Iterable[File]) -> tuple[str, ...]:
    """What tells whether two GGUFs have the same bytes, whole or split."""
    return tuple(sorted(file.sha256 for file in files))


@dataclass(frozen=True)
class Job:
    """Each model under each configuration; of each of these rows measuring begins again for `max_time_s` at most."""

    created: str
    slmkit: str
    models: tuple[JobModel, ...]
    specs: tuple[BenchSpec, ...]
    max_time_s: float

    def __post_init__(self) -> None:
        if not self.models or not self.specs:
            raise UsageError("nothing to measure: a job has models and configurations")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, "kind": KIND, **asdict(self)}

    @classmethod
    def from_document(cls, document: Any) -> Job:
        """The inverse of `document`; raises `FormatError`, which does not name the file, for anything else."""
        if not isinstance(document, Mapping) or document.get("kind") != KIND:
            raise FormatError("not a bench job: expected the job.json of `slmkit bench --export-kit DIR`")
        if document.get("schema") != SCHEMA:
            raise FormatError(f"its schema is {document.get('schema')!r}, this slmkit reads {SCHEMA}: use its version")
        try:
            return cls(
                created=str(document["created"]),
                slmkit=str(document["slmkit"]),
                models=tuple(map(_model, document["models"])),
                specs=tuple(BenchSpec(**spec) for spec in document["specs"]),
                max_time_s=float(document["max_time_s"]),
            )
        except KeyError as error:
            raise FormatError(f"a bench job without {error.args[0]!r}") from error
        except (AttributeError, OverflowError, TypeError, ValueError, UsageError) as error:
            raise FormatError(f"a bench job with something else in it: {error}") from error


def _model(document: Mapping[str, Any]) -> JobModel:
    files = tuple(File(file["name"], int(file["size_bytes"]), file["sha256"]) for file in document["files"])
    if not files or any("/" in file.name or "\\" in file.name or file.name in ("", "..") for file in files):
        raise ValueError("the files of a model are names without folders")
    return JobModel(str(document["ref"]), str(document["digest"]), files)
