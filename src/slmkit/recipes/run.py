"""Runs a recipe: the verbs in order, what is done is skipped, a failed item does not stop the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchRun
from slmkit.core.compare import Comparison
from slmkit.core.quant import QuantType
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineMissingError, SlmkitError
from slmkit.hub import bundled
from slmkit.ops import bench as bench_op
from slmkit.ops import compare as compare_op
from slmkit.ops import locate
from slmkit.recipes import export, verbs
from slmkit.recipes.plan import effective_ref
from slmkit.recipes.quantize_table import Quantizing
from slmkit.recipes.schema import Recipe, RecipeModel
from slmkit.recipes.session import Session
from slmkit.recipes.target import quantize_to_target


@dataclass(frozen=True)
class ItemFailure:
    """An item that failed, and why."""

    item: str
    code: str
    message: str
    hint: str | None = None

    @classmethod
    def of(cls, item: str, error: SlmkitError) -> ItemFailure:
        """What an error says."""
        return cls(item, error.code, error.message, error.hint)


@dataclass(frozen=True)
class RecipeResult:
    """What a recipe made. `comparison` is `None` when nothing was made; `run` when nothing was measured anew."""

    artifacts: tuple[Artifact, ...]
    comparison: Comparison | None
    run: BenchRun | None
    failures: tuple[ItemFailure, ...]


def run(recipe: Recipe, session: Session) -> RecipeResult:
    """Make everything, measure what is not measured yet, compare.

    A missing engine ends it at once: nothing could be made. Every other failure is kept and the rest goes on.
    """
    failures: list[ItemFailure] = []
    made: list[Artifact] = []
    for model in recipe.models:
        made += _make(model, session, failures)
    measured = None
    if recipe.bench is not None:
        build = engine.build() if made else {}
        todo = [a for a in made if not compare_op.is_measured(a, recipe.bench, build, session.registry)]
        for artifact in made:
            if artifact not in todo:
                session.progress.say(f"{artifact.ref} is measured already")
        if todo:
            measured = bench_op.bench(todo, [recipe.bench], session.registry, session.progress)
            failures += [
                ItemFailure(f"bench {row.ref}", row.failure.code, row.failure.message, row.failure.hint)
                for row in measured.rows
                if row.failure
            ]
    comparison = compare_op.compare(made, session.registry) if made else None
    return RecipeResult(tuple(made), comparison, measured, tuple(failures))


def _make(model: RecipeModel, session: Session, failures: list[ItemFailure]) -> list[Artifact]:
    try:
        ref = effective_ref(model)
        _restore_bundled(model, session)
    except SlmkitError as error:
        failures.append(ItemFailure.of(f"{model.ref}", error))
        return []
    made: dict[QuantType, Artifact] = {}
    how = model.quantize

    def failed(quant: QuantType, error: SlmkitError) -> None:
        failures.append(ItemFailure.of(f"{ref}:{quant}", error))

    def make(types: Sequence[QuantType], how: Quantizing) -> None:
        reports = verbs.quantize(
            ref,
            types,
            session,
            spec=how.spec,
            name=how.name,
            strict_share=how.strict_share,
            imatrix=how.imatrix_of_types,
            convert_spec=model.convert,
            may_replace=True,
            on_failure=failed,
        )
        made.update({report.quant: report.artifact for report in reports})

    try:
        if how == Quantizing() and model.types:
            make(model.types, how)
        else:
            for types, options in ((model.floats, Quantizing()), (model.quantized, how)):
                if types:
                    make(types, options)
    except EngineMissingError:
        raise
    except SlmkitError as error:  # there is nothing to quantize from
        failures.append(ItemFailure.of(f"{ref}", error))
        return _in_order(model, made)
    return [*_in_order(model, made), *_mix(model, ref, session, failures)]


def _in_order(model: RecipeModel, made: Mapping[QuantType, Artifact]) -> list[Artifact]:
    return [made[quant] for quant in model.types if quant in made]


def _mix(model: RecipeModel, ref: ModelRef, session: Session, failures: list[ItemFailure]) -> list[Artifact]:
    """What the model's target asks for."""
    if model.target is None:
        return []
    how = model.quantize
    try:
        report = quantize_to_target(
            ref,
            model.target,
            session,
            name=how.name,
            imatrix=how.imatrix_of_target,
            convert_spec=model.convert,
            may_replace=True,
        )
    except EngineMissingError:
        raise
    except SlmkitError as error:
        failures.append(ItemFailure.of(f"{ref} at {model.target}", error))
        return []
    return [report.artifact]


def _restore_bundled(model: RecipeModel, session: Session) -> None:
    """Bundled weights become a checkpoint, so that converting and quantizing run for real."""
    ref = effective_ref(model)
    if model.bundled_in is None or ref == locate.expand(model.ref):
        return
    if locate.checkpoint(ref, session.registry, session.progress) is not None:
        return
    path = bundled.find_gguf(model.bundled_in)
    assert path is not None
    artifact = export.restore(path, ref.model, locate.expand(model.ref).name, session)
    for note in artifact.provenance.notes:
        session.progress.say(f"{artifact.model}: {note}")
