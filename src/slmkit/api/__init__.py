"""The verbs for Python programs: `import slmkit; slmkit.quantize("smollm2-135m", ["Q4_0"])`.

A model is a reference as on the command line (text or `ModelRef`). Nothing is printed; pass a `progress` to listen.
Every function raises from the tree in `slmkit.errors`.
"""

from slmkit.api.choosing import pick, recommend
from slmkit.api.keeping import diff, drop, gc, inspect, lineage, list_models, rederive, rm, show, verify
from slmkit.api.making import (
    adopt,
    check_convert,
    convert,
    export,
    get,
    imatrix,
    merge,
    pull,
    quantize,
    quantize_to_target,
    run_recipe,
    split,
)
from slmkit.api.measuring import bench, card, check, compare, import_runs, list_runs, plan, quality

__all__ = [
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
