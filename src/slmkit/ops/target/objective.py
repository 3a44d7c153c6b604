"""What an error in one tensor does to what the model says.

The KL divergence from the unquantized model is, for small errors, a sum over the tensors of a coefficient times the
relative squared error of what the tensor puts out (Malinovskii et al., "Pushing the Limits of Large Language Model
Quantization via the Linearity Theorem", https://arxiv.org/abs/2411.17525). The coefficients here were measured: all
tensors of a role quantized to Q4_0, the divergence divided by the sum of their relative errors, for SmolLM2-135M and
Gemma 3 270M. Times the number of layers they agree within a factor of 1.6, as they should: each layer adds its share
to the residual stream. The absolute error, which is what a sum of squares over all tensors is, was wrong by a factor
of up to 100 in both.
"""

from __future__ import annotations

import re

LAYER_COEFFICIENTS = {
    "attn_q": 1.0,
    "attn_k": 1.5,
    "attn_v": 4.5,
    "attn_qkv": 2.5,
    "attn_output": 2.2,
    "ffn_gate": 3.5,
    "ffn_up": 5.0,
    "ffn_down": 5.5,
}
"""Of the tensors of a role in all layers together."""
OUTPUT_COEFFICIENT = 9.0
"""Of the matrix that makes the logits."""
OTHER_COEFFICIENT = 3.5
"""Of other roles (experts' and state-space matrices, embeddings that are not the output): the mean of those above."""
END_FACTOR = 1.7
"""In the first and the last layer: 2.4 and 3.4 for SmolLM2, 1.2 and 0.9 for Gemma; the geometric mean."""
OFFSET_FACTORS = {"Q4_1": 0.8, "Q5_1": 0.8}
"""Types with an offset do less harm than their error says, those without as much: whole files of Q4_0 and Q5_0 diverged
0.98 to 1.05 times as much as the sum, of Q4_1 and Q5_1 0.75 to 0.88 times, for both models.
"""

_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+?)(?:_exps|_shexp)?\.weight")


def expected_kld(relative_error: float, kind: str, coefficient: float) -> float:
    """What a tensor of the ggml type `kind` adds to the divergence, in nats."""
    return coefficient * OFFSET_FACTORS.get(kind, 1.0) * relative_error


def coefficient(name: str, n_layers: int, *, is_output: bool) -> float:
    """The divergence, in nats, that a relative squared error of 1 in this tensor would cause."""
    if is_output:
        return OUTPUT_COEFFICIENT
    match = _IN_LAYER.fullmatch(name)
    share = LAYER_COEFFICIENTS.get(match[2] if match else "", OTHER_COEFFICIENT) / n_layers
    return share * (END_FACTOR if match and int(match[1]) in (0, n_layers - 1) else 1.0)
