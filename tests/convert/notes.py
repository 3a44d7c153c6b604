"""A progress that keeps what the user is warned of."""

from __future__ import annotations

from dataclasses import dataclass, field

from slmkit.core.progress import SILENT


@dataclass
class Warnings:
    texts: list[str] = field(default_factory=list)
    task = staticmethod(SILENT.task)
    say = staticmethod(SILENT.say)

    def warn(self, text: str) -> None:
        self.texts.append(text)
