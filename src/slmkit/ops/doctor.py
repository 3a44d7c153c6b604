"""`doctor`: can this machine do the main job, and if not, what is to be done?"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slmkit._version import __version__
from slmkit.backends.llamacpp import engine
from slmkit.backends.llamacpp.child import INSTALL_HINT, installed
from slmkit.backends.llamacpp.quantize import quantize as quantize_file
from slmkit.core import units
from slmkit.core.progress import SILENT, Progress
from slmkit.core.quant import QUANT_TYPES
from slmkit.errors import EngineCrashedError, EngineError, EngineMissingError, HubError
from slmkit.host import cgroups, energy, limits, memory, probe, sensors
from slmkit.registry.store import Registry

LITTLE_MEMORY_BYTES = 2 * 2**30
LITTLE_DISK_BYTES = 5 * 2**30
_AGAIN = "compile the engine on this machine: `pip install --no-cache-dir --force-reinstall 'slmkit[engine]'`"
UNTOLD = "this system does not tell"
SELFTEST_TYPES = ("Q4_0", "Q8_0", "Q4_K_M")


@dataclass(frozen=True)
class Finding:
    """One check. `ok` is `None` for a remark that is no fault."""

    what: str
    ok: bool | None
    found: str
    hint: str | None = None


def examine(registry: Registry, progress: Progress) -> list[Finding]:
    """All checks, in the order in which they should be mended."""
    host = probe.host()
    findings = [
        Finding("slmkit", True, f"{__version__}, Python {host.python}, {host.system} {host.machine}"),
        Finding("CPU", True, f"{host.cpu}, {host.n_cores} cores ({host.n_logical} logical)"),
    ]
    findings += _engine(host, progress)
    findings += _room(registry)
    findings += _measuring()
    findings += _hub()
    return findings


def _engine(host: probe.Host, progress: Progress) -> Iterator[Finding]:
    version = installed()
    if version is None:
        yield Finding("engine", False, "not installed", INSTALL_HINT)
        return
    try:
        build = engine.build()
    except EngineError as error:
        yield Finding("engine", False, error.message, _AGAIN)
        return
    yield Finding("engine", True, f"{version}: {build['features']}")
    unused = [f for f in ("avx2", "avx512f") if f in host.features and f[:6].upper() not in build["features"].split()]
    if unused:
        yield Finding("engine speed", None, f"the build does not use this CPU's {', '.join(unused)}", _AGAIN)
    with progress.task("decode self-test", None, "steps"):
        yield _selftest(any(f.startswith("amx") for f in host.features))


def _selftest(has_amx: bool) -> Finding:
    """Quantize a tiny model to several types and decode with each, in children: what crashes does so there."""
    from slmkit.ops.selftest import write_tiny_llama  # loads numpy

    name = "decode"
    try:
        with tempfile.TemporaryDirectory(prefix="slmkit-doctor-") as folder:
            source, target = Path(folder) / "tiny-F16.gguf", Path(folder) / "tiny.gguf"
            write_tiny_llama(source)
            for name in SELFTEST_TYPES:
                quantize_file(source, target, QUANT_TYPES[name], n_threads=1, progress=SILENT)
                engine.smoke(target, timeout_s=60)
    except EngineMissingError:
        raise
    except EngineCrashedError as error:
        hint = _AGAIN
        if has_amx:
            hint = (
                "this CPU has AMX, which gcc 12 and older compile wrongly: the README has the flags that leave it out"
            )
        return Finding("decode self-test", False, f"{name}: {error.message}", hint)
    except EngineError as error:
        return Finding("decode self-test", False, f"{name}: {error.message}", _AGAIN)
    return Finding("decode self-test", True, f"{', '.join(SELFTEST_TYPES)} quantized and decoded")


def _room(registry: Registry) -> Iterator[Finding]:
    free = memory.available_bytes()
    text = f"{units.size(free)} free of {units.size(memory.total_bytes())}"
    if limit := memory.container_bytes():
        text += f", of which this container gets {units.size(limit)}"
    little = free < LITTLE_MEMORY_BYTES
    yield Finding("memory", None if little else True, text, "close other programs" if little else None)

    home = registry.home
    existing = next(p for p in (home, *home.parents) if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        yield Finding("registry", False, f"{home} cannot be written", "set SLMKIT_HOME to a folder of yours")
        return
    space = shutil.disk_usage(existing).free
    little = space < LITTLE_DISK_BYTES
    hint = "`slmkit list` shows sizes, `slmkit rm REF` deletes" if little else None
    yield Finding("registry", None if little else True, f"{home}, {units.size(space)} free", hint)


def _measuring() -> Iterator[Finding]:
    """What `bench` can learn here beside times: remarks, no faults."""
    quota = cgroups.cpu_quota_cores()
    if quota is not None:
        yield Finding("CPU quota", None, f"{quota:g} cores' time for this container", f"use `-t {max(1, int(quota))}`")
    clock, nominal = sensors.frequency_hz(), sensors.nominal_hz()
    told = f"{clock / 1e9:.2f} GHz now" if clock else UNTOLD
    yield Finding("clock", bool(clock) or None, told + (f", {nominal / 1e9:.2f} GHz nominal" if nominal else ""))

    temperature, throttled = sensors.temperature_c(), sensors.throttle_events()
    parts = [f"{temperature:.0f} °C"] if temperature is not None else []
    parts += [f"slowed down {throttled:,} times since the system started"] if throttled is not None else []
    yield Finding("heat", bool(parts) or None, ", ".join(parts) or UNTOLD)

    if sensors.on_battery() or sensors.power_saver():
        found = "on battery" if sensors.on_battery() else "a power saving mode is on"
        yield Finding("power", None, found, "plug in, and choose the balanced or performance mode, before you measure")

    meter = energy.meter()
    hint = (
        "`sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj` until the next start" if energy.locked() else None
    )
    yield Finding("energy", bool(meter) or None, ", ".join(meter.names) if meter else UNTOLD, None if meter else hint)

    limit = limits.means()
    yield Finding("memory limit", bool(limit.kind) or None, f"by {limit.kind}" if limit.kind else str(limit.reason))


def _hub() -> Iterator[Finding]:
    from slmkit.hub import reach  # loads huggingface_hub

    yield Finding("Hugging Face cache", True, str(reach.cache_dir()))
    try:
        endpoint = reach.reach()
    except HubError as error:
        yield Finding("Hub", None, error.message, "what is here works without it; `slmkit pull` does not")
    else:
        yield Finding("Hub", True, f"{endpoint} answers")
