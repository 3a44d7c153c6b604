"""What the engine's log says of each tensor that it quantizes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slmkit.formats.gguf.types import GGML_TYPES_BY_NAME

# llama-quant.cpp (0c1e57098) writes one line for each tensor, in a dry run
#   [  12/ 272] blk.0.ffn_down.weight - [ 1536,   576,     1,     1], type =    f16, size = 1.69 MiB -> 0.47 MiB (q4_0)
# and in earnest "... type =    f16, converting to q4_0 .. size = ..."; "size = 0.002 MiB" alone for one that stays.
TENSOR_LINE = re.compile(r"\[\s*\d+/\s*\d+\]\s+\S+\s+- \[(?P<shape>[^\]]*)\], type =\s*(?P<was>\w+)")
_TENSOR = re.compile(
    r"\[\s*\d+/\s*\d+\]\s+(?P<name>\S+)\s+- \[\s*(?P<row>\d+),[^\]]*\], type =\s*(?P<was>\w+), "
    r"(?:\s*=+ \S+: did not find weights for \S+\s+)?"  # with an imatrix, of the embedding and the output
    r"(?:converting to (?P<made>\w+) |size =\s*[\d.]+ MiB(?: ->\s*[\d.]+ MiB \((?P<planned>\w+)\))?)"
)
_FALLBACK = re.compile(
    r"warning: (?P<name>\S+)\s+- ncols\s+\d+ not divisible by\s+\d+ \(required for type\s+(?P<wanted>\w+)\)"
    r".*?-> falling back to\s+(?P<got>\w+)",
    re.DOTALL,
)
_FAILED_LINE = re.compile(r"failed to quantize: (.+)")
_WILL_NEED_IMATRIX = "will require an imatrix"
NO_SPACE = "no space left on the disk"
"""What the child says of a full one."""
OUTPUT = ("output.weight", "token_embd.weight")
# tensor_requires_imatrix of llama-quant.cpp (0c1e57098); Q2_K only in a file of the type Q2_K_S
_NEED_IMATRIX = frozenset({"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"})
_Q2_K_S = 21  # LLAMA_FTYPE_MOSTLY_Q2_K_S
# ggml_quantize_requires_imatrix of ggml.c: without one these abort, also for `OUTPUT`, which the engine does not ask of
_KERNELS_NEED_IMATRIX = frozenset({"IQ2_XXS", "IQ2_XS", "IQ1_S"})


@dataclass(frozen=True)
class Fallback:
    """A tensor whose rows do not divide into the blocks of the type it should have had."""

    name: str
    wanted: str
    got: str


def types(log: str) -> dict[str, str]:
    """The ggml type that each tensor gets, by name, in the order of the file that is made."""
    return {m["name"]: (m["made"] or m["planned"] or m["was"]).upper() for m in _TENSOR.finditer(log)}


def fallbacks(log: str, base: str) -> tuple[Fallback, ...]:
    """Those that the engine tells of, and the output's matrix, which it gives Q8_0 without a word when its rows do not
    divide into the blocks of the file's type `base` (`llama_tensor_get_type_impl`).
    """
    told = [Fallback(m["name"], m["wanted"].upper(), m["got"].upper()) for m in _FALLBACK.finditer(log)]
    block = GGML_TYPES_BY_NAME[base].block
    named = {fallback.name for fallback in told}
    quiet = [
        Fallback(m["name"], base, "Q8_0")
        for m in _TENSOR.finditer(log)
        if m["name"] in OUTPUT and m["name"] not in named
        if int(m["row"]) % block and (m["made"] or m["planned"] or "").upper() == "Q8_0"
    ]
    return (*told, *quiet)


def needs_imatrix(log: str) -> bool:
    """Whether a dry run says that it would stop without an importance matrix."""
    return _WILL_NEED_IMATRIX in log


def requires_imatrix(name: str, kind: str, file_type: int) -> bool:
    """Whether a tensor cannot become the ggml type `kind` in a file of that `llama_ftype` without importance of it."""
    if name in OUTPUT:
        return kind in _KERNELS_NEED_IMATRIX
    return kind in _NEED_IMATRIX or (kind == "Q2_K" and file_type == _Q2_K_S)


def reason(lines: tuple[str, ...]) -> str:
    """The last line of the log that says why; the last line of all when none does."""
    said = [match[1] for line in lines if (match := _FAILED_LINE.search(line))]
    return (said or lines or ("no log",))[-1].strip()
