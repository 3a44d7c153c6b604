"""The relative error of each tensor in each type, measured once: the table is kept below `SLMKIT_HOME`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slmkit.backends.llamacpp import child
from slmkit.backends.llamacpp.distortion import Distortion, Probe, distortion
from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quantize import ImatrixFile
from slmkit.errors import ChangedError
from slmkit.ops.target.candidates import TYPES
from slmkit.registry import atomic, paths
from slmkit.registry.store import Registry
from slmkit.registry.unchanged import unchanged

SAMPLE_WEIGHTS = 1 << 18
"""Of each tensor, in whole rows; of a smaller one all. The errors of 8,192 blocks are known to about 1 %."""
_SCHEMA = 1


def measure(
    source: Artifact,
    probes: Sequence[Probe],
    registry: Registry,
    progress: Progress,
    *,
    imatrix: ImatrixFile | None,
    n_threads: int,
) -> Mapping[str, Distortion]:
    """The distortion of each of `probes` by name. What an interrupted run has measured is not measured again.

    Raises `ChangedError` for a source or matrix that is not what it was registered as: then nothing is kept.
    """
    path = paths.distortion_path(registry.home, _key(source, imatrix))
    found = _read(path)
    todo = [probe for probe in probes if probe.tensor.name not in found]
    if not todo:
        return found
    with progress.task("measure the errors of each type", len(probes), "tensors", done=len(probes) - len(todo)) as task:

        def add(name: str, measured: Distortion) -> None:
            found[name] = measured
            task.advance()

        try:
            file = imatrix.path if imatrix else None
            with unchanged(source, imatrix):
                distortion(todo, imatrix=file, n_sample=SAMPLE_WEIGHTS, n_threads=n_threads, listen=add)
        except ChangedError:
            found.clear()
            raise
        finally:
            if found:
                _write(path, source, found)
    return found


def _key(source: Artifact, imatrix: ImatrixFile | None) -> str:
    """Of everything that makes another table."""
    what = [_SCHEMA, source.digest, imatrix and imatrix.digest, TYPES, SAMPLE_WEIGHTS, child.installed()]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Distortion]:
    """Nothing where there is none, or one that nobody can read."""
    try:
        tensors = json.loads(path.read_text("utf-8"))["tensors"]
        return {name: Distortion(entry["relative_errors"], entry["n_rows"]) for name, entry in tensors.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(path: Path, source: Artifact, found: Mapping[str, Distortion]) -> None:
    tensors = {name: {"relative_errors": d.relative_errors, "n_rows": d.n_rows} for name, d in found.items()}
    document: dict[str, Any] = {"schema": _SCHEMA, "source": source.ref, "digest": source.digest, "tensors": tensors}
    atomic.write_text(path, json.dumps(document))
