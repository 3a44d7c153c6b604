"""Does the file that was made work? The engine loads it in a child, decodes a few words and goes on a little."""

from __future__ import annotations

from pathlib import Path

from slmkit.backends.llamacpp import engine
from slmkit.core.progress import Progress
from slmkit.errors import EngineError, EngineMissingError, OutOfMemoryError


def verify(path: Path, progress: Progress) -> bool:
    """Whether it was seen to work; `False`, with a warning, where that cannot be tried: no engine, too little memory.

    `path` is the file, or the first shard. Raises `EngineError` when the engine cannot load it, or its output is not
    finite, empty, or the same whatever goes in.
    """
    try:
        with progress.task("verify", None, "steps"):
            engine.smoke(path)
    except (EngineMissingError, OutOfMemoryError) as error:
        progress.warn(f"not verified: {error.message}" + (f"; {error.hint}" if error.hint else ""))
        return False
    except EngineError as error:
        raise type(error)(
            f"the file that was made does not work: {error.message}",
            hint=error.hint or "`--no-verify` keeps such a file, for another engine that can run it",
            log=error.log,
        ) from error
    return True
