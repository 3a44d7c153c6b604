"""Which files of a repository are wanted. Pure: paths in, paths out.

A checkpoint is what lies at the top of a repository: safetensors, their index, config and tokenizer files, chat
templates, licence, README. The same weights in other forms (pickles, ONNX, TensorFlow, Flax, Core ML, GGUF,
`original/`, `consolidated*`) stay where they are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from slmkit.core.quant import ALIASES, FLOATS
from slmkit.errors import HubFileNotFoundError

_BESIDE_WEIGHTS = (
    "config.json",
    "generation_config.json",
    "hf_quant_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "README.md",
)
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHER_WEIGHTS = ("adapter_*", "consolidated*")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SHARD = re.compile(r"-(?P<number>\d{5})-of-(?P<total>\d{5})$")
_LABEL = re.compile(
    r"(?<![a-z0-9])(?:UD-)?"
    r"(?:I?Q\d(?:_[0-9]+)*(?:_K)?(?:_(?:XXS|XS|S|M|L|XL|XXL|NL))?|TQ\d_\d|I\d_S|BF16|FP?16|FP?32|MXFP4(?:_MOE)?|NVFP4)"
    r"(?![a-z0-9])",
    re.IGNORECASE,
)
_SAME = {"FP16": "F16", "FP32": "F32", **ALIASES}
_FAVOURITES = ("Q4_K_M", "Q4_0", "Q8_0")


@dataclass(frozen=True)
class Gguf:
    """One model file of a repository in one quant type, all its shards in order."""

    label: str
    paths: tuple[str, ...]


def checkpoint_files(
    repo: str, paths: Iterable[str], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[str, ...]:
    """What a checkpoint needs, also what matches a glob of `include`, and nothing that matches one of `exclude`.

    Raises `HubFileNotFoundError`, with what to type instead, when the repository has no complete safetensors
    checkpoint: only GGUF files, only pickles, an adapter, no config.
    """
    every = sorted(paths)
    weights = _weights(every)
    if not weights:
        raise _no_checkpoint(repo, every)
    missing = missing_shards(weights)
    if missing:
        raise HubFileNotFoundError(f"{repo} is incomplete: it has no {missing[0]}")
    if "config.json" not in every:
        raise HubFileNotFoundError(f"{repo} has no config.json: not a checkpoint of Hugging Face's layout")
    beside = [path for path in every if _matches(path, _BESIDE_WEIGHTS)]
    wanted = [*weights, *beside, *(path for path in every if _matches(path, include))]
    kept = tuple(dict.fromkeys(path for path in wanted if not _matches(path, exclude)))
    lost = [path for path in ("config.json", *weights) if path not in kept]
    if lost:
        raise HubFileNotFoundError(f"without {lost[0]} there is no checkpoint", hint="change the `--exclude` globs")
    return kept


def gguf_files(
    repo: str,
    paths: Iterable[str],
    variant: str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    verb: str = "pull",
) -> Gguf:
    """The one GGUF in the quant type `variant` (any case), and also what matches `include`. `verb` is the command that
    asks, for the hint.

    Raises `HubFileNotFoundError` when there is none, more than one, or not all its shards.
    """
    every = sorted(paths)
    choices = ggufs(path for path in every if not _matches(path, exclude))
    label = _same(variant)
    found = [c for c in choices if c.label == variant.upper()] or [c for c in choices if _same(c.label) == label]
    if not found:
        raise _no_gguf(repo, every, choices, variant, verb)
    if len(found) > 1:
        names = ", ".join(choice.paths[0] for choice in found)
        raise HubFileNotFoundError(
            f"{repo} has more than one GGUF in {label}: {names}",
            hint=f"leave all but one out: `slmkit pull {repo}:{variant} --exclude '{found[-1].paths[0]}'`",
        )
    missing = missing_shards(found[0].paths)
    if missing:
        raise HubFileNotFoundError(f"{repo} is incomplete: it has no {missing[0]}")
    also = [path for path in every if _matches(path, include) and not _matches(path, exclude)]
    return Gguf(found[0].label, tuple(dict.fromkeys((*found[0].paths, *also))))


def gguf_alone(repo: str, paths: Iterable[str], *, verb: str) -> Gguf:
    """The GGUF that stands for a repository: its most exact float file, or the only one there is.

    Raises `HubFileNotFoundError`, with what to type instead, when it has several quants, or no GGUF.
    """
    every = sorted(paths)
    choices = ggufs(every)
    labels = {_same(choice.label) for choice in choices}
    label = next((name for name in FLOATS if name in labels), labels.pop() if len(labels) == 1 else None)
    if label is None and choices:
        raise _only_ggufs(repo, choices, verb)
    return gguf_files(repo, every, label or FLOATS[-1], verb=verb)


def ggufs(paths: Iterable[str]) -> tuple[Gguf, ...]:
    """All GGUF models, shards put together; projectors (`mmproj`) and importance matrices are none.

    The label is the quant type in the file's name, else in its folder's (`Q4_0/model-00001-of-00002.gguf`), else the
    file's whole name; always in upper case.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for path in sorted(paths):
        name = PurePosixPath(path).name.lower()
        if name.endswith(".gguf") and "mmproj" not in name and "imatrix" not in name:
            groups[_SHARD.sub("", path[: -len(".gguf")])].append(path)
    return tuple(Gguf(_label(stem), tuple(shards)) for stem, shards in groups.items())


def missing_shards(paths: Sequence[str]) -> tuple[str, ...]:
    """The shards (`-00002-of-00003`) that the names of the others promise."""
    present, promised = set(paths), set()
    for path in paths:
        stem, dot, suffix = path.rpartition(".")
        match = _SHARD.search(stem)
        if match:
            total = int(match["total"])
            start = stem[: match.start()]
            promised |= {f"{start}-{n:05d}-of-{total:05d}{dot}{suffix}" for n in range(1, total + 1)}
    return tuple(sorted(promised - present))


def _weights(paths: Sequence[str]) -> list[str]:
    if _SINGLE in paths:
        return [_SINGLE]
    top = [p for p in paths if p.endswith(".safetensors") and "/" not in p and not _matches(p, _OTHER_WEIGHTS)]
    sharded = [p for p in top if p.startswith("model-")]
    if _INDEX in paths and sharded:
        return [_INDEX, *sharded]
    return top


def _label(stem: str) -> str:
    for part in reversed(PurePosixPath(stem).parts):
        labels: list[str] = _LABEL.findall(part)
        if labels:
            return labels[-1].upper()
    return PurePosixPath(stem).name.upper()


def _same(label: str) -> str:
    label = label.upper()
    return _SAME.get(label, label)


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, glob) and path.count("/") >= glob.count("/") for glob in globs)


def _no_checkpoint(repo: str, paths: Sequence[str]) -> HubFileNotFoundError:
    choices = ggufs(paths)
    if choices:
        return _only_ggufs(repo, choices, "pull")
    pickles = [path for path in paths if path.endswith(_PICKLES)]
    if pickles:
        return HubFileNotFoundError(
            f"{repo} has its weights only as pickles ({pickles[0]}), which can run code when they are loaded",
            hint="slmkit reads safetensors: look for a repository that has them",
        )
    if any(path.startswith("adapter_") for path in paths):
        return HubFileNotFoundError(f"{repo} is an adapter, not a model", hint="pull the model with it merged in")
    return HubFileNotFoundError(f"{repo} has neither safetensors nor GGUF files")


def _only_ggufs(repo: str, choices: Sequence[Gguf], verb: str) -> HubFileNotFoundError:
    return HubFileNotFoundError(
        f"{repo} has only GGUF files: {_labels(choices)}", hint=f"say which: `slmkit {verb} {repo}:{_best(choices)}`"
    )


def _no_gguf(repo: str, every: Sequence[str], choices: Sequence[Gguf], variant: str, verb: str) -> HubFileNotFoundError:
    if choices:
        return HubFileNotFoundError(
            f"{repo} has no GGUF in {variant}, but {_labels(choices)}", hint=f"`slmkit {verb} {repo}:{_best(choices)}`"
        )
    hint = f"make it: `slmkit quantize {repo} -t {variant}`" if _weights(every) else None
    return HubFileNotFoundError(f"{repo} has no GGUF files", hint=hint)


def _labels(choices: Sequence[Gguf]) -> str:
    return ", ".join(sorted({choice.label for choice in choices}))


def _best(choices: Sequence[Gguf]) -> str:
    labels = {choice.label for choice in choices}
    return next((label for label in _FAVOURITES if label in labels), min(labels))
