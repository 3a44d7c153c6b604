"""Checkpoints of Hugging Face transformers to GGUF, without torch and in constant memory."""

from slmkit.ops.convert.architecture import architectures, check_supported
from slmkit.ops.convert.pipeline import ConvertReport, convert
from slmkit.ops.convert.plan import ConvertType, resolve_type

__all__ = ["ConvertReport", "ConvertType", "architectures", "check_supported", "convert", "resolve_type"]
