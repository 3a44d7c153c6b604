"""What no quantization does: scores that say that a file is broken, or not of the model that it is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping

from slmkit.core.artifact import Artifact
from slmkit.core.divergence import Scores
from slmkit.core.quantize import label_of
from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

EIGHT_BITS_KLD = 0.05
"""A mean KLD that 8 bits for each weight never cost: ten times what Q8_0 does to the models that suffer most from it
(SmolLM2-135M 0.006, Gemma 3 270M 0.005). A single tensor of SmolLM2 with its rows shuffled costs 0.23 in F16.
"""
LOST_PPL = 1000.0
"""A perplexity of guessing: each token by its frequency alone comes to some hundreds. SmolLM2-135M with the tokens of
its vocabulary moved has 27,000, with its own 15.
"""


_ALTERING = ("allow_requantize", "overrides", "prune_layers", "rules")
"""Parameters of `quantize` by which a file may cost more than its type does."""


def types_of(artifact: Artifact, base: Artifact | None = None) -> Mapping[str, int] | None:
    """How many weights of a file have which type; `None` where that is not known, or says nothing of what it costs, as
    in a file that has more or fewer weights than its base: that was pruned.
    """
    if base and base.facts.get("n_params") != artifact.facts.get("n_params"):
        return None
    parameters = artifact.provenance.parameters
    source = str(parameters.get("source", "")).rpartition(":")[2]
    if label_of(source) or any(parameters.get(name) for name in _ALTERING):
        return None
    types: Mapping[str, int] | None = artifact.facts.get("params_by_type")
    return types


def defect(scores: Scores, params_by_type: Mapping[str, int] | None) -> str | None:
    """Why a file with these scores and types (`None`: not known) is broken; `None` where nothing speaks for it."""
    if scores.kld and scores.kld.value > EIGHT_BITS_KLD and _has_eight_bits(params_by_type):
        return (
            f"a mean KLD of {scores.kld.value:.4f} is more than 8 bits for each weight can cost: a tensor is damaged, "
            "or its weights are another model's"
        )
    if math.isfinite(scores.ppl.value) and scores.ppl.value >= LOST_PPL:
        return (
            f"a perplexity of {scores.ppl.value:,.0f} is that of guessing: a tensor is damaged, or its tokenizer is "
            "not the one that it was trained with"
        )
    return None


def _has_eight_bits(params_by_type: Mapping[str, int] | None) -> bool:
    """Whether no weight is known to have fewer, and some are known."""
    return min((GGML_TYPES_BY_NAME[name].bpw for name in params_by_type or ()), default=0.0) >= 8
