"""config.json, read with care: what is missing or of the wrong type is an error that names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slmkit.errors import ConvertError, TokenizerError
from slmkit.formats.tokenizer_json import read_json
from slmkit.ops.convert.folder import check_folder

_LARGEST = 3.4e38
_SHOWN = 60


@dataclass(frozen=True)
class Config:
    """The file's keys; `null` counts as absent. Those of `text_config` (multimodal models) lie on top of the others."""

    path: Path
    raw: dict[str, Any]

    @property
    def folder(self) -> Path:
        """The checkpoint."""
        return self.path.parent

    def has(self, key: str) -> bool:
        """Whether the key is there and not `null`."""
        return self.raw.get(key) is not None

    def find(self, *keys: str) -> Any:
        """The value of the first key that is there; `None` without any."""
        return next((self.raw[key] for key in keys if self.has(key)), None)

    def integer(self, *keys: str, default: int | None = None) -> int:
        """A count or size, 1 or more, under the first of `keys` that is there; raises `ConvertError`."""
        value = self._value(keys, default)
        if type(value) is not int or not 0 < value < 1 << 32:
            raise ConvertError(f"{self.path}: `{self._key(keys)}` must be a positive whole number, not {shown(value)}")
        return value

    def number(self, *keys: str, default: float | None = None) -> float:
        """A number under the first of `keys` that is there; raises `ConvertError`."""
        value = self._value(keys, default)
        if not is_number(value):
            raise ConvertError(f"{self.path}: `{self._key(keys)}` must be a number, not {shown(value)}")
        return float(value)

    def numbers(self, key: str, n: int) -> list[float]:
        """A list of `n` numbers; raises `ConvertError`."""
        value = self._value((key,), None)
        if not isinstance(value, list) or len(value) != n or not all(is_number(x) for x in value):
            raise ConvertError(f"{self.path}: `{key}` must be a list of {n} numbers")
        return [float(x) for x in value]

    def words(self, key: str, n: int) -> list[str]:
        """A list of `n` texts, such as `layer_types`; raises `ConvertError`."""
        value = self._value((key,), None)
        if not isinstance(value, list) or len(value) != n or not all(isinstance(x, str) for x in value):
            raise ConvertError(f"{self.path}: `{key}` must be a list of {n} texts")
        return value

    def filled(self, defaults: Mapping[str, Any]) -> Config:
        """With `defaults` where a key is absent: what transformers assumes for the architecture."""
        return replace(self, raw={**self.raw, **{k: v for k, v in defaults.items() if not self.has(k)}})

    def _key(self, keys: tuple[str, ...]) -> str:
        """Which of the names for a thing this file uses."""
        return next((key for key in keys if self.has(key)), keys[0])

    def _value(self, keys: tuple[str, ...], default: float | None) -> Any:
        value = self.find(*keys)
        if value is None:
            value = default
        if value is None:
            raise ConvertError(f"{self.path} lacks `{keys[0]}`", hint="the file is incomplete: download it again")
        return value


def shown(value: Any) -> str:
    """A value of the file, cut to what fits into a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def is_number(value: Any) -> bool:
    """Whether it is one that a 32-bit float can hold."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST


def read_config(folder: Path) -> Config:
    """Read config.json; raises `ConvertError` when it is missing or no JSON object.

    So it does for a folder with files that lie elsewhere: see `check_folder`.
    """
    path = folder / "config.json"
    if not folder.is_dir():
        raise ConvertError(f"{folder} is not a folder", hint="a checkpoint is a folder with config.json in it")
    check_folder(folder)
    try:
        raw = read_json(path)
    except TokenizerError as error:
        raise ConvertError(error.message, hint=error.hint) from error
    if not raw:
        raise ConvertError(f"{folder} has no config.json", hint="is it a checkpoint of Hugging Face transformers?")
    text = raw.get("text_config")
    if not isinstance(text, dict):
        return Config(path, raw)
    # Upstream looks for ids of tokens, the architecture and the model's name in the whole file first.
    own = {key: value for key, value in raw.items() if key.endswith("_token_id") and value is not None}
    names = {key: raw.get(key) for key in ("architectures", "_name_or_path")}
    return Config(path, {**raw, **text, **own, **names})
