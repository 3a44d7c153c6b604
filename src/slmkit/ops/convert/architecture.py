"""What the converter must know of an architecture, and how it finds it.

A new architecture is one small module in `arch/`: a subclass with its names in `hf_names`, and only what differs from
its parent: keys of config.json, names of tensors, data of tensors, vocabulary. `arch/llama.py` is the base of most.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import ClassVar

from slmkit.errors import ConvertError, UnclaimedTensorsError, UnsupportedArchError
from slmkit.formats.gguf.writer import Value
from slmkit.ops.convert.config import Config, read_config
from slmkit.ops.convert.rows import Rows
from slmkit.ops.convert.vocab import read_vocab

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class NamedRows:
    """A tensor of the GGUF to be: its name there, and where its data comes from."""

    name: str
    rows: Rows


class Architecture(ABC):
    """One architecture, reading one checkpoint's config.json.

    `names` maps tensor names of the checkpoint to those of GGUF, without `.weight` or `.bias`; `{}` is the layer's
    number. `ignored` are patterns (whole names) of tensors that carry no weights of the model.
    """

    name: ClassVar[str]
    hf_names: ClassVar[tuple[str, ...]]
    names: ClassVar[Mapping[str, str]]
    optional: ClassVar[frozenset[str]] = frozenset()
    """Names whose absence is no error."""
    ignored: ClassVar[tuple[str, ...]] = (
        r".*\.attention\.masked_bias",
        r".*\.attention\.bias",
        r".*\.rotary_emb\.inv_freq",
    )

    def __init__(self, config: Config) -> None:
        self.config = config
        self.n_layers = config.integer("num_hidden_layers")

    @abstractmethod
    def metadata(self) -> dict[str, Value]:
        """Hyper-parameters, in the order llama.cpp's converter writes them; `general.file_type` comes after these."""

    def late_metadata(self) -> dict[str, Value]:
        """Hyper-parameters that come after `general.file_type`."""
        return {}

    def check(self) -> None:
        """Raise `ConvertError` for a checkpoint that llama.cpp could not run, or not rightly."""
        folder = self.config.path.parent
        if self.config.has("quantization_config"):
            match self.config.raw["quantization_config"]:
                case {"quant_method": str(method)}:
                    how = method
                case _:
                    how = "in some way"
            raise ConvertError(
                f"{folder} is already quantized ({how}), its weights are not plain numbers",
                hint="convert the original checkpoint, then quantize it here",
            )
        if (folder / "modules.json").is_file():
            raise ConvertError(f"{folder} is a sentence embedding model; slmkit converts generating models")

    def remarks(self) -> list[str]:
        """What the user should know about the result."""
        return []

    def vocab(self, folder: Path) -> dict[str, Value]:
        """The `tokenizer.*` keys."""
        return read_vocab(folder, self.config.raw, self.config.integer("vocab_size")).metadata()

    def generated(self) -> Iterator[NamedRows]:
        """Tensors that the checkpoint does not have; they come first."""
        yield from ()

    def rows(self, name: str, rows: Rows) -> Rows:
        """The data of the tensor that GGUF calls `name`, changed to llama.cpp's layout."""
        return rows

    def tensors(self, stored: Mapping[str, Rows]) -> list[NamedRows]:
        """All tensors of the GGUF in order.

        Raises `UnclaimedTensorsError` naming every tensor that has no name in GGUF, and `ConvertError` when some are
        missing or two get the same name.
        """
        out = {t.name: t for t in self.generated()}
        unclaimed = []
        for name, rows in stored.items():
            if any(re.fullmatch(pattern, name) for pattern in self.ignored):
                continue
            target = self.gguf_name(name)
            if target is None:
                unclaimed.append(name)
                continue
            if target in out:
                raise ConvertError(f"{self.config.path.parent} has tensor `{target}` twice")
            out[target] = NamedRows(target, self.rows(target, rows))
        if unclaimed:
            raise UnclaimedTensorsError(
                f"{self.config.path.parent} has {len(unclaimed)} tensors that the {self.name} architecture does not "
                f"know: {', '.join(unclaimed)}",
                hint="nothing was written: without them the model would be a different one",
            )
        absent = [name for name in self.required() if name not in out]
        if absent:
            raise ConvertError(
                f"{self.config.path.parent} lacks {len(absent)} tensors: {', '.join(absent[:8])}"
                + (", ..." if len(absent) > 8 else ""),
                hint="the checkpoint is incomplete, or config.json belongs to another one",
            )
        return list(out.values())

    def gguf_name(self, name: str) -> str | None:
        """`name` in GGUF, or `None` when the architecture has no such tensor."""
        base, _, suffix = name.rpartition(".")
        layers = _LAYER.findall(base + ".")
        template = self.names.get(_LAYER.sub("{}", base + ".", count=1).removesuffix("."))
        if template is None or suffix not in ("weight", "bias"):
            return None
        if "{}" in template and int(layers[0]) >= self.n_layers:
            return None
        return f"{template.format(*layers)}.{suffix}"

    def required(self) -> Iterator[str]:
        """The weights without which the model is not whole."""
        for template in self.names.values():
            if template not in self.optional:
                for layer in range(self.n_layers if "{}" in template else 1):
                    yield f"{template.format(layer)}.weight"


@cache
def architectures() -> Mapping[str, type[Architecture]]:
    """Every supported architecture by the name that config.json's `architectures` has for it."""
    package = import_module("slmkit.ops.convert.arch")
    out: dict[str, type[Architecture]] = {}
    for module in iter_modules(package.__path__):
        for found in vars(import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(found, type) and issubclass(found, Architecture) and "hf_names" in vars(found):
                out |= dict.fromkeys(found.hf_names, found)
    return dict(sorted(out.items()))


def check_supported(folder: Path) -> None:
    """Raise what `convert` would say to this config.json, before there are any weights."""
    open_architecture(read_config(folder))


def open_architecture(config: Config) -> Architecture:
    """The architecture that config.json names, checked.

    Raises `UnsupportedArchError` naming the supported ones, and `ConvertError` for a checkpoint that is quantized.
    """
    match config.raw.get("architectures"):
        case [str(wanted), *_]:
            pass
        case _:
            raise ConvertError(f"{config.path} lacks `architectures`", hint="is it a transformers checkpoint?")
    if wanted not in architectures():
        raise UnsupportedArchError(
            f"{config.path}: the architecture {wanted} cannot be converted yet",
            hint=f"supported: {', '.join(architectures())}; many models have a GGUF on the Hub that can be pulled",
        )
    found = architectures()[wanted](config)
    found.check()
    return found
