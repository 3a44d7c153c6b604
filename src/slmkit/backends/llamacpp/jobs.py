"""What the child can do: each job takes the channel to the parent and plain values, and returns a plain dict."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from slmkit.backends.llamacpp import bindings
from slmkit.backends.llamacpp.channel import Channel

Job = Callable[..., dict[str, Any]]

_MODULES = {
    "imatrix": "imatrix_job",
    "quantize": "quantize_job",
    "dry_run": "quantize_job",
    "memory": "memory_job",
    "damage": "damage_job",
    "distortion": "distortion_job",
    "quality": "quality_job",
    "n_tokens": "quality_job",
    "smoke": "smoke_job",
    "speed": "speed_job",
    "choices": "choices_job",
    "greedy": "greedy_job",
}


def find(name: str) -> Job:
    """The job of that name; only its own module is imported."""
    if name == "probe":
        return probe
    job: Job = getattr(importlib.import_module(f"slmkit.backends.llamacpp.{_MODULES[name]}"), name)
    return job


def probe(channel: Channel) -> dict[str, Any]:
    """Which engine is this?"""
    return {"build": bindings.build()}
