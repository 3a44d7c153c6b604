"""Every error that slmkit raises on purpose.

SlmkitError                     1  error
├── UsageError                  2  usage             what was typed is wrong
│   ├── RefError                2  usage.ref         not a model reference
│   ├── UnknownTypeError        2  usage.type        not a quant type
│   └── RecipeError             2  usage.recipe      a recipe file is wrong: file and line are in the message
├── HubError                    1  hub               the Hugging Face Hub said no, or nothing
│   ├── RepoNotFoundError       1  hub.not-found
│   ├── RevisionNotFoundError   1  hub.revision
│   ├── HubFileNotFoundError    1  hub.file          the repository has no such file or quant
│   ├── GatedRepoError          1  hub.gated
│   ├── UnauthorizedError       1  hub.unauthorized
│   ├── RateLimitedError        1  hub.rate-limited
│   ├── HubServerError          1  hub.server
│   ├── ConnectionCutError      1  hub.cut
│   ├── NoNetworkError          1  hub.no-network
│   ├── OfflineError            1  hub.offline       offline mode, and the files are not here
│   └── WrongBytesError         1  hub.wrong-bytes   sha256 or size differ from what the Hub promised
├── DiskFullError               1  disk.full
├── CannotWriteError            1  disk.write        a file or folder that the user named cannot be written
├── ChangedError                1  changed           a file has changed since it was registered, or while it was read
├── FormatError                 1  format            a file is not what it should be
│   ├── GgufError               1  format.gguf
│   │   └── GgufTypeError       1  format.gguf.type  a tensor type that llama.cpp does not load, such as i2_s
│   ├── ImatrixError            1  format.imatrix    not an importance matrix, or a damaged one
│   ├── SafetensorsError        1  format.safetensors
│   └── TokenizerError          1  format.tokenizer
├── ConvertError                1  convert
│   ├── UnsupportedArchError    1  convert.arch
│   ├── UnclaimedTensorsError   1  convert.tensors
│   └── UnknownPreTokenizerError 1 convert.pre-tokenizer
├── EngineError                 1  engine            llama.cpp could not do it
│   ├── EngineMissingError      1  engine.missing
│   ├── EngineCrashedError      1  engine.crashed    the child died: signal and last log lines
│   ├── EngineTimeoutError      1  engine.timeout
│   ├── ImatrixNeededError      1  engine.imatrix    the type is refused without an importance matrix
│   └── OutOfMemoryError        1  engine.memory
├── RegistryError               1  registry
│   ├── NotInRegistryError      1  registry.not-found
│   ├── LockedError             1  registry.locked
│   ├── NotRebuiltError         1  registry.rebuild  what was dropped cannot be made again, or has other bytes now
│   └── DamagedError            3  registry.damaged  verify found files that are not what they were
├── CannotMeasureError          1  measure           this machine does not let it be measured
├── DependencyMissingError      1  missing           an optional package is not installed
├── SomeFailedError             1  some-failed       some items failed, the others were done
├── VerdictError                3  verdict           it ran, and the answer is no
├── InconclusiveError           1  inconclusive      it ran, and the answer is neither yes nor no
└── InterruptedByUserError    130  interrupted       Ctrl-C: raised by nobody, shown by the command line

The number is the exit code of the command line, the word is `code` (what `--json` prints).
"""

from __future__ import annotations

import errno
from typing import ClassVar


class SlmkitError(Exception):
    """Base of all errors here.

    `hint` says what to do next, where possible as a command to type.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SlmkitError):
    """What was typed is wrong."""

    code = "usage"
    exit_code = 2


class RefError(UsageError):
    """Not a model reference."""

    code = "usage.ref"


class UnknownTypeError(UsageError):
    """Not a quant type."""

    code = "usage.type"


class RecipeError(UsageError):
    """A recipe file is wrong."""

    code = "usage.recipe"


class HubError(SlmkitError):
    """The Hugging Face Hub said no, or nothing."""

    code = "hub"


class RepoNotFoundError(HubError):
    """No such repository, or a private one without the right token."""

    code = "hub.not-found"


class RevisionNotFoundError(HubError):
    """The repository has no such branch, tag or commit."""

    code = "hub.revision"


class HubFileNotFoundError(HubError):
    """The repository has no such file or quant."""

    code = "hub.file"


class GatedRepoError(HubError):
    """Access to the repository must be asked for on its page."""

    code = "hub.gated"


class UnauthorizedError(HubError):
    """The token is missing, wrong or expired."""

    code = "hub.unauthorized"


class RateLimitedError(HubError):
    """429, and still 429 after the retries."""

    code = "hub.rate-limited"


class HubServerError(HubError):
    """5xx, and still 5xx after the retries."""

    code = "hub.server"


class ConnectionCutError(HubError):
    """The transfer broke off again and again; what arrived is kept for the next try."""

    code = "hub.cut"


class NoNetworkError(HubError):
    """The Hub's host cannot be reached."""

    code = "hub.no-network"


class OfflineError(HubError):
    """Offline mode was asked for, and the files are not in the cache."""

    code = "hub.offline"


class WrongBytesError(HubError):
    """Size or sha256 differ from what the Hub promised; the bytes were thrown away."""

    code = "hub.wrong-bytes"


class DiskFullError(SlmkitError):
    """Not enough free space for what was asked."""

    code = "disk.full"


def is_disk_full(error: OSError) -> bool:
    """Whether the system refused to write because there is no room: disk, quota or file size limit."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CannotWriteError(SlmkitError):
    """A file or folder that the user named cannot be written."""

    code = "disk.write"


class ChangedError(SlmkitError):
    """A file has changed since it was registered, or while it was read; what was made of it was thrown away."""

    code = "changed"


class FormatError(SlmkitError):
    """A file is not what it should be."""

    code = "format"


class GgufError(FormatError):
    """Not a GGUF file, or a damaged one."""

    code = "format.gguf"


class GgufTypeError(GgufError):
    """Tensors of a type that llama.cpp does not load, such as Microsoft's i2_s."""

    code = "format.gguf.type"


class ImatrixError(FormatError):
    """Not an importance matrix, or a damaged one."""

    code = "format.imatrix"


class SafetensorsError(FormatError):
    """Not a safetensors file, or a damaged one."""

    code = "format.safetensors"


class TokenizerError(FormatError):
    """Tokenizer files are missing or contradict each other."""

    code = "format.tokenizer"


class ConvertError(SlmkitError):
    """The checkpoint cannot be converted."""

    code = "convert"


class UnsupportedArchError(ConvertError):
    """No converter for this architecture."""

    code = "convert.arch"


class UnclaimedTensorsError(ConvertError):
    """Tensors that the architecture does not know."""

    code = "convert.tensors"


class UnknownPreTokenizerError(ConvertError):
    """The tokenizer splits text in a way that llama.cpp has no name for."""

    code = "convert.pre-tokenizer"


class EngineError(SlmkitError):
    """llama.cpp could not do it. `log` holds its last lines."""

    code = "engine"

    def __init__(self, message: str, *, hint: str | None = None, log: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.log = log


class EngineMissingError(EngineError):
    """llama-cpp-python is not installed."""

    code = "engine.missing"


class EngineCrashedError(EngineError):
    """The child process died in native code."""

    code = "engine.crashed"


class EngineTimeoutError(EngineError):
    """The child process was stopped because it took too long."""

    code = "engine.timeout"


class ImatrixNeededError(EngineError):
    """The quant type needs an importance matrix for this model's shapes."""

    code = "engine.imatrix"


class OutOfMemoryError(EngineError):
    """The model, its context or its buffers did not fit into memory."""

    code = "engine.memory"


class RegistryError(SlmkitError):
    """The registry cannot do it."""

    code = "registry"


class NotInRegistryError(RegistryError):
    """No such model or variant in the registry."""

    code = "registry.not-found"


class LockedError(RegistryError):
    """Another process is writing the same model."""

    code = "registry.locked"


class NotRebuiltError(RegistryError):
    """What was dropped cannot be made again, or was and has other bytes than before."""

    code = "registry.rebuild"


class DamagedError(RegistryError):
    """Files are not what they were when they were registered."""

    code = "registry.damaged"
    exit_code = 3


class CannotMeasureError(SlmkitError):
    """It could not be found out."""

    code = "measure"


class DependencyMissingError(SlmkitError):
    """An optional package is not installed."""

    code = "missing"


class SomeFailedError(SlmkitError):
    """Some items failed; the others were done."""

    code = "some-failed"


class VerdictError(SlmkitError):
    """It ran, and the answer is no."""

    code = "verdict"
    exit_code = 3


class InconclusiveError(SlmkitError):
    """It ran, and the answer is neither yes nor no."""

    code = "inconclusive"


class InterruptedByUserError(SlmkitError):
    """Ctrl-C. What was finished is kept."""

    code = "interrupted"
    exit_code = 130

    def __init__(self, *, resumable: bool = False) -> None:
        """`resumable` is a command that begins anew without `--resume`, and has said itself what is kept for it."""
        if resumable:
            super().__init__("interrupted")
        else:
            super().__init__("interrupted: what was finished is kept", hint="run the same command again to go on")
