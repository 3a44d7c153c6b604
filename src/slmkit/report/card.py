"""A card as Markdown: what to take, what was measured, how to run it, where it comes from."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from slmkit.core import units
from slmkit.core.bench import OK, BenchRun
from slmkit.core.card import Card, CardFile
from slmkit.core.compare import CompareRow
from slmkit.core.divergence import GOOD, THRESHOLDS
from slmkit.core.quant import FLOATS, QUANT_TYPES
from slmkit.formats.model_card import front_matter
from slmkit.report import compared
from slmkit.report.cells import size_cell
from slmkit.report.settings import HOST_KEYS, Entries, facts
from slmkit.report.table import Cell, Column, Table, markdown
from slmkit.report.tables import compare_table

_HUB = "https://huggingface.co"
_RANKS = {word: rank for rank, (word, _) in enumerate(THRESHOLDS)}


def card_markdown(card: Card) -> str:
    """The whole README.md."""
    parts = [
        _head(card),
        f"# {card.name} GGUF\n\n{_intro(card)}\n",
        _section("Which file to take", _choice(card)),
        _section("Measured", [_measured(card)]),
        _section("Run it", _running(card)),
        _section("Where it comes from", _provenance(card)),
        _section("How it was measured", _method(card)),
        _section("Licence", [_licence(card)]),
    ]
    return "\n".join(part for part in parts if part)


def _section(title: str, paragraphs: Iterator[str] | Sequence[str]) -> str:
    text = "\n\n".join(paragraph.strip("\n") for paragraph in paragraphs)
    return f"## {title}\n\n{text}\n" if text else ""


def _head(card: Card) -> str:
    """`quantized_by` is not here: who publishes the files is not known."""
    licence = card.license
    return front_matter(
        {
            "base_model": card.source,
            "base_model_relation": "quantized" if card.source else None,
            "license": licence.id if licence else None,
            "license_name": licence.name if licence else None,
            "license_link": licence.link if licence else None,
            "library_name": "gguf",
            "tags": ["gguf"],
        }
    )


def _intro(card: Card) -> str:
    of = f"[{card.source}]({_HUB}/{card.source})" if card.source else card.name
    known = [f"architecture `{card.architecture}`"] if card.architecture else []
    known += [f"{units.count(card.n_params)} parameters"] if card.n_params else []
    known += [f"a context of {card.context_length:,} tokens"] if card.context_length else []
    said = ", ".join(known)
    return f"GGUF files of {of} for llama.cpp and what is built on it{f': {said}' if said else ''}."


# ------------------------------------------------------------------ which one


def _choice(card: Card) -> Iterator[str]:
    """By measured verdict alone."""
    judged = [row for row in card.comparison.rows if _rank(row) is not None]
    lines = [*_smallest(judged), *_fastest(card, judged), *_to_avoid(card.comparison.rows)]
    if lines:
        yield "\n".join(f"- {line}" for line in lines)
    else:
        yield "The quality of these files was not measured, so none is recommended."


def _rank(row: CompareRow) -> int | None:
    """0 for the best word; `None` for a float file, a broken one, and one that was not measured."""
    return _RANKS.get(row.quality.verdict or "") if row.quality and not row.quality.is_base else None


def _good(rows: Sequence[CompareRow], word: str = GOOD) -> list[CompareRow]:
    """Those of which at least this word holds."""
    return [row for row in rows if (rank := _rank(row)) is not None and rank <= _RANKS[word]]


def _smallest(judged: Sequence[CompareRow]) -> Iterator[str]:
    seen: set[str] = set()
    for word, _ in THRESHOLDS[:-1]:
        found = min(_good(judged, word), key=lambda row: row.size_bytes, default=None)
        if found and found.ref not in seen:
            seen.add(found.ref)
            least = "" if _word(found) == word else "at least "
            yield f"{_named(found)}: the smallest that is {least}{word}{_kld(found)}."


def _fastest(card: Card, judged: Sequence[CompareRow]) -> Iterator[str]:
    timed = [(rate, row) for row in _good(judged) if (rate := row.tg_tok_per_s) is not None]
    if len(timed) > 1:
        rate, row = max(timed, key=lambda pair: pair[0])
        where = facts(card.comparison.host, HOST_KEYS[:1])
        yield f"**{row.variant}** generates fastest of those that are good or better: {rate:.1f} tok/s on {where}."


def _to_avoid(rows: Sequence[CompareRow]) -> Iterator[str]:
    for row in rows:
        word = _word(row)
        if word and row.quality and not row.quality.is_base and row not in _good(rows):
            said = f": its loss is {word}{_kld(row)}" if word in _RANKS else f" is {word}{_kld(row)}: not for use"
            yield f"{_named(row)}{said}."


def _named(row: CompareRow) -> str:
    return f"**{row.variant}** ({units.size(row.size_bytes)})"


def _word(row: CompareRow) -> str | None:
    return row.quality.verdict if row.quality else None


def _kld(row: CompareRow) -> str:
    kld = row.quality.kld if row.quality else None
    return "" if kld is None else f", mean KLD {kld:.4f}"


# ------------------------------------------------------------------ numbers


def _measured(card: Card) -> str:
    rows = card.comparison.rows
    notes = [
        f"{row.variant} was measured on a {row.bench.state} machine: {', '.join(_without_advice(row.bench.reasons))}"
        for row in rows
        if row.bench and row.bench.state != OK
    ]
    notes += compared.notes(card.comparison)
    return markdown(replace(compare_table(card.comparison), notes=tuple(notes)))


def _without_advice(reasons: Sequence[str]) -> Iterator[str]:
    """What was wrong, not what to do about it: `others used 9 % of all cores: close them and measure again`."""
    yield from (reason.partition(": ")[0] for reason in reasons)


def _method(card: Card) -> Iterator[str]:
    comparison = card.comparison
    measured = tuple(row.bench for row in comparison.rows if row.bench)
    if comparison.spec and measured:
        run = BenchRun("", comparison.host, comparison.build, measured)
        common = Entries.of(run).common().rpartition(": ")[2]
        pp, tg = comparison.spec.pp, comparison.spec.tg
        yield (
            f"Speed: {pp} is a prompt decoded in batches, {tg} tokens generated one at a time, as llama-bench measures "
            "them, mean ± standard deviation; TTFT is the median time from a text to the first token, peak RSS that of "
            f"the measuring process. With {common}. On {facts(comparison.host, HOST_KEYS)}; {_build(comparison.build)}."
        )
    if quality := comparison.quality:
        yield (
            f"Quality: {units.several(quality.n_chunks, 'chunk')} of {quality.n_ctx} tokens of the corpus "
            f"`{quality.corpus_name}`, the second half of each scored, as llama-perplexity does. PPL is perplexity, "
            "KLD how far the probabilities of all possible next tokens are from those of the float file, in nats, same "
            "top how often the most likely token is the same. The words go by mean KLD: "
            f"{compared.thresholds()}. SHA-256 of the text: `{quality.corpus}`; {_build(dict(quality.build))}."
        )


def _build(build: Mapping[str, str]) -> str:
    named = [build.get("engine"), build.get("llama.cpp") and f"llama.cpp {build['llama.cpp']}"]
    features = f", compiled for {build['features']}" if build.get("features") else ""
    return f"engine {' with '.join(name for name in named if name) or 'unknown'}{features}"


# ------------------------------------------------------------------ use and origin


def _running(card: Card) -> Iterator[str]:
    shown = _example(card)
    file = shlex.quote(shown.files[0].name.rpartition("/")[2])
    plain = shown.variant in QUANT_TYPES
    here = card.name.lower()
    if card.repo:
        yield _commands("llama.cpp", f"llama-cli --hf-repo {card.repo} --hf-file {file}")
        if len(shown.files) == 1:
            yield _commands("Ollama", f"ollama run hf.co/{card.repo}:{shown.variant if plain else file}")
        ref = shlex.quote(f"{card.repo}:{shown.variant}")
        yield _commands("slmkit, to measure it on your machine", f"slmkit pull {ref}", f"slmkit bench {ref}")
        return
    yield _commands("llama.cpp", f"llama-cli -m {file}")
    if len(shown.files) == 1:
        yield _commands(
            "Ollama",
            f"echo FROM ./{file} > Modelfile",
            f"ollama create {here} -f Modelfile",
            f"ollama run {here}",
        )
    yield _commands("slmkit, to measure it on your machine", f"slmkit bench ./{file}")


def _example(card: Card) -> CardFile:
    """The smallest that is good; else the first that is no float file."""
    good = min(_good(card.comparison.rows), key=lambda row: row.size_bytes, default=None)
    names = [good.variant] if good else [file.variant for file in card.files if file.variant not in FLOATS]
    return next((file for file in card.files if file.variant in names[:1]), card.files[0])


def _commands(what: str, *lines: str) -> str:
    return f"{what}:\n\n```sh\n" + "\n".join(lines) + "\n```"


def _provenance(card: Card) -> Iterator[str]:
    if card.source:
        at = f" at commit [`{card.commit[:12]}`]({_HUB}/{card.source}/tree/{card.commit})" if card.commit else ""
        yield f"Made from [{card.source}]({_HUB}/{card.source}){at}."
    columns = (
        Column("file", "file", right=False),
        Column("size_bytes", "size"),
        Column("sha256", "SHA-256", right=False),
        Column("made_by", "made by", right=False),
    )
    rows = tuple(
        (Cell(f"`{name}`", name), size_cell(part.size_bytes), Cell(f"`{part.sha256}`", part.sha256), Cell(made, made))
        for file in card.files
        for part in file.files
        for name, made in ((part.name.rpartition("/")[2], _made_by(file)),)
    )
    yield markdown(Table(columns, rows))


def _made_by(file: CardFile) -> str:
    action = "taken as it was" if file.action in ("pull", "adopt") else file.action
    parts = [f"{action} from {file.source}" if file.source else action, *file.settings]
    tools = file.tools
    parts += [f"slmkit {tools['slmkit']}"] if tools.get("slmkit") else []
    parts += [str(tools["engine"])] if tools.get("engine") else []
    parts += [f"llama.cpp {tools['llama.cpp']}"] if tools.get("llama.cpp") else []
    return ", ".join(parts)


def _licence(card: Card) -> str:
    if card.license is None:
        return "That of the original model. Its files do not name it."
    named = f"{card.license.name} ({card.license.id})" if card.license.name else card.license.id
    linked = f"[{named}]({card.license.link})" if card.license.link else named
    return f"{linked}, as {card.license.said_by} says."
