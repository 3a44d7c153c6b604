"""Where things lie below `SLMKIT_HOME`.

models/<org>/<name>/checkpoint.json            manifest of a checkpoint (its files: Hugging Face cache or a folder)
models/<org>/<name>/<name>-Q4_0.gguf           a GGUF made here
models/<org>/<name>/<name>-Q4_0.json           its manifest, written last: a manifest means complete
models/<org>/<name>@<revision>/...             the same for a revision other than the default
imatrix/<org>/<name>/<label>.gguf              an importance matrix, named after its text; <label>.json is its manifest
runs/<time>-<kind>-<id>.json                   one document for each bench run
locks/                                         one lock file for each model being written
distortion/<key>.json                          what each type does to each tensor of a file: measured once
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote


def home() -> Path:
    """`SLMKIT_HOME`, or the platform's folder for user data."""
    chosen = os.environ.get("SLMKIT_HOME")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("slmkit", appauthor=False))


def model_dir(home: Path, model: str) -> Path:
    """The folder of `org/name` or `org/name@revision`; a `/` in the revision is escaped."""
    org, _, rest = model.partition("/")
    return home / "models" / org / quote(rest, safe="@")


def model_of(folder: Path) -> str:
    """The inverse of `model_dir`."""
    return f"{folder.parent.name}/{unquote(folder.name)}"


def stem(model: str, variant: str | None) -> str:
    """File name without suffix: `SmolLM2-135M-Instruct-Q4_0`, or `checkpoint`."""
    if variant is None:
        return "checkpoint"
    name = model.partition("/")[2].partition("@")[0]
    return f"{name}-{variant}"


def gguf_path(home: Path, model: str, variant: str) -> Path:
    """Where a GGUF that is made here belongs."""
    return model_dir(home, model) / f"{stem(model, variant)}.gguf"


def manifest_path(home: Path, model: str, variant: str | None) -> Path:
    """Where the manifest of an artifact belongs."""
    return model_dir(home, model) / f"{stem(model, variant)}.json"


def imatrix_dir(home: Path, model: str) -> Path:
    """The folder of a model's importance matrices."""
    return home / "imatrix" / model_dir(home, model).relative_to(home / "models")


def lock_path(home: Path, model: str) -> Path:
    """The lock file of a model."""
    return home / "locks" / f"{quote(model, safe='@')}.lock"


def distortion_path(home: Path, key: str) -> Path:
    """The table of errors of one file's tensors."""
    return home / "distortion" / f"{key}.json"
