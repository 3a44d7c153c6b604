"""The parent's side of damage: one typed call for one child."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.core.damage import Likely, Place
from slmkit.core.losses import shown
from slmkit.core.quality import Corpus, QualitySpec


@dataclass(frozen=True)
class Found:
    """The bytes of each token of each chunk, by domain and number; and the most likely tokens of a model (by its
    number) at a token, by domain, chunk and place among the scored ones.
    """

    pieces: dict[tuple[str, int], tuple[bytes, ...]] = field(default_factory=dict)
    top: dict[tuple[int, str, int, int], tuple[Likely, ...]] = field(default_factory=dict)


def damage(
    base: Path,
    models: Sequence[Path],
    corpus: Corpus,
    spec: QualitySpec,
    *,
    chunks: Sequence[tuple[str, int]],
    wanted: Sequence[Sequence[Place]],
) -> Found:
    """The tokens of `chunks`, and what base and each of `models` expect at those `wanted` of it.

    Raises the engine's errors.
    """
    found = Found()

    def listen(event: Event, _: int) -> None:
        match event["event"]:
            case "pieces":
                domain, number = event["chunk"]
                found.pieces[domain, number] = tuple(piece.encode("latin-1") for piece in event["pieces"])
            case "top":
                top = tuple(Likely(shown(piece.encode("latin-1")), p) for piece, p in event["top"])
                domain, number, index = event["place"]
                found.top[event["model"], domain, number, index] = top

    domains = {domain for domain, _ in chunks}
    arguments = {
        "base": str(base),
        "models": [str(path) for path in models],
        "texts": [(text.domain, text.text) for text in corpus.texts if text.domain in domains],
        "n_ctx": spec.n_ctx,
        "n_threads": spec.n_threads,
        "n_gpu_layers": spec.n_gpu_layers,
        "chunks": list(chunks),
        "wanted": [[(place.domain, place.number, place.index) for place in places] for places in wanted],
    }
    run("damage", arguments, listen=listen, timeout_s=spec.timeout_s)
    return found
