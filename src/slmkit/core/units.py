"""Numbers as people read them. Unknown is `None` and prints as a dash."""

from __future__ import annotations

import re
from collections.abc import Callable

from slmkit.errors import UsageError

DASH = "–"
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_TYPED = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?(?:([KMGT])(I?)B?|B)?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_NUMBER = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)"
_SHARE = re.compile(rf"{_NUMBER} ?(%)?", re.ASCII)
_TIME = re.compile(rf"{_NUMBER} ?(ms|s)", re.ASCII)
_DURATION = re.compile(rf"{_NUMBER} ?([smh])", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of `8GiB`, `1.5 GB`, `800M`, `4096`: KiB, MiB, ... are powers of 1024, K, KB, M, MB, ... powers of 1000.

    Raises `UsageError` for anything else, and for nothing at all.
    """
    match = _TYPED.fullmatch(text.strip())
    base = 1024 if match and match[3] else 1000
    size_bytes = round(float(match[1]) * base ** _POWERS[(match[2] or "").upper()]) if match else 0
    if not size_bytes:
        raise UsageError(f"not a size: {text!r}", hint="a number and a unit: `8GiB` (powers of 1024), `8GB` (of 1000)")
    return size_bytes


def parse_share(text: str) -> float:
    """A share of one: `5%`, `0.5 %`, or the share itself, `0.05`; raises `UsageError` for anything else.

    A number above 1 without its sign is refused: 5 is more likely to be meant as 5 % than as 500 %.
    """
    match = _SHARE.fullmatch(text.strip())
    share = float(match[1]) / (100 if match[2] else 1) if match else None
    if share is None or (match and not match[2] and share > 1):
        raise UsageError(f"not a share: {text!r}", hint="percent, such as `5%`, or a share of one, such as `0.05`")
    return share


def parse_time(text: str) -> int:
    """Nanoseconds of `500ms`, `1.5 s`; raises `UsageError` for anything else, and for no time at all."""
    match = _TIME.fullmatch(text.strip())
    elapsed_ns = round(float(match[1]) * (1e6 if match[2] == "ms" else 1e9)) if match else 0
    if not elapsed_ns:
        raise UsageError(f"not a time: {text!r}", hint="a number and its unit: `500ms`, `1.5s`")
    return elapsed_ns


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `10m`, `1.5 h`; raises `UsageError` for anything else, and for no time at all."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not seconds:
        raise UsageError(f"not a time: {text!r}", hint="a number and its unit: `90s`, `10m`, `1h`")
    return seconds


def size(size_bytes: int | float | None) -> str:
    """`271.1 MiB`, `1.45 GiB`, `512 B`."""
    if size_bytes is None:
        return DASH
    value, digits, unit = _scaled(size_bytes)
    return f"{value:.{digits}f} {unit}"


def size_bound(size_bytes: int | float, rounded: Callable[[float], int]) -> str:
    """The same, `rounded` by `math.ceil` or `math.floor`."""
    value, digits, unit = _scaled(size_bytes)
    return f"{rounded(value * 10**digits) / 10**digits:.{digits}f} {unit}"


def _scaled(size_bytes: int | float) -> tuple[float, int, str]:
    """In its unit, how many digits are shown of it, and the unit."""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return value, 0 if unit == 0 else 2 if unit >= 3 else 1, _BINARY[unit]


def count(n: int | float | None) -> str:
    """`134.5M`, `1.24B`, `960`."""
    if n is None:
        return DASH
    for limit, suffix, digits in ((1e9, "B", 2), (1e6, "M", 1), (1e3, "K", 1)):
        if n >= limit:
            return f"{n / limit:.{digits}f}{suffix}"
    return f"{n:g}"


def several(n: int, noun: str, more: str | None = None) -> str:
    """`1 chunk`, `40 chunks`; `1 process`, `2 processes` with `more="processes"`."""
    return f"{n} {noun if n == 1 else more or noun + 's'}"


def percent(share: float | None) -> str:
    """A share of one: 0.715 is `71.5 %`."""
    return DASH if share is None else f"{share * 100:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    """Fixed digits, or a dash."""
    return DASH if value is None else f"{value:.{digits}f}"


def milliseconds(elapsed_ns: int | float | None) -> str:
    """`84.2 ms`, `1.31 s`."""
    if elapsed_ns is None:
        return DASH
    ms = elapsed_ns / 1e6
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `1 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def elapsed(seconds: float) -> str:
    """`84.2 ms`, `1.31 s`, `3 min 05 s`."""
    return milliseconds(seconds * 1e9) if seconds < 60 else duration(seconds)


def parameter(value: object) -> str:
    """A parameter of a provenance, as JSON has its values. Of rules for single tensors, of which there may be one for
    each, only how many.
    """
    if isinstance(value, dict):
        return ",".join(f"{key}:{parameter(item)}" for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, list) for item in value):
        return f"{len(value)} (--json shows them)"
    if isinstance(value, list):
        return ",".join(map(parameter, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
