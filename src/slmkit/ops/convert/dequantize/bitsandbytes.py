"""bitsandbytes: LLM.int8() and the 4-bit tables NF4 and FP4, as transformers saves them.

- int8: code times the row's largest absolute value (`SCB`), divided by 127: `int8_vectorwise_dequant`.
- 4 bits: two codes in a byte, the high ones first, each an index into `quant_map`, times the largest absolute value of
  its block. Those can be quantized in the same way, with codes of 8 bits and an offset: `QuantState.from_dict` and
  `dequantize_4bit`.

https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.46.0/bitsandbytes/functional.py. llama.cpp's converter
reads neither.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from slmkit.errors import ConvertError
from slmkit.formats.safetensors import Tensor
from slmkit.ops.convert.dequantize.checkpoint import Quantized
from slmkit.ops.convert.dequantize.sources import Packed
from slmkit.ops.convert.weights import Array, Weights, floats, n_elements, scaled

ONE_OF_127 = 7.874015718698502e-3
_STATE = ".quant_state.bitsandbytes__"


@dataclass(frozen=True)
class FromTable:
    """Codes that are indices into a table, times the largest absolute value of their block, plus an offset."""

    codes: Weights
    table: Weights
    absmax: Weights
    block: int
    shape: tuple[int, ...]
    offset: float = 0.0
    dtype: str = "F32"

    def read(self, start: int, stop: int) -> Array:
        """See `Weights`; reads the blocks' values as well."""
        first, last = start // self.block, -(-stop // self.block)
        scales = np.repeat(floats(self.absmax, first, last), self.block)
        part = floats(self.table)[self.codes.read(start, stop)]
        part *= scales[start - first * self.block : stop - first * self.block]
        if self.offset:
            part += np.float32(self.offset)
        return part


def bitsandbytes(checkpoint: Quantized) -> None:
    """`quant_method: bitsandbytes`."""
    for name in checkpoint.names(".SCB"):
        _int8(checkpoint, name)
    for key in checkpoint.names("nf4") + checkpoint.names("fp4"):
        if key.endswith(_STATE):
            _four_bits(checkpoint, key.removesuffix(_STATE))


def _int8(checkpoint: Quantized, name: str) -> None:
    weight = f"{name}.weight"
    if f"{name}.weight_format" in checkpoint.stored:
        form = checkpoint.take(f"{name}.weight_format", weight, ("U8",))
        if form.path.is_file() and form.read(0, form.n_elements).any():
            raise checkpoint.refuse(f"the rows of `{weight}` are in the order of a GPU's tiles (`weight_format`)")
    checkpoint.scale(weight, f"{name}.SCB")
    checkpoint.weights[weight] = scaled(checkpoint.weights[weight], ONE_OF_127)


def _four_bits(checkpoint: Quantized, weight: str) -> None:
    key = next(name for name in checkpoint.stored if name.startswith(f"{weight}{_STATE}"))
    state_tensor = checkpoint.take(key, weight, ("U8",), 1)
    state = _state(state_tensor)
    shape = tuple(state["shape"])
    words = checkpoint.take(weight, weight, ("U8",), 2)
    table = checkpoint.take(f"{weight}.quant_map", weight, ("F32",), 1)
    absmax: Weights
    if f"{weight}.nested_absmax" in checkpoint.stored:
        codes = checkpoint.take(f"{weight}.absmax", weight, ("U8",), 1)
        inner = checkpoint.take(f"{weight}.nested_quant_map", weight, ("F32",), 1)
        outer = checkpoint.take(f"{weight}.nested_absmax", weight, ("F32",), 1)
        match state:
            case {"nested_blocksize": int(size), "nested_offset": int() | float() as offset} if size > 0:
                absmax = FromTable(codes, inner, outer, size, codes.shape, float(offset))
            case _:
                raise _contradiction(state_tensor)
        if inner.shape != (256,) or outer.shape != (-(-codes.n_elements // size),):
            raise _contradiction(state_tensor)
    else:
        absmax = checkpoint.take(f"{weight}.absmax", weight, ("F32",), 1)
    n, block = math.prod(shape), state["blocksize"]
    fits = words.shape == (-(-n // 2), 1) and n_elements(absmax) == -(-n // block) and table.shape == (16,)
    if not fits:
        raise _contradiction(state_tensor)
    codes_4 = Packed(words, 4, 1, (words.shape[0], 2), order=(1, 0))
    checkpoint.weights[weight] = FromTable(codes_4, table, absmax, block, shape)


def _state(tensor: Tensor) -> dict[str, Any]:
    """The JSON that is stored as a tensor of bytes."""
    if not tensor.path.is_file():
        raise ConvertError(
            f"{tensor.path}: the shapes of the weights are in the file itself (bitsandbytes), which is not here yet",
            hint="`slmkit pull` the model, then convert it",
        )
    try:
        state = json.loads(tensor.read(0, tensor.n_elements).tobytes())
    except (ValueError, RecursionError) as error:
        raise _contradiction(tensor) from error
    match state:
        case {"shape": [*shape], "blocksize": int(block)} if block > 0 and len(shape) == 2:
            if all(type(n) is int and n > 0 for n in shape):
                return dict(state)
    raise _contradiction(tensor)


def _contradiction(tensor: Tensor) -> ConvertError:
    return ConvertError(f"{tensor.path}: `{tensor.name}` does not describe the tensors beside it")
