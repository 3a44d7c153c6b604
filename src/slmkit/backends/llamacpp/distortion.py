"""The parent's side of measuring distortion: what quantizing does to each tensor, type by type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmkit.backends.llamacpp.child import Event, run
from slmkit.formats.gguf.header import TensorInfo
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME


@dataclass(frozen=True)
class Probe:
    """A tensor to be measured in each of the ggml types `types`; its bytes are at `offset` in `path`."""

    tensor: TensorInfo
    path: Path
    offset: int
    types: tuple[str, ...]


@dataclass(frozen=True)
class Distortion:
    """Of one tensor: by type the mean squared change of what it puts out, as a share of its mean square.

    With an imatrix, columns count as their inputs are large. Measured on `n_rows` of its rows.
    """

    relative_errors: Mapping[str, float]
    n_rows: int


def distortion(
    probes: Sequence[Probe],
    *,
    imatrix: Path | None,
    n_sample: int,
    n_threads: int,
    listen: Callable[[str, Distortion], None],
) -> Mapping[str, str]:
    """Measure them in turn and tell `listen` of each by name; returns the engine's build.

    About `n_sample` weights of each are looked at. Raises the engine's errors.
    """
    by_name = {probe.tensor.name: probe for probe in probes}

    def hear(event: Event, _: int) -> None:
        if event["event"] == "tensor":
            types = by_name[event["name"]].types
            listen(event["name"], Distortion(dict(zip(types, event["errors"], strict=True)), event["n_rows"]))

    arguments = {
        "tensors": [
            {
                "name": probe.tensor.name,
                "path": str(probe.path),
                "offset": probe.offset,
                "type": probe.tensor.type.name,
                "shape": probe.tensor.shape,
                "types": [GGML_TYPES_BY_NAME[name].id for name in probe.types],
            }
            for probe in probes
        ],
        "imatrix": None if imatrix is None else str(imatrix),
        "n_sample": n_sample,
        "seed": 0,
        "n_threads": n_threads,
    }
    return dict(run("distortion", arguments, listen=hear)["build"])
