"""HTML elements. Whatever is text is escaped; only what `tag` and `raw` return is taken as it is."""

from __future__ import annotations

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | None) -> Markup:
    """An element. `None` is left out; `class_` is `class`, `data_v` is `data-v`."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    start = "".join(f' {key}="{html.escape(value)}"' for key, value in named.items())
    return Markup(f"<{name}{start}>{join(*children)}</{name}>")


def join(*children: str | None) -> Markup:
    """One after the other."""
    texts = (child if isinstance(child, Markup) else html.escape(child) for child in children if child is not None)
    return Markup("".join(texts))


def raw(text: str) -> Markup:
    """Text of slmkit's own that is HTML: pictures, style, script."""
    return Markup(text)
