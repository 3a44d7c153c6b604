"""What running a recipe would do, and why; nothing is done."""

from __future__ import annotations

from collections.abc import Mapping

from slmkit.backends.llamacpp import engine
from slmkit.core.artifact import Artifact
from slmkit.core.bench import BenchSpec
from slmkit.core.refs import ModelRef
from slmkit.errors import EngineError, SlmkitError
from slmkit.hub import bundled
from slmkit.ops import compare, locate
from slmkit.recipes.making import Step, make_steps
from slmkit.recipes.schema import Recipe, RecipeModel
from slmkit.recipes.session import Session
from slmkit.registry.store import Registry

BUNDLED_ORG = "bundled"


def plan(recipe: Recipe, session: Session) -> tuple[Step, ...]:
    """The steps in the order in which `run` takes them."""
    steps: list[Step] = []
    for model in recipe.models:
        try:
            ref = effective_ref(model)
            source = _source(ref, session)
        except SlmkitError as error:
            steps.append(Step("pull", str(model.ref), True, f"will fail: {error.message}"))
            continue
        steps.append(_source_step(model, ref, source))
        steps += make_steps(model, ref, source, session)
    if recipe.bench is not None:
        build = _build()
        steps += [_bench_step(step, recipe.bench, build, session.registry) for step in steps if _makes_gguf(step)]
    return tuple(steps)


def effective_ref(model: RecipeModel) -> ModelRef:
    """The model's own reference, or that of the bundled weights when their package is installed.

    Bundled weights were quantized, so they are never registered under the name of the original.
    """
    if model.bundled_in is None or bundled.find_gguf(model.bundled_in) is None:
        return locate.expand(model.ref)
    return ModelRef("hub", f"{BUNDLED_ORG}/{locate.expand(model.ref).name.partition('/')[2]}")


def _source(ref: ModelRef, session: Session) -> Artifact | None:
    """The checkpoint that is here, or the GGUF that a path names."""
    found = locate.checkpoint(ref, session.registry, session.progress)
    if found is None and ref.kind == "path":
        return locate.ggufs(ref, session.registry, session.progress)[0]
    return found


def _source_step(model: RecipeModel, ref: ModelRef, source: Artifact | None) -> Step:
    if ref.name.startswith(f"{BUNDLED_ORG}/"):
        why = f"weights come with the package {model.bundled_in}, dequantized"
        return Step("export", ref.model, source is None, why if source is None else "restored already")
    if source is None:
        return Step("pull", ref.model, True, "not here yet")
    return Step("pull", ref.model, False, "here already")


def _makes_gguf(step: Step) -> bool:
    return step.verb in ("convert", "quantize")


def _build() -> Mapping[str, str]:
    """Of the engine; nothing has been measured with one that does not work."""
    try:
        return engine.build()
    except EngineError:
        return {}


def _bench_step(step: Step, spec: BenchSpec, build: Mapping[str, str], registry: Registry) -> Step:
    model, _, variant = step.ref.rpartition(":")
    found = registry.find(model, variant)
    if found is None or step.to_do:
        return Step("bench", step.ref, True, "to be made first")
    if compare.is_measured(found, spec, build, registry):
        return Step("bench", step.ref, False, "measured already under these settings")
    return Step("bench", step.ref, True, "not measured under these settings")
