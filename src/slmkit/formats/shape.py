"""Whether a value out of JSON is what its dataclass says: JSON has no types that would."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from slmkit.errors import FormatError, UsageError


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Say what is wrong with a document that a value is made of; raises `FormatError`."""
    try:
        yield
    except KeyError as error:
        raise FormatError(f"{what} without {error.args[0]!r}") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise FormatError(f"{what} with something else in it: {error}") from error
    except UsageError as error:
        raise FormatError(f"{what} with settings that cannot be: {error}") from error


def misfit(value: Any, hint: Any, where: str = "it", *, finite: bool = True) -> str | None:
    """Where a value is not of its type, as `it.rows[0].spec.depth`; `None` for nowhere. Numbers must be `finite`."""
    if hint is Any:
        return None
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, hint):
            return where
        inner = ((getattr(value, name), kind, f"{where}.{name}") for name, kind in _hints(hint).items())
        return _first(inner, finite)
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return None if any(misfit(value, kind, finite=finite) is None for kind in of) else where
    if origin is tuple:
        if not isinstance(value, tuple):
            return where
        return _first(((item, of[0], f"{where}[{i}]") for i, item in enumerate(value)), finite)
    if origin is Mapping:
        if not isinstance(value, dict):
            return where
        return _first(((item, of[1], f"{where}.{key}") for key, item in value.items()), finite)
    if origin is Literal:
        return None if value in of else where
    if hint is float:
        ok = isinstance(value, int | float) and not isinstance(value, bool) and (not finite or math.isfinite(value))
    elif hint is int:
        ok = isinstance(value, int) and not isinstance(value, bool)
    else:
        ok = isinstance(value, NoneType if hint is None else hint)
    return None if ok else where


def _first(values: Iterable[tuple[Any, Any, str]], finite: bool) -> str | None:
    every = (misfit(value, hint, where, finite=finite) for value, hint, where in values)
    return next((found for found in every if found), None)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}
