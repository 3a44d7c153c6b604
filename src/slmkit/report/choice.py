"""Why a file was chosen, in three sentences: what it is, why it and no other, and how sure that is."""

from __future__ import annotations

import math

from slmkit.core import units
from slmkit.core.bench import NOISY, THROTTLED
from slmkit.core.recommend import (
    BOUND,
    ESTIMATED,
    MEASURED,
    OTHER_TEXT,
    Candidate,
    Choice,
    Loser,
    breaches,
    is_certain,
    is_cheaper,
    is_close,
)


def headline(choice: Choice) -> str:
    """The choice in one line: `Q4_K_M: 100.6 MiB at 96.3 tok/s, mean KLD 0.0312 (good)`."""
    if choice.best is None:
        return f"nothing keeps every limit: {', '.join(choice.wish.limits)}"
    best = choice.best
    word = f" ({best.verdict})" if best.verdict else ""
    at = "," if best.speed == BOUND else " at"
    return f"{best.name}: {units.size(best.size_bytes)}{at} {rate(best)} tok/s, mean KLD {kld(best)}{word}"


def sentences(choice: Choice) -> tuple[str, str, str]:
    """All three."""
    return f"{headline(choice)}.", f"{_why(choice)}.", f"{_how_sure(choice)}."


def why(choice: Choice) -> str:
    """The first two as one, without a stop."""
    because = _why(choice)
    return f"{headline(choice)}: {because[0].lower()}{because[1:]}"


def rate(candidate: Candidate) -> str:
    """Tokens per second, with a ~ for an estimate, and as a bound where no more than that is known."""
    if candidate.tok_per_s is None:
        return units.DASH
    if candidate.speed == BOUND:
        return f"at most ~{candidate.tok_per_s:.{0 if candidate.tok_per_s >= 100 else 1}f}"
    return f"{'~' if candidate.speed == ESTIMATED else ''}{candidate.tok_per_s:.1f}"


def kld(candidate: Candidate) -> str:
    """The mean KLD, with a ~ for an estimate."""
    if candidate.kld is None or not math.isfinite(candidate.kld):
        return units.DASH
    if candidate.quality == OTHER_TEXT:
        return f"~{candidate.kld:.4f}"
    return f"~{candidate.kld:.3f}" if candidate.quality == ESTIMATED else f"{candidate.kld:.4f}"


def _why(choice: Choice) -> str:
    best = choice.best
    if best is None:
        nearest = choice.nearest
        if nearest is None:
            return "Of none is enough known to say which is nearest"
        return f"The nearest is {nearest.candidate.name}: {nearest.reason}"
    limits = ", ".join(choice.wish.limits)
    keeping = [loser for loser in choice.losers if _keeps(loser, choice)]
    others = [loser.candidate for loser in keeping]
    is_known = all(is_certain(candidate, choice.wish) for candidate in (best, *others))
    if not others:
        return f"It is the only one that {'keeps' if is_known else 'may keep'} every limit ({limits})"
    virtues = [
        word
        for word, is_so in (
            ("the smallest", best.size_bytes <= min(c.size_bytes for c in others)),
            ("the fastest", (best.tok_per_s or 0) >= max(c.tok_per_s or 0 for c in others)),
        )
        if is_so
    ]
    of = f"Of the {choice.n_keeping} that {'keep' if is_known else 'may keep'} every limit ({limits}) it is"
    if len(virtues) == 2:
        return f"{of} the smallest and the fastest"
    runner_up = f"{others[0].name} is {keeping[0].reason}"
    found = f"{virtues[0]}, and " if virtues else ""
    return f"{of} {found}the one with the least size times time for a token: {runner_up}"


def _keeps(loser: Loser, choice: Choice) -> bool:
    c = loser.candidate
    is_known = c.failure is None and c.kld is not None and c.tok_per_s is not None
    return is_known and c.is_proven is not choice.is_estimate and not any(breaches(c, choice.wish))


_SPEED = {
    MEASURED: "was measured",
    BOUND: "is at most that, which the bandwidth of the memory allows",
    ESTIMATED: "is an estimate by the bandwidth of the memory",
}
_QUALITY = {
    MEASURED: "was measured",
    OTHER_TEXT: "is an estimate, measured on other text",
    ESTIMATED: "is an estimate by its bits per weight",
}


def _how_sure(choice: Choice) -> str:
    best = _subject(choice)
    if best is None:
        return "Nothing was measured"
    speed, quality = _SPEED[best.speed], _QUALITY[best.quality]
    if best.speed_from:
        speed = f"is estimated from {best.speed_from}"
    known = "Speed and quality were measured" if speed == quality else f"Its quality {quality}; its speed {speed}"
    return "; ".join([known, *caveats(choice)])


def caveats(choice: Choice) -> list[str]:
    """What may be otherwise than it seems, besides estimates."""
    best = _subject(choice)
    if best is None:
        return []
    found = []
    if is_close(best, choice.wish):
        found.append("its KLD is within two standard errors of the limit, so that more text may decide otherwise")
    if best.state in (NOISY, THROTTLED):
        found.append(f"its speed is {best.state}: something disturbed the measurement")
    return found if choice.is_estimate else [*found, *_untried(choice)]


def _subject(choice: Choice) -> Candidate | None:
    """Whom the third sentence is about."""
    return choice.best or (choice.nearest.candidate if choice.nearest else None)


def _untried(choice: Choice) -> list[str]:
    """What might be better still."""
    best = choice.best
    hopeful = [
        loser.candidate.name
        for loser in choice.losers
        if not loser.candidate.is_proven
        and loser.candidate.failure is None
        and is_cheaper(loser.candidate, best)
        and not any(breaches(loser.candidate, choice.wish))
    ]
    return [f"not measured, and perhaps better: {', '.join(hopeful)}"] if hopeful else []
