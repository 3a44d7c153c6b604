"""`quantize`: one GGUF becomes smaller ones."""

from slmkit.ops.quantize.report import QuantizeReport
from slmkit.ops.quantize.run import made_already, quantize

__all__ = ["QuantizeReport", "made_already", "quantize"]
