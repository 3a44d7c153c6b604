"""`quality`: each model's files beside its float file, which is made where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from slmkit.core.artifact import Artifact
from slmkit.core.quality import Baseline, Corpus, QualityRun, QualitySpec
from slmkit.core.quant import FLOATS
from slmkit.core.refs import ModelRef
from slmkit.errors import UsageError
from slmkit.formats.base_file import is_base_file
from slmkit.ops import locate
from slmkit.ops.quality import Asked, open_baseline
from slmkit.ops.quality import quality as op
from slmkit.recipes import verbs
from slmkit.recipes.session import Session


def quality(
    refs: Sequence[ModelRef],
    corpus: Corpus,
    spec: QualitySpec,
    session: Session,
    *,
    base: ModelRef | None = None,
    resume: bool = False,
    save_base: Path | None = None,
    asked: Asked = Asked(),  # noqa: B008  it is frozen
) -> list[QualityRun]:
    """One run for each model. `base` is a file that all are held against, or what was saved of one. Without it that is
    each model's most exact float file, an F16 that is made first where there is none and there is a checkpoint; with
    nothing to hold against there is perplexity alone.
    """
    found = verbs.artifacts(refs, session)
    if not found:
        raise UsageError("no model given", hint="`slmkit quality smollm2-135m`")
    registry, progress = session.registry, session.progress
    if base is not None and base.kind == "path" and is_base_file(Path(base.name)):
        saved = open_baseline(Path(base.name))
        check_limits(saved, found, spec)
        return [op(saved, found, corpus, spec, registry, progress, resume=resume, save_base=save_base, asked=asked)]
    if base is not None:
        against = locate.ggufs(base, registry, progress)
        if len(against) > 1:
            raise UsageError(f"{base} is several files", hint=f"name one: {', '.join(a.ref for a in against)}")
        one = against[0]
        check_limits(one, found, spec)
        return [op(one, found, corpus, spec, registry, progress, resume=resume, save_base=save_base, asked=asked)]
    groups: dict[str, list[Artifact]] = {}
    for artifact in found:
        groups.setdefault(artifact.model, []).append(artifact)
    if save_base and len(groups) > 1:
        raise UsageError(f"a baseline is of one model: {', '.join(groups)} are several")
    bases = [base_of(group, session) for group in groups.values()]
    for file, group in zip(bases, groups.values(), strict=True):
        check_limits(file, group, spec)
    return [
        op(file, group, corpus, spec, registry, progress, resume=resume, save_base=save_base, asked=asked)
        for file, group in zip(bases, groups.values(), strict=True)
    ]


def check_limits(base: Artifact | Baseline | None, files: Sequence[Artifact], spec: QualitySpec) -> None:
    """Raise `UsageError` for limits that nothing would be held to: a gate that measures nothing must not pass."""
    if spec.max_kld is None and spec.max_ppl_ratio is None:
        return
    option = "--max-ppl-ratio" if spec.max_kld is None else "--max-kld"
    if base is None:
        raise UsageError(
            f"`{option}`: there is no float file that {files[0].ref} could be held against",
            hint="name it: `--base REF`, or `slmkit pull` its checkpoint",
        )
    if all(file.digest == base.digest for file in files):
        raise UsageError(
            f"`{option}`: {base.ref} is the base itself: nothing is held against it",
            hint=f"make something smaller: `slmkit quantize {files[0].model} -t Q8_0`",
        )


def base_of(artifacts: Sequence[Artifact], session: Session) -> Artifact | None:
    """The float file that files of one model are held against; `None` where there is none and none can be made."""
    model = artifacts[0].model
    checkpoint = session.registry.find(model, None)
    if known := locate.best_float(model, checkpoint, session.registry):
        return known
    if named := next((a for kind in FLOATS for a in artifacts if a.variant == kind), None):
        return named
    if checkpoint is None:
        session.progress.warn(f"nothing to hold {model} against: there is no float file of it (`--base REF` names one)")
        return None
    return verbs.float_source(ModelRef.parse(model), session)
