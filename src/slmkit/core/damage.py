"""Where a quant loses, as values: its tokens by kind, domain and place in the chunk, and those that lose most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from slmkit.core.stats import Estimate

Kind = Literal["class", "domain", "place"]


@dataclass(frozen=True)
class Group:
    """Tokens of one kind: their mean KLD in nats with its standard error, and their shares of all tokens and of the sum
    of all KLD. `kld_share` is `None` where that sum is nothing, or no number.
    """

    kind: Kind
    name: str
    n_tokens: int
    token_share: float
    kld: Estimate
    kld_share: float | None
    same_top: float


@dataclass(frozen=True)
class Place:
    """Scored token `index` of a chunk, and its KLD in nats."""

    domain: str
    number: int
    index: int
    kld: float


@dataclass(frozen=True)
class Likely:
    """A token as text, and its probability."""

    text: str
    probability: float


@dataclass(frozen=True)
class Context:
    """One of the worst: the text before, the token that followed, and what base and quant thought would follow, most
    likely first. `base_probability` and `probability` are those of the token that did.
    """

    place: Place
    before: str
    token: str
    base_probability: float
    probability: float
    base_top: tuple[Likely, ...]
    top: tuple[Likely, ...]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Context:
        """Out of JSON; raises `KeyError` or `TypeError`."""
        base_top, top = (tuple(Likely(**likely) for likely in document[name]) for name in ("base_top", "top"))
        return cls(**{**document, "place": Place(**document["place"]), "base_top": base_top, "top": top})


@dataclass(frozen=True)
class Damage:
    """Where one file, `ref` with its `digest`, loses."""

    ref: str
    digest: str
    groups: tuple[Group, ...]
    worst: tuple[Context, ...]

    def of_kind(self, kind: Kind) -> tuple[Group, ...]:
        """Those groups, which have every token once."""
        return tuple(group for group in self.groups if group.kind == kind)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Damage:
        """The inverse; raises `KeyError` or `TypeError`."""
        groups = tuple(Group(**{**group, "kld": Estimate(**group["kld"])}) for group in document["groups"])
        worst = tuple(Context.from_document(context) for context in document["worst"])
        return cls(document["ref"], document["digest"], groups, worst)
