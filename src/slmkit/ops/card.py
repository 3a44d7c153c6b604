"""`card`: gather what the README of a GGUF repository says. Nothing is measured, and nothing is made up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from slmkit.core import units
from slmkit.core.artifact import Artifact
from slmkit.core.card import Card, CardFile, License
from slmkit.core.compare import Comparison
from slmkit.core.quantize import QuantizeSpec
from slmkit.errors import UsageError
from slmkit.formats.gguf.header import read_header, shards
from slmkit.formats.model_card import read_front_matter
from slmkit.registry.store import Registry

_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_HUB = "https://huggingface.co"
_OF_CONVERSION = ("converter", "pre")


def card(
    artifacts: Sequence[Artifact],
    comparison: Comparison,
    registry: Registry,
    *,
    license_id: str | None = None,
    repo: str | None = None,
) -> Card:
    """The files of one model, in the order of the comparison that is made of them. `repo` is where they will be
    published; the licence is that of the model's own card unless `license_id` names one.

    Raises `UsageError` for files of several models and a name that no repository can have, `GgufError`.
    """
    models = list(dict.fromkeys(artifact.model for artifact in artifacts))
    if len(models) != 1:
        raise UsageError(f"a card is of one model: {', '.join(models) or 'nothing'}")
    if repo is not None and not _REPO.fullmatch(repo):
        raise UsageError(f"--repo {repo}: not a name of a repository", hint="such as `org/name-GGUF`")
    order = [row.ref for row in comparison.rows]
    ordered = sorted(artifacts, key=lambda artifact: order.index(artifact.ref))
    first = ordered[0]
    checkpoint = registry.find(first.model, None)
    origin = (checkpoint or next((a for a in ordered if a.provenance.repo), first)).provenance
    given = License(license_id, "who publishes these files") if license_id else None
    found = given or _absolute(_license(checkpoint, first), origin.repo)
    return Card(
        name=first.repo_id.rpartition("/")[2],
        files=tuple(_file(artifact, ordered) for artifact in ordered),
        comparison=comparison,
        source=origin.repo,
        commit=origin.commit if origin.repo else None,
        license=found,
        repo=repo,
        architecture=first.facts.get("architecture"),
        n_params=first.facts.get("n_params"),
        context_length=first.facts.get("context_length"),
        remarks=tuple(_remarks(origin.repo, found, comparison)),
    )


def _file(artifact: Artifact, others: Sequence[Artifact]) -> CardFile:
    provenance = artifact.provenance
    source = next((other.variant for other in others if other.digest in provenance.parents), None)
    return CardFile(
        variant=artifact.variant or "",
        files=artifact.files,
        action=provenance.action,
        source=source,
        settings=(*_settings(provenance.parameters), *_fallback(artifact)),
        tools=provenance.tools,
    )


def _settings(parameters: Mapping[str, Any]) -> Iterator[str]:
    """What makes it other than by the defaults; no paths of this machine."""
    chosen = QuantizeSpec.of(parameters).parameters
    for key, value in {**{k: parameters[k] for k in _OF_CONVERSION if k in parameters}, **chosen}.items():
        if value is True:
            yield key.replace("_", " ")
        elif key == "rules":
            yield f"{len(value)} rules for tensors"
        elif isinstance(value, Mapping):
            yield f"{key} " + ", ".join(f"{name} {inner}" for name, inner in value.items())
        else:
            yield f"{key.replace('_', ' ')} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _fallback(artifact: Artifact) -> Iterator[str]:
    """What is of another type than the label says, because its rows do not divide into blocks."""
    if share := artifact.facts.get("fallback_share"):
        yield f"{units.percent(share)} of the parameters fell back to another type"


def _license(checkpoint: Artifact | None, gguf: Artifact) -> License | None:
    """As the checkpoint's card says, else its config, else the GGUF."""
    places: list[tuple[str, Mapping[str, Any], str]] = []
    if checkpoint is not None:
        places.append(("the model's card", read_front_matter(checkpoint.root / "README.md"), "license"))
        places.append(("the model's config.json", _config(checkpoint.root / "config.json"), "license"))
    for said_by, values, key in places:
        if found := _read(values, key, said_by, "_"):
            return found
    return _read(read_header(shards(gguf.path)[0]).metadata, "general.license", "the metadata of the GGUF", ".")


def _read(values: Mapping[str, Any], key: str, said_by: str, joint: str) -> License | None:
    identifier = values.get(key)
    if not isinstance(identifier, str) or not identifier.strip():
        return None
    more = (values.get(f"{key}{joint}{what}") for what in ("name", "link"))
    name, link = (value if isinstance(value, str) else None for value in more)
    return License(identifier.strip(), said_by, name, link)


def _absolute(found: License | None, source: str | None) -> License | None:
    """With a link that leads somewhere from another repository, too."""
    if found is None or found.link is None or "://" in found.link:
        return found
    return replace(found, link=f"{_HUB}/{source}/blob/main/{found.link}" if source else None)


def _config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _remarks(source: str | None, found: License | None, comparison: Comparison) -> Iterator[str]:
    if source is None:
        yield "base_model is left out: it is not known which repository the model comes from"
    if found is None:
        yield "the licence is left out: no file of the model names it (`--license ID` does)"
    if comparison.quality is None:
        yield "no quality was measured, so no file is recommended (`slmkit quality` measures it)"
    if comparison.spec is None:
        yield "no speed was measured (`slmkit bench` measures it)"
