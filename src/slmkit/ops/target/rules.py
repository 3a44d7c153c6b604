"""A type for each tensor, as the engine's rules: one for the layers that have a tensor in the same type."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

from slmkit.core.quantize import Rule

_IN_LAYER = re.compile(r"blk\.(\d+)\.(.+)")


def rules(types: Mapping[str, str]) -> tuple[Rule, ...]:
    r"""`^blk\.(0|3|11)\.ffn_down\.weight$` = Q6_K, or `^blk\.\d+\.` where all layers have it: each tensor is found by
    one rule.
    """
    layers: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    found = []
    for name, kind in types.items():
        if match := _IN_LAYER.fullmatch(name):
            layers[match[2], kind].append(int(match[1]))
        else:
            found.append(Rule(f"^{re.escape(name)}$", kind))
    kinds = Counter(rest for rest, _ in layers)
    for (rest, kind), numbers in sorted(layers.items()):
        which = r"\d+" if kinds[rest] == 1 else f"({'|'.join(map(str, sorted(numbers)))})"
        found.append(Rule(rf"^blk\.{which}\.{re.escape(rest)}$", kind))
    return tuple(found)
