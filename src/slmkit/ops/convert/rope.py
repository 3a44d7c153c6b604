"""Rotary position embedding: how config.json's `rope_scaling` is said in GGUF."""

from __future__ import annotations

import math
from typing import Any

from slmkit.errors import ConvertError
from slmkit.formats.gguf.writer import Value, f32, string, u32
from slmkit.ops.convert.config import Config, is_number, shown

_THETA = ("global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base")
_LOCAL_THETA = ("local_rope_theta", "rope_local_theta", "rope_theta_local", "swa_rope_theta", "rope_local_base_freq")
_PARTIAL = ("partial_rotary_factor", "rope_pct", "rope_percent")
_ORIGINAL = ("original_max_position_embeddings",)
_POSITIVE = frozenset(
    {"rope_theta", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}
)
_NUMBERS = frozenset(
    {"partial_rotary_factor", "extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow"}
)


class Rope:
    """One model's rotary embedding: `rope_parameters` (transformers 5), or `rope_scaling` and the keys beside it.

    `main` is that of the layers that see everything, `local` that of sliding windows where theirs is another one.
    Rules: `TextModel.__init__` of conversion/base.py at llama.cpp 0c1e57098,
    https://github.com/ggml-org/llama.cpp/blob/0c1e57098/conversion/base.py.
    """

    def __init__(self, config: Config) -> None:
        self._path, self._context = config.path, config.find("max_position_embeddings")
        found = config.find("rope_parameters", "rope_scaling") or {}
        if not isinstance(found, dict):
            raise ConvertError(f"{config.path}: `rope_scaling` must be an object, not {shown(found)}")
        whole = dict(found)
        if "full_attention" in whole or "sliding_attention" in whole:
            self.main = self._checked(whole.get("full_attention"))
            self.local = self._checked(whole.get("sliding_attention"))
            return
        self.main = whole
        self.local = {"rope_theta": config.number(*_LOCAL_THETA)} if config.find(*_LOCAL_THETA) is not None else {}
        if whole.get("rope_type") is None and whole.get("type") is not None:
            whole["rope_type"] = whole["type"]
        for key, names in (
            ("rope_theta", _THETA),
            ("partial_rotary_factor", _PARTIAL),
            ("original_max_position_embeddings", _ORIGINAL),
        ):
            if whole.get(key) is None and config.find(*names) is not None:
                whole[key] = config.number(*names)
                if key == "original_max_position_embeddings":
                    whole[key] = config.integer(*names)
        self._checked(whole)

    def _checked(self, found: Any) -> dict[str, Any]:
        """A copy; raises `ConvertError` where numbers are expected and something else is there."""
        out = found or {}
        if not isinstance(out, dict):
            raise ConvertError(f"{self._path}: `rope_parameters` must have objects, not {shown(found)}")
        for key, value in out.items():
            if key not in _POSITIVE | _NUMBERS or value is None:
                continue
            if not is_number(value) or (key in _POSITIVE and value <= 0):
                what = "positive number" if key in _POSITIVE else "number"
                raise ConvertError(f"{self._path}: `{key}` of the rope must be a {what}, not {shown(value)}")
        if out.get("rope_type") == "llama3":
            low, high = (out.get(f"{name}_freq_factor", usual) for name, usual in (("low", 1.0), ("high", 4.0)))
            if out.get("rope_theta") is None or low is None or high is None or low >= high:
                raise ConvertError(f"{self._path}: this `llama3` rope scaling makes no sense: {shown(out)}")
        return dict(out)

    @property
    def kind(self) -> str | None:
        """`linear`, `yarn`, `llama3`, `longrope`, ...; `None` without scaling."""
        found = self.main.get("rope_type")
        return None if found in (None, "default") else str(found).lower()

    @property
    def partial_factor(self) -> float | None:
        """The share of each head that is rotated."""
        value = self.main.get("partial_rotary_factor")
        return None if value is None else float(value)

    def check(self) -> None:
        """Raise `ConvertError` for a YaRN scaling that llama.cpp would compute with other numbers.

        It reads the factor and the original context; the rest is as `llama_context` has it built in:
        https://github.com/ggml-org/llama.cpp/blob/0c1e57098/src/llama-context.cpp (Grok and Mistral 3 aside).
        """
        if self.kind != "yarn":
            return
        factor = float(self.main.get("factor") or 1.0)
        built_in = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
        built_in |= dict.fromkeys(("attention_factor", "attn_factor"), 1 + 0.1 * math.log(max(factor, 1.0)))
        for key, value in built_in.items():
            found = self.main.get(key)
            if found is None or (isinstance(found, int | float) and math.isclose(found, value, rel_tol=1e-3)):
                continue
            raise ConvertError(f"{self._path}: llama.cpp has YaRN with `{key}` {value:g} only, not {found!r}")
        if self.main.get("mscale") and self.main.get("mscale_all_dim"):
            raise ConvertError(f"{self._path}: llama.cpp has YaRN without `mscale` only")

    def metadata(self, arch: str) -> dict[str, Value]:
        """Scaling and frequency bases; llama3 scaling and the factors of longrope are tensors instead."""
        out = self._scaling(f"{arch}.rope.scaling.")
        for key, where in (("freq_base", self.main), ("freq_base_swa", self.local)):
            if where.get("rope_theta") is not None:
                out[f"{arch}.rope.{key}"] = f32(where["rope_theta"])
        return out

    def other_base(self, arch: str) -> dict[str, Value]:
        """The frequency base alone, and only when it is not the one that llama.cpp assumes."""
        theta = self.main.get("rope_theta")
        return {} if theta in (None, 10000) else {f"{arch}.rope.freq_base": f32(theta)}

    def _scaling(self, p: str) -> dict[str, Value]:
        factor = self.main.get("factor")
        if self.kind in ("su", "longrope"):
            return {p + "type": string("longrope")}
        if factor is None or self.kind not in ("linear", "yarn"):
            return {}
        out = {p + "type": string(self.kind), p + "factor": f32(factor)}
        if self.kind == "linear":
            return out
        out[p + "original_context_length"] = u32(self.original_context)
        optional = {
            "yarn_ext_factor": self.main.get("extrapolation_factor"),
            "yarn_attn_factor": self.main.get("attention_factor", self.main.get("attn_factor")),
            "yarn_beta_fast": self.main.get("beta_fast"),
            "yarn_beta_slow": self.main.get("beta_slow"),
        }
        return out | {p + key: f32(value) for key, value in optional.items() if value is not None}

    @property
    def original_context(self) -> int:
        """Tokens that the model was first trained on, by default all; raises `ConvertError` for nonsense."""
        value: Any = self.main.get("original_max_position_embeddings") or self._context
        if type(value) is not int or value <= 0:
            raise ConvertError(f"{self._path}: `rope_scaling` needs `original_max_position_embeddings`")
        return value
