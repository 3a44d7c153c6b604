"""What is quantized: whether it may be, and whether the options fit it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from slmkit.core.artifact import Artifact
from slmkit.core.quant import FLOATS, QuantType
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import ChangedError, UsageError
from slmkit.formats.gguf.header import TensorInfo, read_header, shards
from slmkit.registry.store import is_whole

_LAYER = re.compile(r"blk\.(\d+)\.")


def is_float(source: Artifact) -> bool:
    """Whether no tensor is quantized, whatever the file is called."""
    by_type = source.facts.get("params_by_type", {source.variant: 1})
    return set(by_type) <= set(FLOATS)


def fitting(spec: QuantizeSpec, source: Artifact) -> QuantizeSpec:
    """The spec without what makes no difference for this source: then its files are those of the plain one."""
    return replace(
        spec,
        allow_requantize=spec.allow_requantize and not is_float(source),
        keep_split=spec.keep_split and len(source.files) > 1,
    )


def check(source: Artifact, types: Sequence[QuantType], spec: QuantizeSpec, tensors: Sequence[TensorInfo]) -> None:
    """Raise `UsageError` for what can be known to fail or to be in vain."""
    if not is_float(source) and not spec.allow_requantize:
        raise UsageError(
            f"{source.ref} is quantized already: quantizing it again would add its errors to the new ones",
            hint=_float_hint(source, types[0]),
        )
    names = [tensor.name for tensor in tensors]
    for rule in spec.rules:
        if not any(re.search(rule.pattern, name) for name in names):
            example = next((name for name in names if "ffn_down" in name), names[-1] if names else "blk.0")
            raise UsageError(
                f"no tensor of {source.ref} has {rule.pattern!r} in its name", hint=f"a name is {example!r}, say"
            )
    if (option := _without_output(spec, names)) is not None:
        raise UsageError(
            f"{option} is in vain: {source.ref} has no output.weight (its embedding is the output)",
            hint="give the embedding a type: `--embedding-type Q8_0`, say",
        )
    if spec.rules and any(quant.is_float for quant in types):
        raise UsageError("the engine heeds rules in quantized types only", hint="leave out the float type")
    if spec.prune_layers:
        layers = {int(match[1]) for name in names if (match := _LAYER.match(name))}
        if missing := sorted(set(spec.prune_layers) - layers):
            raise UsageError(
                f"{source.ref} has no layer {missing[0]}", hint=f"its layers are 0 to {max(layers, default=0)}"
            )
        if layers <= set(spec.prune_layers):
            raise UsageError("that would leave no layer")


def _without_output(spec: QuantizeSpec, names: Sequence[str]) -> str | None:
    """The option that does nothing to a model without output.weight, whose embedding gets `output_type` only where no
    other option gives it a type.
    """
    if "output.weight" in names:
        return None
    if spec.leave_output:
        return "`--leave-output`"
    others = spec.embedding_type or ("" if spec.pure else spec.output_type)
    return "`--output-type`" if spec.output_type and others != spec.output_type else None


def tensors_of(source: Artifact) -> list[TensorInfo]:
    """Those of all its files; raises `ChangedError` when these are not what was registered, and `GgufError`."""
    if not is_whole(source):
        raise ChangedError(
            f"the files of {source.ref} are gone or not what was registered: {source.path}",
            hint=f"`slmkit verify {source.ref}` shows what is wrong; make or get it again",
        )
    return [tensor for path in shards(source.path) for tensor in read_header(path).tensors]


def kept(tensors: Sequence[TensorInfo], spec: QuantizeSpec) -> dict[str, TensorInfo]:
    """The tensors that are made, by their names in the file that is made: without `prune_layers` the rest is counted
    anew.
    """
    layers = sorted({int(match[1]) for tensor in tensors if (match := _LAYER.match(tensor.name))})
    numbers = {layer: i for i, layer in enumerate(layer for layer in layers if layer not in spec.prune_layers)}
    found: dict[str, TensorInfo] = {}
    for tensor in tensors:
        match = _LAYER.match(tensor.name)
        if match is None:
            found[tensor.name] = tensor
        elif (layer := int(match[1])) in numbers:
            found[f"blk.{numbers[layer]}.{tensor.name[match.end() :]}"] = tensor
    return found


def _float_hint(source: Artifact, quant: QuantType) -> str:
    anyway = "or take the loss: `--allow-requantize`"
    if source.provenance.action in ("convert", "quantize"):
        return f"quantize from the model's float file: `slmkit quantize {source.model} -t {quant}`; {anyway}"
    return f"take the checkpoint that it was made from, or a float GGUF of it (F16, BF16, F32); {anyway}"
