"""What `quantize` says of a type that it is done with."""

from __future__ import annotations

from dataclasses import dataclass

from slmkit.core.artifact import Artifact
from slmkit.core.quant import QuantType
from slmkit.ops.quantize.label import label_note, mix_note


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
        return tuple(note for note in notes if note)
