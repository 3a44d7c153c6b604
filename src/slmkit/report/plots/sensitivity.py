"""What each group of tensors costs when it is quantized alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slmkit.core.history import label_of
from slmkit.core.sensitivity import Cost, Sensitivity
from slmkit.errors import UsageError
from slmkit.report.plots.figure import COLOURS, check_plot, figure, save


def sensitivity_bars(found: Sensitivity, path: Path) -> None:
    """The same as a file; raises `UsageError` also for another suffix."""
    check_plot(path)
    save(draw(found), path)


def is_known(found: Sensitivity) -> bool:
    """Whether there is something to draw."""
    return any(_known(found.of_kind(kind)) for kind in ("role", "layer"))


def draw(found: Sensitivity, width: float = 8) -> Any:
    """A bar for each role, the most costly on top, and below a bar for each layer; lines are standard errors.

    Raises `UsageError` for nothing to draw, `DependencyMissingError` without matplotlib.
    """
    roles = sorted(_known(found.of_kind("role")), key=lambda cost: cost.kld.value if cost.kld else 0.0)
    layers = _known(found.of_kind("layer"))
    panels = [costs for costs in (roles, layers) if costs]
    if not panels:
        raise UsageError("nothing to draw: no group has been measured")
    drawn, axes = figure(width, 1.5 + 0.3 * len(roles) + (2.5 if layers else 0), n_panels=len(panels))
    if roles:
        _bars(axes[0], roles, across=True)
        axes[0].set_xlabel("KLD of all its tensors, nats for a token")
        axes[0].grid(visible=False, axis="y")
    if layers:
        _bars(axes[-1], layers, across=False)
        axes[-1].set_ylabel("KLD of a layer, nats")
        axes[-1].tick_params(axis="x", labelrotation=90 if len(layers) > 12 else 0, labelsize=8)
        axes[-1].grid(visible=False, axis="x")
    axes[0].set_title(f"{label_of(found.ref)}: each group of tensors alone in {found.type}", fontsize=11)
    return drawn


def _known(costs: Sequence[Cost]) -> list[Cost]:
    return [cost for cost in costs if cost.kld]


def _bars(axes: Any, costs: Sequence[Cost], *, across: bool) -> None:
    names = [cost.group.name.removeprefix("blk.") for cost in costs]
    klds = [cost.kld for cost in costs if cost.kld]
    values, errors = [kld.value for kld in klds], [kld.error or 0.0 for kld in klds]
    if across:
        axes.barh(names, values, xerr=errors, color=COLOURS[0], ecolor=COLOURS[6])
    else:
        axes.bar(names, values, yerr=errors, color=COLOURS[0], ecolor=COLOURS[6])
