"""What a user types to name a model: one type, one grammar.

    reference = hub [ "@" revision ] [ ":" variant ]     HuggingFaceTB/SmolLM2-135M-Instruct@main:Q4_0
              | alias [ "@" revision ] [ ":" variant ]   qwen3-0.6b, qwen3-0.6b:Q4_0
              | path                                     ./file.gguf, /models/x.gguf, ../checkpoint, ~/m, file.gguf
    hub       = name "/" name
    alias     = name
    name      = letter or digit, then letters, digits, "." "_" "-"; at most 96 characters
    revision  = branch, tag or commit: letters, digits, "." "_" "-" "/"; no ".." and no "/" at either end
    variant   = letter or digit, then letters, digits, "." "_" "-"

A path starts with "./", "../", "/" or "~", is "." or "..", or ends in ".gguf"; so a bare word is never taken for a
folder that happens to have its name. `name` follows the Hub's own rule for repository names
(huggingface_hub.utils.validate_repo_id, version 1.0).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from slmkit.errors import RefError

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_VARIANT = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_REVISION = r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9_])?"
_HUB = re.compile(rf"(?P<name>{_NAME}/{_NAME})(?:@(?P<revision>{_REVISION}))?(?::(?P<variant>{_VARIANT}))?")
_ALIAS = re.compile(rf"(?P<name>{_NAME})(?:@(?P<revision>{_REVISION}))?(?::(?P<variant>{_VARIANT}))?")
_PATH_STARTS = ("./", "../", "/", "~", ".\\", "..\\")
_EXAMPLES = (
    "valid: `HuggingFaceTB/SmolLM2-135M-Instruct`, `org/name@revision`, `org/name:Q4_0`, `./model.gguf`, `smollm2-135m`"
)

RefKind = Literal["hub", "alias", "path"]


@dataclass(frozen=True)
class ModelRef:
    """A parsed reference. `str(ref)` gives back what `parse` takes.

    `name` is `org/name` for the Hub and the registry, the alias, or the path as it was typed.
    """

    kind: RefKind
    name: str
    revision: str | None = None
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelRef:
        """Read one reference; raises `RefError` with a valid example for anything else."""
        if not text or text != text.strip() or "\0" in text:
            raise RefError(f"not a model reference: {text!r}", hint=_EXAMPLES)
        if is_path(text):
            return cls("path", text)
        kind: RefKind = "hub" if "/" in text.partition("@")[0] else "alias"
        pattern = _HUB if kind == "hub" else _ALIAS
        match = pattern.fullmatch(text)
        if match is None or ".." in text or "--" in match["name"]:
            raise RefError(f"not a model reference: {text!r}{_why(text)}", hint=_EXAMPLES)
        return cls(kind, match["name"], match["revision"], match["variant"])

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        variant = f":{self.variant}" if self.variant else ""
        return f"{self.name}{revision}{variant}"

    @property
    def model(self) -> str:
        """The registry's key for the model, whatever the variant: `org/name` or `org/name@revision`."""
        return str(replace(self, variant=None))

    def with_variant(self, variant: str | None) -> ModelRef:
        """The same model in another variant; `None` is the checkpoint."""
        if self.kind == "path":
            raise RefError(f"a path has no variants: {self.name}", hint=f"register it: `slmkit adopt {self.name}`")
        return replace(self, variant=variant)


def is_path(text: str) -> bool:
    """Whether the grammar takes `text` for a path."""
    drive = text[1:3] in (":\\", ":/")
    return drive or text in (".", "..") or text.startswith(_PATH_STARTS) or text.lower().endswith(".gguf")


def _why(text: str) -> str:
    if text.startswith(("http://", "https://")):
        return " (a web address: type only `org/name`)"
    if "--" in text or ".." in text:
        return " (the Hub allows neither -- nor .. in a name)"
    if text.count(":") > 1 or text.count("@") > 1:
        return " (one @revision, then one :variant)"
    return " (a path starts with ./ or /)" if text.count("/") > 1 else ""
