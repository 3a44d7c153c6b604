"""What KLD to expect of a file that nobody has measured: a guess by its bits per weight, never more than that."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

LLAMA_3_8B = (
    (2.01, 2.2546),
    (2.40, 0.8120),
    (3.17, 0.4451),
    (4.00, 0.1019),
    (4.90, 0.0313),
    (5.70, 0.0108),
    (6.57, 0.00545),
    (8.52, 0.00136),
)
"""Bits per weight (file size over parameters) and mean KLD of IQ1_S, IQ2_XXS, Q2_K, Q3_K_M, Q4_K_M, Q5_K_M, Q6_K and
Q8_0, as llama.cpp's developers measured them on WikiText-2, revision f364eb6f: "LLaMA 3 8b Scoreboard" in
https://github.com/ggml-org/llama.cpp/blob/0c1e57098/tools/perplexity/README.md"""
N_PARAMS = 8.03e9
SMALLER_MODELS = 0.6
"""A model with half of the parameters loses 2 to the power of this times as much. SmolLM2-135M has in Q8_0 4 times what
the curve says, in Q4_K_M 8, in Q4_0, Q2_K and Q5_1 17 to 24 times (`slmkit quality`, 24 chunks of all domains); this
makes it 12."""
FLOAT_BPW = 16.0
"""From here on nothing is lost that could be measured."""


def expected_kld(bpw: float, n_params: int, measured: Sequence[tuple[float, float]] = ()) -> float:
    """The curve above, moved so that it goes through what was measured of the same model at the nearest bits per
    weight: `measured` are pairs of those and the mean KLD. Without any it is moved by the size of the model.
    """
    if bpw >= FLOAT_BPW:
        return 0.0
    known = [(bits, kld) for bits, kld in measured if kld > 0 and bits < FLOAT_BPW]
    if known:
        bits, kld = min(known, key=lambda pair: abs(pair[0] - bpw))
        return _curve(bpw) * kld / _curve(bits)
    return _curve(bpw) * math.pow(max(1.0, N_PARAMS / n_params), SMALLER_MODELS)


def _curve(bpw: float) -> float:
    """Straight between the points in the logarithm of the KLD, and beyond them."""
    points = list(itertools.pairwise(LLAMA_3_8B))
    (x0, y0), (x1, y1) = next((pair for pair in points if bpw <= pair[1][0]), points[-1])
    slope = (math.log(y1) - math.log(y0)) / (x1 - x0)
    return math.exp(math.log(y0) + slope * (bpw - x0))
