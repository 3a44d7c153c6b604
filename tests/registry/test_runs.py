"""A run that is amended: in its own place, whatever its values are, and no other."""

from __future__ import annotations

import math
from dataclasses import replace

from slmkit.registry import runs
from slmkit.registry.store import Registry
from tests import judged

RUN = judged.asked(judged.run(judged.F16, judged.Q4_0))
DAMAGED = judged.run(judged.F16, judged.damaged(judged.Q4_0))


def test_the_run_itself_is_amended_and_its_twin_is_not(registry: Registry) -> None:
    other = runs.save(registry.home, "quality", replace(RUN, created="2026-11-26T10:00:00+00:00").document())
    path = runs.save(registry.home, "quality", RUN.document())
    before = other.read_bytes()
    amended = RUN.with_damage(DAMAGED.damages)
    runs.amend(registry.home, RUN.document(), amended.document())
    assert runs.read_any(registry.home, path.stem).run == amended
    assert other.read_bytes() == before


def test_a_run_with_what_is_no_number_is_found_again(registry: Registry) -> None:
    (result,) = RUN.tasks
    odd = replace(RUN, tasks=(replace(result, scored=(replace(result.scored[0], logs=(math.nan, -1.0)),)),))
    path = runs.save(registry.home, "quality", odd.document())
    runs.amend(registry.home, odd.document(), odd.with_damage(DAMAGED.damages).document())
    assert b'"worst"' in path.read_bytes()
