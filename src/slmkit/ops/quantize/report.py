"""What `quantize` says of a type that it is done with."""

from __future__ import annotations

from dataclasses import dataclass

from slmkit.core.artifact import Artifact
from slmkit.core.quant import FLOATS, QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.core.units import percent
from slmkit.ops.quantize.label import label_note, mix_note

_WORTH_A_WORD = 0.01
"""Of its target, a mix that is smaller by more."""


@dataclass(frozen=True)
class QuantizeReport:
    """One finished type. `fresh` is false when it was there already."""

    quant: QuantType
    source: Artifact
    artifact: Artifact
    fresh: bool

    @property
    def reduction(self) -> float:
        """The share of the source's size that was saved."""
        return 1 - self.artifact.size_bytes / self.source.size_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """What its user should know: what is in the file when that is not what its type says, and what it came from."""
        made = self.artifact
        note = mix_note if "target" in made.provenance.parameters else label_note
        notes = [note(made.variant or "", made.facts)]
        if came_from := made.facts.get("requantized_from"):
            notes.append(f"{made.variant}: made from {came_from}, whose errors add to its own")
        return tuple(note for note in (*notes, self._float_note, self._target_note) if note)

    @property
    def _float_note(self) -> str | None:
        """Of a float file that the engine made from one with fewer digits."""
        made, parameters = self.artifact, self.artifact.provenance.parameters
        was = str(parameters.get("source", "")).rpartition(":")[2].partition("-")[0]
        kind = parameters.get("type")
        if made.provenance.action != "quantize" or kind not in FLOATS or was not in FLOATS:
            return None
        if FLOATS.index(kind) >= FLOATS.index(was):
            return None
        return f"{made.variant}: made from {was}, and no more exact than that"

    @property
    def _target_note(self) -> str | None:
        """Of a file that is clearly smaller than it might have been."""
        made = self.artifact
        target = QuantizeSpec.of(made.provenance.parameters).target
        if target is None:
            return None
        used = target.used_share(size_bytes=made.size_bytes, bpw=made.facts["bpw"], source_bytes=self.source.size_bytes)
        if used >= 1 - _WORTH_A_WORD:
            return None
        return f"{made.variant}: {percent(1 - used)} smaller than {target}: the best mix of types that fits"
