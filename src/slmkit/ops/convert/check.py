"""Will it convert, and to what? From config, tokenizer and headers alone: not one weight is read or downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slmkit.core.progress import SILENT, Progress
from slmkit.errors import ConvertError, FormatError, HubFileNotFoundError, SlmkitError
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.plan import TYPES
from slmkit.ops.convert.unread import Unread

NO = (ConvertError, FormatError, HubFileNotFoundError)
"""Errors that say what is wrong with the checkpoint, and so answer the question."""


@dataclass(frozen=True)
class ConvertCheck:
    """What `convert` would make of `ref`, or in `refusal` why it makes nothing.

    `hf_architecture` is what config.json calls it, `architecture` what GGUF does. `size_bytes` is that of the whole
    file for each type, exactly; `auto` is the type that `auto` comes to. `remarks` say what is left out, and what else
    should be known of the result.
    """

    ref: str
    refusal: SlmkitError | None = None
    hf_architecture: str | None = None
    architecture: str | None = None
    n_params: int | None = None
    n_tensors: int | None = None
    context_length: int | None = None
    tokenizer: str | None = None
    auto: str | None = None
    size_bytes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def converts(self) -> bool:
        """The answer."""
        return self.refusal is None


def check(source: Unread, *, pre: str | None = None, progress: Progress = SILENT) -> ConvertCheck:
    """The answer. `pre` is that of `convert`, and the sizes are exact only with the same.

    Raises the `HubError`s that are no answer.
    """
    hf_name = None
    try:
        match read_config(source.folder).raw.get("architectures"):
            case [str(first), *_]:
                hf_name = first
        plan = source.plan(outtype="auto", pre=pre, progress=progress)
    except NO as error:
        return ConvertCheck(source.ref, error, hf_architecture=hf_name)
    a, values = plan.architecture.name, {key: value.value for key, value in plan.metadata.items()}
    return ConvertCheck(
        ref=source.ref,
        hf_architecture=hf_name,
        architecture=a,
        n_params=plan.n_params,
        n_tensors=len(plan.tensors),
        context_length=values.get(f"{a}.context_length"),
        tokenizer=f"{values['tokenizer.ggml.model']} ({values.get('tokenizer.ggml.pre', 'default')})",
        auto=plan.outtype,
        size_bytes={name: plan.size_bytes(name) for name in TYPES if name != "auto"},
        remarks=plan.remarks,
    )
