"""Files of one type in which only some tensors are quantized: which there are, what makes them, and what they save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from slmkit.backends.llamacpp.quantize import DryRun, dry_run, quantize
from slmkit.core.artifact import Artifact, File, Provenance
from slmkit.core.progress import SILENT
from slmkit.core.quant import FLOATS, QuantType
from slmkit.core.quantize import QuantizeSpec, Rule
from slmkit.core.sensitivity import HIGHER
from slmkit.errors import EngineError, ImatrixNeededError, UsageError
from slmkit.formats.gguf.header import TensorInfo, read_header, shards
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME
from slmkit.ops.describe import now
from slmkit.ops.target.rules import rules
from slmkit.registry import atomic

Types = Mapping[str, str]
"""The ggml type of tensors, by name."""


class Partly:
    """One float file and one type. `planned` are the types of the tensors that the type changes.

    Raises `UsageError` for a source that is quantized or a type that is not, `ImatrixNeededError`, `EngineError`.
    """

    def __init__(self, source: Artifact, quant: QuantType) -> None:
        self.source, self.quant = source, quant
        tensors = [tensor for path in shards(source.path) for tensor in read_header(path).tensors]
        if any(tensor.type.name not in FLOATS for tensor in tensors):
            raise UsageError(
                f"{source.ref} is quantized already: what its tensors cost is measured from a float file",
                hint="take the checkpoint that it was made from, or a float GGUF of it (F16, BF16, F32)",
            )
        if quant.is_float:
            raise UsageError(f"{quant} quantizes nothing", hint="`--sensitivity Q4_0`")
        (answer,) = _answers(source, [(quant, QuantizeSpec())])
        if answer.needs_imatrix:
            raise ImatrixNeededError(
                f"{quant} of this model needs an importance matrix, and groups of tensors are quantized without one",
                hint="take a type that does without: Q2_K, Q3_K_S and IQ3_S are the smallest",
            )
        self._own: dict[str, TensorInfo] = {tensor.name: tensor for tensor in tensors}
        self.planned: Types = {
            name: kind for name, kind in answer.types.items() if kind != self._own[name].type.name
        }  # fmt: skip
        if not self.planned:
            raise UsageError(f"{quant} changes no tensor of {source.ref}")

    def saved_bytes(self, types: Types) -> int:
        """How much less these tensors take than in the source."""
        return sum(self._own[name].size_bytes - self._size_bytes(name, kind) for name, kind in types.items())

    def spec(self, types: Types) -> QuantizeSpec:
        """What gives these types to these tensors and leaves all others as they are."""
        own = {name: self._own[name].type.name for name in self.planned}
        return QuantizeSpec(rules=rules({**own, **types}))

    def check(self, every: Sequence[Types]) -> None:
        """Raise `EngineError` when the engine would give any tensor another type than one of `every` says."""
        answers = _answers(self.source, [(self.quant, self.spec(types)) for types in every])
        for types, answer in zip(every, answers, strict=True):
            self._check(types, answer)

    def higher(self, names: Iterable[str]) -> Types:
        """`HIGHER` for those of these tensors that it is higher for, and that it is not as large as the source for."""
        block = GGML_TYPES_BY_NAME[HIGHER].block
        return {
            name: HIGHER
            for name in names
            if self._own[name].shape[0] % block == 0
            and self._size_bytes(name, self.planned[name]) < self._size_bytes(name, HIGHER) < self._own[name].size_bytes
        }

    def fewest_rules(self, raised: Types) -> tuple[Rule, ...]:
        """What makes the type's file with the tensors `raised`: rules for these, or for every tensor where the engine
        would otherwise mix the others in another way (it counts those that no rule names).
        """
        wanted = {**self.planned, **raised}
        every = rules(wanted)
        few = tuple(rule for rule in every if rule.type == HIGHER)
        (answer,) = _answers(self.source, [(self.quant, QuantizeSpec(rules=few))])
        return few if all(answer.types[name] == kind for name, kind in wanted.items()) else every

    def make(self, types: Types, name: str, folder: Path, n_threads: int) -> Artifact:
        """Write the file and describe it; nothing is registered. Raises `DiskFullError` and the engine's errors."""
        path = folder / f"{name}.gguf"
        atomic.require_space(path, self.source.size_bytes)
        quantize(self.source.path, path, self.quant, n_threads=n_threads, progress=SILENT, spec=self.spec(types))
        return Artifact(
            model=self.source.model,
            variant=name,
            root=folder,
            files=(File(path.name, path.stat().st_size, atomic.sha256(path)),),
            owned=False,
            provenance=Provenance("quantize", parents=(self.source.digest,)),
            created=now(),
        )

    def _size_bytes(self, name: str, kind: str) -> int:
        return GGML_TYPES_BY_NAME[kind].size_bytes(self._own[name].n_elements)

    def _check(self, types: Types, answer: DryRun) -> None:
        for name, tensor in self._own.items():
            wanted, got = types.get(name, tensor.type.name), answer.types[name]
            if got != wanted:
                raise EngineError(f"the engine would make {name} {got} instead of {wanted}")


def _answers(source: Artifact, requests: Sequence[tuple[QuantType, QuantizeSpec]]) -> list[DryRun]:
    """The engine's, each of which is what would be made; raises its errors."""
    found = []
    for answer in dry_run(source.path, requests):
        if not isinstance(answer, DryRun):
            raise answer
        found.append(answer)
    return found
