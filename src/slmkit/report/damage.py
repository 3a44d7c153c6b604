"""The tables of damage: where files lose, side by side, and each one's worst contexts as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from slmkit.core import units
from slmkit.core.damage import Context, Damage, Group, Kind, Likely
from slmkit.core.history import label_of
from slmkit.core.quality import QualityRun
from slmkit.report.table import Cell, Column, Table

_TITLES: dict[Kind, str] = {"class": "kind of token", "domain": "domain", "place": "tokens before it"}
_TITLE_OF_TABLE = "where the loss sits: {}"


def where_lost(runs: Sequence[QualityRun]) -> list[Table]:
    """The tables of the damage of these runs; those that read the same text stand in the same ones."""
    by_text: defaultdict[tuple[str, int], list[Damage]] = defaultdict(list)
    for run in runs:
        by_text[run.corpus, run.spec.n_ctx] += run.damages
    return [table for damages in by_text.values() for table in damage_tables(damages)]


def damage_tables(damages: Sequence[Damage]) -> list[Table]:
    """A table for each way to tell tokens apart, with the files beside each other; none where all are of one kind."""
    tables = (_table(damages, kind) for kind in _TITLES)
    return [table for table in tables if len(table.rows) > 1]


def worst_text(damage: Damage) -> str:
    """The worst contexts of a file, a paragraph for each."""
    label = label_of(damage.ref)
    paragraphs = (_paragraph(number, found, label) for number, found in enumerate(damage.worst, 1))
    return "\n".join([f"worst contexts of {label}", *paragraphs])


def one_line(text: str) -> str:
    r"""With what cannot be seen escaped: `\n` for a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _table(damages: Sequence[Damage], kind: Kind) -> Table:
    columns = [Column("name", _TITLES[kind], right=False), Column("n_tokens", "tokens"), Column("token_share", "share")]
    for label in _labels(damages):
        columns += [
            Column(f"kld_{label}", f"{label} KLD"),
            Column(f"kld_error_{label}", f"{label} KLD error", shown=False),
            Column(f"kld_share_{label}", "of all"),
        ]
    by_name = [{group.name: group for group in damage.of_kind(kind)} for damage in damages]
    names = list(dict.fromkeys(name for groups in by_name for name in groups))
    rows = tuple(tuple(_cells(name, [groups.get(name) for groups in by_name])) for name in names)
    return Table(tuple(columns), rows, _TITLE_OF_TABLE.format(_TITLES[kind]))


def _labels(damages: Sequence[Damage]) -> list[str]:
    """What tells the files apart: of one model their types; of two runs of one file a number."""
    parts = [damage.ref.rpartition(":") for damage in damages]
    one_model = all(colon for _, colon, _ in parts) and len({model for model, _, _ in parts}) == 1
    names = [
        variant if one_model else label_of(damage.ref) for damage, (_, _, variant) in zip(damages, parts, strict=True)
    ]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} ({n + 1})" if n else name for name, n in zip(names, before, strict=True)]


def _cells(name: str, groups: Sequence[Group | None]) -> Iterator[Cell]:
    known = max((group for group in groups if group), key=lambda group: group.n_tokens)  # one may have ended early
    yield Cell(name, name)
    yield Cell(f"{known.n_tokens:,}", known.n_tokens)
    yield Cell(units.percent(known.token_share), known.token_share)
    for group in groups:
        if group is None:
            yield from (Cell(units.DASH, None),) * 3
            continue
        error = group.kld.error
        text = units.number(group.kld.value, 4) + ("" if error is None else f" ± {error:.4f}")
        yield Cell(text, group.kld.value)
        yield Cell(units.number(error, 4), error)
        yield Cell(units.percent(group.kld_share), group.kld_share)


def _paragraph(number: int, found: Context, label: str) -> str:
    width = max(len("base"), len(label))
    place = found.place
    said = f"{one_line(found.before)}[{one_line(found.token)}]"
    lines = [
        f"{number}. KLD {place.kld:.3f}, {place.domain}, chunk {place.number}: {said}",
        f"   {'base':{width}}  {units.percent(found.base_probability)} for it; {_listed(found.base_top)}",
        f"   {label:{width}}  {units.percent(found.probability)} for it; {_listed(found.top)}",
    ]
    return "\n".join(lines)


def _listed(top: Sequence[Likely]) -> str:
    return ", ".join(f"[{one_line(likely.text)}] {units.percent(likely.probability)}" for likely in top)
