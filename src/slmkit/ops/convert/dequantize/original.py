"""What to tell someone whose checkpoint cannot be dequantized: the model it was quantized from, if it says so."""

from __future__ import annotations

import re

from slmkit.errors import ConvertError
from slmkit.ops.convert.config import Config

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


def refused(config: Config, method: str, reason: str) -> ConvertError:
    """The error for a quantized checkpoint, with the way out."""
    found = original(config)
    what = f"`slmkit convert {found}`" if found else "convert the original, unquantized checkpoint"
    return ConvertError(
        f"{config.folder} is already quantized ({method}) and cannot be dequantized: {reason}",
        hint=f"{what}, then quantize it here",
    )


def original(config: Config) -> str | None:
    """The Hub id of the model that was quantized: `base_model` in the card, or `_name_or_path` in config.json."""
    for candidate in (_base_model(config), config.raw.get("_name_or_path")):
        if isinstance(candidate, str) and _ID.fullmatch(candidate):
            return candidate
    return None


def _base_model(config: Config) -> object:
    import gguf
    import yaml

    try:
        found = gguf.Metadata.load_model_card(config.folder).get("base_model")
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError, OSError, RecursionError):
        return None  # a card is written by hand, and this is only a hint
    return found[0] if isinstance(found, list) and found else found
