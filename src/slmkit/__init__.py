"""slmkit: from a Hugging Face id to the smallest, fastest GGUF that is still good on your machine.

Importing this package loads nothing but itself; the names below load what they need when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from slmkit._version import __version__

if TYPE_CHECKING:
    from slmkit.api import (
        adopt,
        bench,
        card,
        check,
        check_convert,
        compare,
        convert,
        diff,
        drop,
        export,
        gc,
        get,
        imatrix,
        import_runs,
        inspect,
        lineage,
        list_models,
        list_runs,
        merge,
        pick,
        plan,
        pull,
        quality,
        quantize,
        quantize_to_target,
        recommend,
        rederive,
        rm,
        run_recipe,
        show,
        split,
        verify,
    )
    from slmkit.core.artifact import Artifact
    from slmkit.core.bench import BenchRun, BenchSpec
    from slmkit.core.check import Check, Limits
    from slmkit.core.compare import Comparison
    from slmkit.core.convert import ConvertSpec
    from slmkit.core.pick import Pick
    from slmkit.core.plan import ModelPlan
    from slmkit.core.quality import QualityRun, QualitySpec
    from slmkit.core.quantize import Override, QuantizeSpec, Rule
    from slmkit.core.recommend import Recommendation, Wish
    from slmkit.core.refs import ModelRef
    from slmkit.core.target import TargetSpec
    from slmkit.errors import SlmkitError

__all__ = [
    "Artifact",
    "BenchRun",
    "BenchSpec",
    "Check",
    "Comparison",
    "ConvertSpec",
    "Limits",
    "ModelPlan",
    "ModelRef",
    "Override",
    "Pick",
    "QualityRun",
    "QualitySpec",
    "QuantizeSpec",
    "Recommendation",
    "Rule",
    "SlmkitError",
    "TargetSpec",
    "Wish",
    "__version__",
    "adopt",
    "bench",
    "card",
    "check",
    "check_convert",
    "compare",
    "convert",
    "diff",
    "drop",
    "export",
    "gc",
    "get",
    "imatrix",
    "import_runs",
    "inspect",
    "lineage",
    "list_models",
    "list_runs",
    "merge",
    "pick",
    "plan",
    "pull",
    "quality",
    "quantize",
    "quantize_to_target",
    "recommend",
    "rederive",
    "rm",
    "run_recipe",
    "show",
    "split",
    "verify",
]

_HOMES = {
    "Artifact": "core.artifact",
    "BenchRun": "core.bench",
    "BenchSpec": "core.bench",
    "Check": "core.check",
    "Comparison": "core.compare",
    "ConvertSpec": "core.convert",
    "Limits": "core.check",
    "ModelPlan": "core.plan",
    "ModelRef": "core.refs",
    "Override": "core.quantize",
    "Pick": "core.pick",
    "QualityRun": "core.quality",
    "QualitySpec": "core.quality",
    "QuantizeSpec": "core.quantize",
    "Recommendation": "core.recommend",
    "Rule": "core.quantize",
    "SlmkitError": "errors",
    "TargetSpec": "core.target",
    "Wish": "core.recommend",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'slmkit' has no attribute {name!r}")
    return getattr(import_module(f"slmkit.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
