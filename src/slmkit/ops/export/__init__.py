"""GGUF back to a checkpoint of Hugging Face transformers."""

from slmkit.ops.export.pipeline import ExportReport, export_hf

__all__ = ["ExportReport", "export_hf"]
