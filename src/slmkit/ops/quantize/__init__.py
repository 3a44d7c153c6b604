"""`quantize`: one GGUF becomes smaller ones."""

from slmkit.ops.quantize.report import QuantizeReport
from slmkit.ops.quantize.run import quantize

__all__ = ["QuantizeReport", "quantize"]
