"""The parent's side of measuring quality: one typed call for one child."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.quality import Chunk, Corpus, QualitySpec

BASE = -1
"""The number of the base; the models have 0 and up."""


@dataclass(frozen=True)
class Save:
    """A baseline that is to be written to `path`, and what its header says of its base and corpus."""

    path: Path
    ref: str
    digest: str
    size_bytes: int
    corpus: str


@dataclass(frozen=True)
class Listening:
    """Who is told: of the texts' tokens by domain and the chunks that are read; of whose turn it is and its process; of
    what a file's vocabulary is beside the first one's (number of tokens, that of the first, whether it splits the text
    the same way); of a file that cannot go on; of a batch of chunks; and of one that is decided.
    """

    text: Callable[[Mapping[str, int], int], None]
    at: Callable[[int, int], None]
    vocabulary: Callable[[int, int, int, bool], None]
    failed: Callable[[int, str], None]
    batch: Callable[[int, Sequence[Chunk]], None]
    decided: Callable[[int, bool], None]


@dataclass(frozen=True)
class Read:
    """What a child has done: the engine's build, and how many tokens each file (by its number) has decoded."""

    build: Mapping[str, str]
    n_decoded: Mapping[int, int]


def n_tokens(path: Path, corpus: Corpus, n_wanted: int) -> Mapping[str, int]:
    """How many tokens a file makes of each domain's text; of a long one only that they are `n_wanted` or more. Raises
    the engine's errors.
    """
    texts = [(text.domain, text.text) for text in corpus.texts]
    result = run("n_tokens", {"path": str(path), "texts": texts, "n_wanted": n_wanted})
    return {str(domain): int(n) for domain, n in result["n_tokens"].items()}


def quality(
    base: Path | None,
    models: Sequence[Path],
    corpus: Corpus,
    spec: QualitySpec,
    *,
    done: Mapping[int, Sequence[Chunk]],
    together: bool,
    timeout_s: float | None = None,
    listening: Listening,
    saved: Path | None = None,
    save: Save | None = None,
) -> Read:
    """Read the corpus with all files; `done` are the chunks that have been read before. The child has
    `timeout_s`, whatever `spec` says of the time for all.

    `saved` is a baseline instead of a base, `save` writes one. Raises the engine's errors, and
    `OSError` when a baseline cannot be written; what `listening` was told before stays true.
    """

    def listen(event: Event, pid: int) -> None:
        match event["event"]:
            case "text":
                listening.text(event["n_tokens"], event["n_chunks"])
            case "at":
                listening.at(event["model"], pid)
            case "vocabulary":
                listening.vocabulary(event["model"], event["n_vocab"], event["wanted"], event["same"])
            case "failed":
                listening.failed(event["model"], event["message"])
            case "batch":
                listening.batch(event["model"], [Chunk.from_document(chunk) for chunk in event["chunks"]])
            case "decided":
                listening.decided(event["model"], event["keeps"])

    arguments = {
        "base": None if base is None else str(base),
        "models": [str(path) for path in models],
        "texts": [(text.domain, text.text) for text in corpus.texts],
        "spec": asdict(spec),
        "done": {str(number): [chunk.document() for chunk in chunks] for number, chunks in done.items()},
        "together": together,
        "saved": None if saved is None else str(saved),
        "save": None if save is None else {**asdict(save), "path": str(save.path)},
    }
    result = run("quality", arguments, listen=listen, timeout_s=timeout_s)
    if "errno" in result:
        raise OSError(result["errno"], os.strerror(result["errno"]))
    return Read(dict(result["build"]), {int(number): n for number, n in result["n_decoded"].items()})
