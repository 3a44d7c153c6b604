"""llama.cpp's C functions as `ll`. Imported in child processes only: this is the door of llama_cpp.

Of the package only the bindings: its `__init__` also imports chat templates, a cache on the disk and their like: 40 ms
in each child.
"""

from __future__ import annotations

import importlib.util
import sys

if "llama_cpp" not in sys.modules and (_spec := importlib.util.find_spec("llama_cpp")):
    sys.modules["llama_cpp"] = importlib.util.module_from_spec(_spec)  # known, and not run

import llama_cpp.llama_cpp as ll

__all__ = ["ll"]
