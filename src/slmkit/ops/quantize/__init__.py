"""`quantize`: one GGUF becomes smaller ones."""

from slmkit.ops.quantize.beforehand import refused
from slmkit.ops.quantize.report import QuantizeReport
from slmkit.ops.quantize.run import brought, is_as_asked, made_already, quantize
from slmkit.ops.quantize.source import fitting

__all__ = ["QuantizeReport", "brought", "fitting", "is_as_asked", "made_already", "quantize", "refused"]
