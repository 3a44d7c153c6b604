"""What shape config.json gives each tensor of the GGUF: a checkpoint that contradicts it is not converted.

llama.cpp computes the same sizes from the metadata when it loads the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from slmkit.errors import ConvertError
from slmkit.ops.convert.origin import described, origins

if TYPE_CHECKING:
    from slmkit.ops.convert.architecture import Architecture, NamedWeights

Shape = tuple[int | None, ...]
"""In numpy order; `None` where any size is right."""

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def standard_shapes(architecture: Architecture) -> dict[str, Shape]:
    """Of the weights that most decoders have, by their names in GGUF (`{}` is the layer).

    What config.json does not say as one number for all layers is not checked.
    """
    a = architecture
    width, vocabulary = _size(lambda: a.n_embd), _size(lambda: a.n_vocab)
    q, kv = _size(lambda: a.n_heads * a.head_dim), _size(lambda: a.n_kv_heads * a.head_dim)
    inner, head = _size(lambda: a.n_ff), _size(lambda: a.head_dim)
    context = _size(lambda: a.config.integer("n_positions", "n_ctx", "max_position_embeddings"))
    experts = _size(lambda: a.config.integer("num_local_experts", "num_experts", "n_routed_experts"))
    one_expert = _size(lambda: a.config.integer("moe_intermediate_size", default=a.n_ff))
    shared = _size(lambda: a.config.integer("shared_expert_intermediate_size", "shared_intermediate_size"))
    layer: dict[str, Shape] = {
        "attn_norm": (width,),
        "attn_norm_2": (width,),
        "attn_q": (q, width),
        "attn_q_norm": (head,),
        "attn_k_norm": (head,),
        "attn_k": (kv, width),
        "attn_v": (kv, width),
        "attn_qkv": (None if q is None or kv is None else q + 2 * kv, width),
        "attn_output": (width, q),
        "attn_sub_norm": (q,),
        "post_attention_norm": (width,),
        "ffn_norm": (width,),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
        "ffn_sub_norm": (inner,),
        "post_ffw_norm": (width,),
        "ffn_gate_inp": (experts, width),
        "ffn_gate_exps": (experts, one_expert, width),
        "ffn_up_exps": (experts, one_expert, width),
        "ffn_down_exps": (experts, width, one_expert),
        "ffn_gate_inp_shexp": (1, width),
        "ffn_gate_shexp": (shared, width),
        "ffn_up_shexp": (shared, width),
        "ffn_down_shexp": (width, shared),
    }
    whole: dict[str, Shape] = {
        "token_embd": (vocabulary, width),
        "token_embd_norm": (width,),
        "position_embd": (context, width),
        "output_norm": (width,),
        "output": (vocabulary, width),
    }
    return whole | {f"blk.{{}}.{name}": shape for name, shape in layer.items()}


def with_fused_gate(architecture: Architecture) -> dict[str, Shape]:
    """`standard_shapes` where gate and up are one tensor, which GGUF calls up."""
    return standard_shapes(architecture) | {"blk.{}.ffn_up": (2 * architecture.n_ff, architecture.n_embd)}


def check_shapes(architecture: Architecture, tensors: Iterable[NamedWeights]) -> None:
    """Raise `ConvertError` for the first tensor whose shape is not what config.json makes it."""
    expected: Mapping[str, Shape | None] = architecture.shapes()
    for tensor in tensors:
        name = _LAYER.sub("{}", tensor.name + ".", count=1).removesuffix(".")
        base, _, suffix = name.rpartition(".")
        wanted = expected.get(base, expected.get(name))  # some tensors are called neither weight nor bias
        if wanted is None:
            continue
        if suffix == "bias":
            wanted = wanted[:1]
        found = tensor.weights.shape
        if len(found) != len(wanted) or any(b not in (None, a) for a, b in zip(found, wanted, strict=True)):
            raise ConvertError(
                f"{_what(architecture, tensor)} has shape {list(found)}, but config.json makes it "
                f"[{', '.join('any' if n is None else str(n) for n in wanted)}]",
                hint="config.json and weights belong to different versions of the model",
            )


def _what(architecture: Architecture, tensor: NamedWeights) -> str:
    """The stored tensor, or GGUF's when it is only a part of it or made of several."""
    stored = origins(tensor.weights)
    if len(stored) == 1 and stored[0].shape == tensor.weights.shape:
        return described(tensor.weights, "")
    return f"{architecture.config.folder}: tensor `{tensor.name}`"


def _size(get: Callable[[], int]) -> int | None:
    try:
        return get()
    except ConvertError:  # config.json does not have it: not every architecture needs it
        return None
