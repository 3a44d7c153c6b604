"""On what something was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from slmkit.core import units
from slmkit.report.html.markup import Markup, join, tag
from slmkit.report.settings import HOST_KEYS

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def machine(host: Mapping[str, Any], build: Mapping[str, str], measured: Mapping[str, Any] = _NOTHING) -> Markup:
    """A host, the engine's build, and what was `measured` of the machine by itself; nothing of an unknown host."""
    if not host:
        return join()
    facts = (join(tag("dt", name), tag("dd", text)) for name, text in _facts(host, build, measured) if text)
    return join(tag("h2", "Measured on"), tag("dl", *facts))


def _facts(host: Mapping[str, Any], build: Mapping[str, str], measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    shown: Mapping[str, Callable[[Any], str]] = {"memory_bytes": units.size}
    names = {"cpu": "CPU", "n_cores": "cores", "memory_bytes": "memory", "system": "system"}
    for key in HOST_KEYS:
        yield names[key], "" if host.get(key) is None else shown.get(key, str)(host[key])
    yield "CPU features", " ".join(map(str, host.get("features", ())))
    for name, value in build.items():
        yield {"features": "engine's CPU features", "gpu": "engine uses a GPU"}.get(name, name), str(value)
    if measured.get("bandwidth_bytes_per_s"):
        yield "memory bandwidth, measured", f"{measured['bandwidth_bytes_per_s'] / 1e9:.1f} GB/s"
    if measured.get("flop_per_s"):
        yield "arithmetic, measured", f"{measured['flop_per_s'] / 1e9:.0f} GFLOP/s"
