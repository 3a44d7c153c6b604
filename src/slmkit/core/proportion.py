"""Shares of yes and no: how sure one is, and whether two on the same questions differ by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass

_Z975 = 1.959963984540054
"""How many standard deviations half of a 95 % interval of the normal distribution is."""


@dataclass(frozen=True)
class Proportion:
    """`n_yes` out of `n`."""

    n_yes: int
    n: int

    @property
    def share(self) -> float | None:
        """0 to 1; `None` of nothing."""
        return self.n_yes / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % confidence interval of Wilson; `None` of nothing.

        E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (JASA 22, 1927). Unlike the
        textbook's it stays between 0 and 1 and has a width where all or none is yes.
        """
        if not self.n:
            return None
        share, z2 = self.n_yes / self.n, _Z975**2
        centre = share + z2 / (2 * self.n)
        half = _Z975 * math.sqrt(share * (1 - share) / self.n + z2 / (4 * self.n**2))
        scale = 1 + z2 / self.n
        return max(0.0, min(share, (centre - half) / scale)), min(1.0, max(share, (centre + half) / scale))


@dataclass(frozen=True)
class Paired:
    """Two that were asked the same: how often both were right, only the first, only the second, or neither."""

    n_both: int
    n_only_first: int
    n_only_second: int
    n_neither: int

    @property
    def n(self) -> int:
        """All questions."""
        return self.n_both + self.n_only_first + self.n_only_second + self.n_neither

    @property
    def difference(self) -> float | None:
        """The second's share of right answers less the first's; `None` of nothing."""
        return (self.n_only_second - self.n_only_first) / self.n if self.n else None

    @property
    def p_value(self) -> float:
        """Of the exact test of McNemar, two-sided: how likely it is that equals differ this much or more.

        Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages"
        (Psychometrika 12, 1947). Only questions on which one was right and the other wrong count; between equals each
        of these is a toss of a coin.
        """
        n = self.n_only_first + self.n_only_second
        tail = sum(math.comb(n, k) for k in range(min(self.n_only_first, self.n_only_second) + 1))
        return min(1.0, tail / (1 << max(n - 1, 0)))  # integers: exact, however many there are
