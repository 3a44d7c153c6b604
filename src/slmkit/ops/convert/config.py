"""config.json, read with care: what is missing or of the wrong type is an error that names file and key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmkit.errors import ConvertError, TokenizerError
from slmkit.formats.tokenizer_json import read_json


@dataclass(frozen=True)
class Config:
    """The file's keys; `null` counts as absent."""

    path: Path
    raw: dict[str, Any]

    def has(self, key: str) -> bool:
        """Whether the key is there and not `null`."""
        return self.raw.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """A count or size, 1 or more; raises `ConvertError`."""
        value = self.raw.get(key)
        if value is None:
            value = self._default(key, default)
        if type(value) is not int or not 0 < value < 1 << 32:
            raise ConvertError(f"{self.path}: `{key}` must be a positive whole number, not {value!r}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number; raises `ConvertError`."""
        value = self.raw.get(key)
        if value is None:
            value = self._default(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConvertError(f"{self.path}: `{key}` must be a number, not {value!r}")
        return float(value)

    def _default(self, key: str, default: float | None) -> float:
        if default is None:
            raise ConvertError(f"{self.path} lacks `{key}`", hint="the file is incomplete: download it again")
        return default


def read_config(folder: Path) -> Config:
    """Read config.json; raises `ConvertError` when it is missing or no JSON object."""
    path = folder / "config.json"
    if not folder.is_dir():
        raise ConvertError(f"{folder} is not a folder", hint="a checkpoint is a folder with config.json in it")
    try:
        raw = read_json(path)
    except TokenizerError as error:
        raise ConvertError(error.message, hint=error.hint) from error
    if not raw:
        raise ConvertError(f"{folder} has no config.json", hint="is it a checkpoint of Hugging Face transformers?")
    return Config(path, raw)
