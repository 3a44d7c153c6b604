"""Which tensors cost what: each group of them quantized alone, and all together. Values and arithmetic, no I/O.

A model's quantized tensors are cut twice: by role (`attn_q` of all layers) and by layer (`blk.3`). What is in no layer
(`token_embd`, `output`) is a role; together with the layers it makes the second cut whole.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from slmkit.core.quality import QualitySpec
from slmkit.core.stats import Estimate

SCHEMA = 1
ROLES = ("attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
"""In the order in which a layer uses them; others follow as they come, and then what is in no layer."""
COSTLY_FACTOR = 2.0
"""A group is costly that costs more than so many times the mean of its cut for a byte saved."""
HIGHER = "Q8_0"
"""What the tensors of costly groups get."""
MIB = 1 << 20

Kind = Literal["role", "layer", "all", "kept"]
_CUTS: tuple[Kind, ...] = ("role", "layer")
_IN_LAYER = re.compile(r"blk\.(\d+)\.(.+?)(?:\.weight)?")


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that are quantized together, by name; `outside` says that they are in no layer."""

    kind: Kind
    name: str
    tensors: tuple[str, ...]
    outside: bool = False


@dataclass(frozen=True)
class Cost:
    """What quantizing a group alone costs: the mean KLD of each chunk in nats, and the share of tokens whose most
    likely one is the base's. `saved_bytes` is how much smaller the file becomes; `failure` is why there are no values,
    `defect` what makes the file broken, whatever its values are.
    """

    group: TensorGroup
    saved_bytes: int
    klds: tuple[float, ...] = ()
    same_top: float | None = None
    failure: str | None = None
    defect: str | None = None

    @property
    def kld(self) -> Estimate | None:
        """The mean over all chunks, with the standard error that their spread gives."""
        if not self.klds:
            return None
        n = len(self.klds)
        mean = math.fsum(self.klds) / n
        return Estimate(mean, statistics.stdev(self.klds) / math.sqrt(n) if n > 1 and math.isfinite(mean) else None)

    @property
    def kld_per_mib(self) -> float | None:
        """Nats for each MiB saved; `None` where nothing is known, or nothing saved."""
        return self.kld.value / (self.saved_bytes / MIB) if self.kld and self.saved_bytes > 0 else None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Cost:
        """The inverse; raises `KeyError` or `TypeError`."""
        group, klds = document["group"], document["klds"]
        whole = TensorGroup(**{**group, "tensors": tuple(group["tensors"])})
        return cls(**{**document, "group": whole, "klds": tuple(klds)})


@dataclass(frozen=True)
class Sensitivity:
    """Every group of one file in one quant type, on one corpus. `kept` is what `rules` make of the costly ones, if that
    was asked for: the same type with them in `HIGHER`.
    """

    created: str
    host: Mapping[str, Any]
    build: Mapping[str, str]
    ref: str
    base: str
    type: str
    corpus_name: str
    corpus: str
    spec: QualitySpec
    costs: tuple[Cost, ...]
    rules: tuple[tuple[str, str], ...] = ()
    slmkit: str = ""
    elapsed_s: float | None = None

    def of_kind(self, kind: Kind) -> tuple[Cost, ...]:
        """Those of one kind."""
        return tuple(cost for cost in self.costs if cost.group.kind == kind)

    @property
    def together(self) -> Cost:
        """All tensors in one file: what `slmkit quantize -t TYPE` makes."""
        return self.of_kind("all")[0]

    @property
    def kept(self) -> Cost | None:
        """The file that the rules make."""
        return next(iter(self.of_kind("kept")), None)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, "kind": "sensitivity", **asdict(self)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Sensitivity:
        """The inverse; raises `KeyError`, `TypeError` or `ValueError` for something else."""
        if document["kind"] != "sensitivity" or document["schema"] != SCHEMA:
            raise ValueError(f"not a sensitivity run of schema {SCHEMA}")
        values = {field.name: document[field.name] for field in fields(cls)}
        return cls(
            **{
                **values,
                "spec": QualitySpec(**values["spec"]),
                "costs": tuple(Cost.from_document(cost) for cost in values["costs"]),
                "rules": tuple(tuple(rule) for rule in values["rules"]),
            }
        )


def tensor_groups(names: Iterable[str]) -> list[TensorGroup]:
    """The groups of quantized tensors: each is in one role, and in one layer unless it is in none."""
    roles: defaultdict[str, list[str]] = defaultdict(list)
    layers: defaultdict[int, list[str]] = defaultdict(list)
    inside: set[str] = set()
    for name in names:
        if match := _IN_LAYER.fullmatch(name):
            roles[match[2]].append(name)
            layers[int(match[1])].append(name)
            inside.add(match[2])
        else:
            roles[name.removesuffix(".weight")].append(name)
    order = [role for role in dict.fromkeys((*ROLES, *roles)) if role in roles]
    order.sort(key=lambda role: role not in inside)
    by_role = [TensorGroup("role", role, tuple(roles[role]), outside=role not in inside) for role in order]
    return [*by_role, *(TensorGroup("layer", f"blk.{n}", tuple(layers[n])) for n in sorted(layers))]


def cut(costs: Sequence[Cost], kind: Kind) -> list[Cost]:
    """The groups of one cut, which have every quantized tensor once: roles, or layers and what is in none."""
    return [cost for cost in costs if cost.group.kind == kind or (kind == "layer" and cost.group.outside)]


def sum_of(costs: Sequence[Cost], kind: Kind) -> float | None:
    """The sum of a cut's KLD; `None` when not all are known."""
    klds = [cost.kld for cost in cut(costs, kind)]
    return math.fsum(kld.value for kld in klds if kld) if klds and all(klds) else None


def costly(costs: Sequence[Cost]) -> list[Cost]:
    """Those that cost more than `COSTLY_FACTOR` times the mean of their cut for a byte saved, most costly first; also
    those that break the file or whose KLD is no number, which do not count for the mean.
    """
    found: list[tuple[float, Cost]] = []
    for kind in _CUTS:
        rates = [(cost, _rate(cost)) for cost in cut(costs, kind)]
        whole = [cost for cost, rate in rates if rate is not None and math.isfinite(rate)]
        saved_mib = sum(cost.saved_bytes for cost in whole) / MIB
        limit = COSTLY_FACTOR * math.fsum(cost.kld.value for cost in whole if cost.kld) / saved_mib if whole else 0.0
        found += [
            (rate, cost) for cost, rate in rates if cost.group.kind == kind and rate is not None and not rate <= limit
        ]
    return [cost for _, cost in sorted(found, key=lambda pair: -pair[0] if math.isfinite(pair[0]) else -math.inf)]


def _rate(cost: Cost) -> float | None:
    """What it costs for a byte saved: without limit if it breaks the file."""
    return cost.kld_per_mib if cost.defect is None else math.inf
