"""What an error in one tensor does to what the model says.

The KL divergence from the unquantized model is, for small errors, a sum over the tensors of a coefficient times the
relative squared error of what the tensor puts out (Malinovskii et al., "Pushing the Limits of Large Language Model
Quantization via the Linearity Theorem", https://arxiv.org/abs/2411.17525). The coefficients here were measured: all
tensors of a role quantized to Q4_1 and back to F16, the divergence divided by the sum of their relative errors, for
SmolLM2-135M and Gemma 3 270M. Times the number of layers the two agree within a factor of 1.9, most within 1.2, as they
should: each layer adds its share to the residual stream. The absolute error, which is what a sum of squares over all
tensors is, was wrong by a factor of up to 100.
"""

from __future__ import annotations

import re

from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

OBJECTIVE = "expected KL divergence, linear in relative errors (arXiv:2411.17525)"
"""What a mix is chosen by; the numbers below belong to the version of slmkit."""

LAYER_COEFFICIENTS = {
    "attn_q": 0.9,
    "attn_k": 1.3,
    "attn_v": 1.6,
    "attn_qkv": 1.3,
    "attn_output": 2.0,
    "ffn_gate": 3.0,
    "ffn_up": 4.2,
    "ffn_down": 4.3,
}
"""Of the tensors of a role in all layers together."""
OUTPUT_COEFFICIENT = 8.3
"""Of the matrix that makes the logits."""
OTHER_COEFFICIENT = 2.5
"""Of other roles (experts' and state-space matrices, embeddings that are not the output): the mean of those above."""
END_FACTOR = 1.7
"""In the first and the last layer: 2.4 and 3.4 for SmolLM2, 1.2 and 0.9 for Gemma; the geometric mean."""
VALUE_FACTOR = 3.0
"""In attn_v the types without an offset, Q4_0 and Q5_0, do so much more harm than their error says: 3.5 times in
SmolLM2, 2.4 in Gemma; in other roles they do not.
"""
ACTIVATION_ERRORS = {1: 0.0, 32: 1.3e-4, 256: 6e-4}
"""What is lost because the engine's CPU backend rounds what a matrix is multiplied with to 8 bits, in blocks of 32
numbers with one scale (`Q8_0`, `Q8_1`) or of 256 (`Q8_K`), by the block of the matrix's type. Measured: ffn_down in
Q6_K diverged by 0.0041 in SmolLM2 and 0.0050 in Gemma, the same weights in F16 by 0.0020 and 0.0017; in Q8_0 by 0.0010
and 0.0008, and 0.0004 and 0.0003.
"""

_IN_LAYER = re.compile(r"blk\.(\d+)\.(\w+?)(?:_exps|_shexp)?\.weight")


def expected_kld(name: str, kind: str, relative_error: float, n_layers: int, *, is_output: bool) -> float:
    """What the tensor `name` in the ggml type `kind` adds to the divergence, in nats."""
    if is_output:
        return OUTPUT_COEFFICIENT * relative_error
    match = _IN_LAYER.fullmatch(name)
    role = match[2] if match else ""
    if role == "attn_v" and kind in ("Q4_0", "Q5_0"):
        relative_error *= VALUE_FACTOR
    relative_error += ACTIVATION_ERRORS[GGML_TYPES_BY_NAME[kind].block]
    end = END_FACTOR if match and int(match[1]) in (0, n_layers - 1) else 1.0
    return LAYER_COEFFICIENTS.get(role, OTHER_COEFFICIENT) / n_layers * end * relative_error
