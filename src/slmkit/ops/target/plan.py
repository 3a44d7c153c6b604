"""From a target to the types of all tensors: measured, allocated, and checked with the engine's dry run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from slmkit.backends.llamacpp.distortion import Distortion, Probe
from slmkit.backends.llamacpp.quantize import DryRun, dry_run
from slmkit.core import units
from slmkit.core.artifact import Artifact
from slmkit.core.progress import Progress
from slmkit.core.quant import QUANT_TYPES, QuantType
from slmkit.core.quantize import ImatrixFile, QuantizeSpec
from slmkit.core.target import Mix, Option, TargetSpec
from slmkit.errors import EngineError, UsageError
from slmkit.formats.gguf.header import GgufHeader, read_header, shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.formats.gguf.writer import Layout
from slmkit.formats.imatrix import read as read_imatrix
from slmkit.host.probe import physical_cores
from slmkit.ops.target.allocate import allocate
from slmkit.ops.target.candidates import TYPES, candidates
from slmkit.ops.target.measure import measure
from slmkit.ops.target.objective import OBJECTIVE, expected_kld
from slmkit.ops.target.rules import rules
from slmkit.registry.store import Registry, is_current

_ADDED_BYTES = 1024
"""What the engine may add to the metadata: `general.quantization_version`, and four keys of the imatrix."""


@dataclass(frozen=True)
class Plan:
    """How to reach the target: a type for the whole file, and rules for its tensors that make the mix."""

    quant: QuantType
    spec: QuantizeSpec
    types: Mapping[str, str]
    mix: Mix


def plan(
    source: Artifact,
    target: TargetSpec,
    registry: Registry,
    progress: Progress,
    *,
    imatrix: ImatrixFile | None,
    n_threads: int | None,
) -> Plan:
    """The mix of types with the least error within `target`, for a float GGUF.

    Raises `UsageError` with the sizes that can be reached, `ImatrixError`, and the engine's errors.
    """
    headers = float_headers(source)
    important = read_imatrix(imatrix.path).entries if imatrix else {}
    probes = list(candidates(headers, important))
    budget = _budget(source, target, headers, probes)
    threads = n_threads or physical_cores()
    measured = measure(source, probes, registry, progress, imatrix=imatrix, n_threads=threads)
    options = [_options(probe, measured[probe.tensor.name], headers) for probe in probes]
    found = allocate(options, budget)
    chosen = {p.tensor.name: o[i].type for p, o, i in zip(probes, options, found.chosen, strict=True)}
    quant = _commonest(chosen, probes)
    mix = Mix(OBJECTIVE, TYPES, found.error, found.bound)
    spec = QuantizeSpec(rules=rules(chosen), imatrix=imatrix, target=target, mix=mix)
    _check(source, quant, spec, chosen)
    return Plan(quant, spec, chosen, mix)


def float_headers(source: Artifact) -> list[GgufHeader]:
    """Of all its files; raises `UsageError` for a GGUF that is quantized already."""
    headers = [read_header(path) for path in shards(source.path)]
    if any(tensor.type.name not in ("F32", "F16", "BF16") for header in headers for tensor in header.tensors):
        raise UsageError(
            f"{source.ref} is quantized already: the best mix is made of a float file",
            hint="take the checkpoint that it was made from, or a float GGUF of it (F16, BF16, F32)",
        )
    return headers


def find(source: Artifact, target: TargetSpec, registry: Registry, imatrix: ImatrixFile | None) -> Artifact | None:
    """What was made for this target from these bytes, and is whole."""
    wanted = QuantizeSpec(imatrix=imatrix, target=target).parameters
    for made in registry.artifacts(source.model):
        parameters = made.provenance.parameters
        same = {key: parameters[key] for key in ("imatrix", "target") if key in parameters} == wanted
        if same and is_current(made, source.digest) and (not imatrix or imatrix.digest in made.provenance.parents):
            return made
    return None


def _sizes(probe: Probe, headers: Sequence[GgufHeader]) -> dict[str, int]:
    """Bytes of a tensor in each type that it may get, and at last as it is."""
    tensor, layout = probe.tensor, Layout(alignment=headers[0].alignment)
    sizes = {name: layout.padded(GGML_TYPES_BY_NAME[name].size_bytes(tensor.n_elements)) for name in probe.types}
    return {**sizes, tensor.type.name: layout.padded(tensor.size_bytes)}


def _options(probe: Probe, measured: Distortion, headers: Sequence[GgufHeader]) -> list[Option]:
    """The candidates, and the tensor as it is."""
    own = probe.tensor
    names = {t.name for header in headers for t in header.tensors}
    is_output = own.name == ("output.weight" if "output.weight" in names else "token_embd.weight")
    n_layers = headers[0].hyper("block_count") or 1

    def error(name: str) -> float:
        if name == own.type.name:
            return 0.0
        return expected_kld(own.name, name, measured.relative_errors[name], n_layers, is_output=is_output)

    return [Option(name, size_bytes, error(name)) for name, size_bytes in _sizes(probe, headers).items()]


def _budget(source: Artifact, target: TargetSpec, headers: Sequence[GgufHeader], probes: Sequence[Probe]) -> int:
    """Bytes for the tensors that are allocated; raises `UsageError` when they could not do with it, or need less."""
    layout = Layout(alignment=headers[0].alignment)
    allocated = {probe.tensor.name for probe in probes}
    tensors = [tensor for header in headers for tensor in header.tensors]
    kept = sum(layout.padded(tensor.size_bytes) for tensor in tensors if tensor.name not in allocated)
    n_params = sum(tensor.n_elements for tensor in tensors)
    beside = sum(header.data_offset for header in headers) + _ADDED_BYTES
    budget = target.budget_bytes(source_bytes=source.size_bytes, n_params=n_params, beside_bytes=beside) - kept
    sizes = [_sizes(probe, headers).values() for probe in probes]
    smallest, largest = sum(map(min, sizes)), sum(map(max, sizes))
    if smallest <= budget < largest:
        return budget

    def words(n_bytes: int, rounded: Callable[[float], int]) -> str:
        bpw = rounded((n_bytes + kept) * 800 / n_params) / 100
        return f"{units.size_bound(n_bytes + kept + beside, rounded)} ({bpw:.2f} bpw)"

    # one byte inside the bounds and rounded inwards, so that what is read there can be typed
    between = f"between {words(smallest + 1, math.ceil)} and {words(largest - 1, math.floor)}"
    if budget < smallest:
        raise UsageError(f"{source.ref} cannot become as small as {target}", hint=f"a target {between}")
    raise UsageError(f"{source.ref} is not larger than {target}: there is nothing to save", hint=f"a target {between}")


def _commonest(chosen: Mapping[str, str], probes: Sequence[Probe]) -> QuantType:
    """The file's type: that of which most weights have the ggml type; the plain one or the `_M` of several."""
    counts: Counter[str] = Counter()
    for probe in probes:
        counts[chosen[probe.tensor.name]] += probe.tensor.n_elements
    for name, _ in counts.most_common():
        same = [quant for quant in QUANT_TYPES.values() if quant.base == name and not quant.is_float]
        if same:
            return max(same, key=lambda quant: (quant.name == name, quant.name.endswith("_M")))
    return QUANT_TYPES["Q8_0"]  # every tensor stays a float: the engine heeds rules in quantized types only


def _check(source: Artifact, quant: QuantType, spec: QuantizeSpec, chosen: Mapping[str, str]) -> None:
    """Raise `EngineError` when the engine would give any tensor another type."""
    (answer,) = dry_run(source.path, [(quant, spec)])
    if not isinstance(answer, DryRun):
        raise answer
    others = [name for name, kind in chosen.items() if answer.types[name] != kind]
    if others:
        name = others[0]
        raise EngineError(f"the engine would make {name} {answer.types[name]} instead of {chosen[name]}")
