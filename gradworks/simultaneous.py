"""Simultaneous intervals of paired differences between methods, over seeds and over test examples.

The scores of a table follow method + seed + residual: runs of one seed share initialisation, data order, corruption and
masks. The residual variance is pooled over all methods, so an interval exists from two seeds, and the critical value is
that of the largest of all comparisons (Dunnett, J. Am. Stat. Assoc. 50, 1955; Biometrics 20, 1964). Spreads do differ
between methods, and a pretest sees that too late with few seeds; so wherever the spread of one of the two methods is
more than the pooled one (a method's at three seeds: twice that), its own counts, free of the bias that the others have
on it (Grubbs, J. Am. Stat. Assoc. 43, 1948), with its own degrees of freedom (Welch; Satterthwaite, Biometrics Bull. 2,
1946). The variance of the test examples, the same for all seeds, is added. `benchmarks/CLAIMS.md` has the rate of false
claims and the power that follow. scipy.special alone: importing scipy.stats takes two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

FROM = 2  # seeds
ALPHA = 0.05  # of a false claim in a table
DRAWS = 4000  # tables drawn for a detectable difference
# With few seeds a noisy method may seem quiet by chance, and no rule with any power is exact for every pattern of
# spreads. These are the nominal levels at which at most 5 % of tables make a false claim (benchmarks/CLAIMS.md).
_NOMINAL, _NOMINAL_BEYOND = {2: 0.0045, 3: 0.028, 4: 0.042, 5: 0.047}, ALPHA
_MANY = 9  # comparisons, beyond which the level falls with their number at three seeds, with its square at two
# times the pooled variance: from here on a method's own counts at three seeds, where it has two degrees of freedom
# alone; that of the baseline, which all comparisons share, always does where it is more
_COUNTS_FROM = 2.0
_CLEAR = 0.01  # level of the F test by which spreads are said to differ
_SHARED = 0.9  # correlations above it count as this: a little conservative, and the integral stays smooth
_TINY = 1e-12


@dataclass(frozen=True)
class Interval:
    """One comparison. Lengths are in units of the metric.

    Attributes:
        se: standard error of the mean difference, seeds and examples together.
        half: half the width of the simultaneous interval.
        p: of this comparison alone, two-sided.
        corrected: over all comparisons of the table; below 0.05 exactly where the interval excludes 0.
        detectable: the smallest true difference that the same rule finds with 80 % power.
        spreads: "alike", or "differ" where that of one of the two methods is clearly more than the others'.
    """

    se: float
    half: float
    p: float
    corrected: float
    detectable: float
    spreads: str


def nominal(seeds: int, comparisons: int) -> float:
    """The level at which a table of this many comparisons is read; one comparison is a paired t test and exact."""
    if comparisons == 1:
        return ALPHA
    level = _NOMINAL.get(seeds, _NOMINAL_BEYOND)
    return level * min(1.0, _MANY / comparisons) ** max(0, 4 - seeds)


@cache
def _nodes() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the shared normal, (z, weight), and of the probability of the scale, (u, weight), dense near 0."""
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(64)
    density = 7 * w * np.exp(-((7 * x) ** 2) / 2) / math.sqrt(2 * math.pi)
    v, weight = np.polynomial.legendre.leggauss(40)
    v = (v + 1) / 2
    return 7 * x, density, v**3, 1.5 * v * v * weight


def within(x: np.ndarray, comparisons: int, freedom: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Chance that the largest |t| of several correlated comparisons is at most x.

    Args:
        x: (...) not negative.
        comparisons: how many; any two correlate by `shared`.
        freedom: (...) degrees of freedom of the common scale, may be infinite.
        shared: (...) correlation, 0 to 0.9: 0.5 against a baseline of the same spread.

    Returns:
        (...) the integral over the scale and over what the comparisons share.
    """
    import numpy as np
    from scipy.special import chdtri, ndtr

    z, density, u, weight = _nodes()
    x, freedom, shared = np.broadcast_arrays(*(np.asarray(a, dtype=float)[..., None] for a in (x, freedom, shared)))
    finite = np.where(np.isfinite(freedom), freedom, 1e9)
    scale = np.where(finite < 1e7, np.sqrt(chdtri(finite, 1 - u) / finite), 1.0)
    at, (a, b) = (x * scale)[..., None], (np.sqrt(shared)[..., None] * z, np.sqrt(1 - shared)[..., None])
    each = (ndtr((at - a) / b) - ndtr((-at - a) / b)) ** comparisons
    return ((each @ density) * weight).sum(-1)


def critical(comparisons: int, freedom: np.ndarray, shared: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """The x that the largest |t| passes with chance `alpha`, to 1e-9 of itself; arguments as in `within`."""
    import numpy as np
    from scipy.special import stdtrit

    freedom, shared = np.broadcast_arrays(np.asarray(freedom, dtype=float), np.minimum(shared, _SHARED))
    low = stdtrit(np.minimum(freedom, 1e9), 1 - alpha / 2)  # one comparison alone
    if comparisons == 1:
        return low
    high = stdtrit(np.minimum(freedom, 1e9), 1 - alpha / (2 * comparisons))  # Bonferroni
    for _ in range(32):
        middle = (low + high) / 2
        inside = within(middle, comparisons, freedom, shared) < 1 - alpha
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return (low + high) / 2


@lru_cache(maxsize=64)
def _table(comparisons: int, alpha: float, correlated: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of critical values by inverse freedom and correlation, to interpolate many."""
    import numpy as np

    inverse = np.concatenate([[1e-9, 0.01, 0.03], np.linspace(0.06, 1, 18)])
    shared = np.array([0.0, 0.25, 0.5, 0.7, 0.8, _SHARED]) if correlated else np.zeros(1)
    return inverse, shared, np.log(critical(comparisons, 1 / inverse[:, None], shared, alpha))


def _critical(comparisons: int, freedom: np.ndarray, shared: np.ndarray, alpha: float, correlated: bool) -> np.ndarray:
    """`critical` of any number of values, for more than a few from a table (relative error below 2e-3)."""
    import numpy as np

    if not correlated:
        shared = np.zeros_like(shared)
    if freedom.size <= 64:
        return critical(comparisons, freedom, shared, alpha)
    rows, columns, table = _table(comparisons, alpha, correlated)
    at = np.clip(1 / freedom, rows[0], rows[-1])
    i = np.clip(np.searchsorted(rows, at) - 1, 0, len(rows) - 2)
    v = (at - rows[i]) / (rows[i + 1] - rows[i])
    if not correlated:
        return np.exp(table[i, 0] * (1 - v) + table[i + 1, 0] * v)
    at = np.clip(shared, 0, _SHARED)
    j = np.clip(np.searchsorted(columns, at) - 1, 0, len(columns) - 2)
    w = (at - columns[j]) / (columns[j + 1] - columns[j])
    low = table[i, j] * (1 - w) + table[i, j + 1] * w
    return np.exp(low * (1 - v) + (table[i + 1, j] * (1 - w) + table[i + 1, j + 1] * w) * v)


class Rule:
    """The rule for one table: which cells there are, which enter the pool, which pairs of methods are compared.

    Args:
        cells: (method, seed) of each score, in the order in which `read` gets the scores.
        pool: of each, whether it enters the pooled variance (one that did not converge does not).
        pairs: (method, other) of each comparison; each has at least two seeds that both have.
        examples: for each pair, the standard error of its difference over test examples, and how many; (0, inf) where
            it is not known.
        correlated: all pairs have the same other method, a baseline.
    """

    def __init__(
        self,
        cells: Sequence[tuple[str, Hashable]],
        pool: Sequence[bool],
        pairs: Sequence[tuple[str, str]],
        examples: Sequence[tuple[float, float]],
        correlated: bool = True,
    ) -> None:
        import numpy as np

        self.pairs, self.correlated = list(pairs), correlated
        methods, seeds = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
        place = {cell: i for i, cell in enumerate(cells)}
        row = np.array([methods.index(method) for method, _ in cells])
        column = np.array([seeds.index(seed) for _, seed in cells])
        pooled, self._methods = np.flatnonzero(np.asarray(pool, dtype=bool)), row
        model = np.zeros((len(pooled), len(methods) + len(seeds)))
        model[np.arange(len(pooled)), row[pooled]] = model[np.arange(len(pooled)), len(methods) + column[pooled]] = 1
        rest = np.eye(len(pooled)) - model @ np.linalg.pinv(model)
        self._rest = np.zeros((len(cells), len(cells)))
        self._rest[np.ix_(pooled, pooled)] = rest
        self._of = np.zeros((len(cells), len(methods)))
        self._of[pooled, row[pooled]] = 1
        self.own = np.diag(self._rest) @ self._of  # of the residual squares' expectation, in variances
        self.freedom = float(np.round(self.own.sum()))
        counts = self._of.sum(0)
        self._has = (counts > 1) & (self.own > 1e-9)
        self._own_freedom = np.where(self._has, counts - 1, 1.0)
        alone = ((self._of.T @ self._rest**2) * self._of.T).sum(1)  # of these, what comes of the method itself
        self._excess = np.divide(self.own, alone, out=np.ones(len(methods)), where=self._has)
        self._counts_from = np.where(correlated & (counts == 3), _COUNTS_FROM, 1.0)
        self.row = np.array([[methods.index(name) for name in pair] for pair in self.pairs]).reshape(-1, 2)
        self.seeds = [[s for s in seeds if (a, s) in place and (b, s) in place] for a, b in self.pairs]
        self.n = np.array([len(s) for s in self.seeds])
        self._mean = np.zeros((len(cells), len(self.pairs)))
        self._apart: list[np.ndarray] = []  # (cells, n) of a pair: its difference of each seed
        for i, (a, b) in enumerate(self.pairs):
            apart = np.zeros((len(cells), self.n[i]))
            for j, seed in enumerate(self.seeds[i]):
                apart[place[a, seed], j], apart[place[b, seed], j] = 1, -1
            self._apart.append(apart)
            self._mean[:, i] = apart.mean(1)
        weak = {cells[i][0] for i in np.flatnonzero(~np.asarray(pool, dtype=bool))}
        few = len(methods) <= 3 or self.freedom == 0
        self._paired = np.array([few or a in weak or b in weak for a, b in self.pairs])
        self.examples = np.array([one[0] for one in examples]) ** 2
        self.example_freedom = np.array([max(1.0, one[1] - 1) for one in examples])
        self.alpha = np.array([nominal(int(n), len(self.pairs)) for n in self.n])

    def spreads(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of (b, cells) scores: the pooled variance and its degrees of freedom (b, 1), each method's own variance (b,
        methods), 0 where it has none, and whether that is clearly more than the others' (F test). Such a method is not
        in the pool.
        """
        import numpy as np
        from scipy.special import fdtrc

        squares = (scores @ self._rest) ** 2 @ self._of
        total, own = squares.sum(1, keepdims=True), squares / np.where(self._has, self.own, np.inf)
        if not self.freedom:
            return total, np.ones_like(total), own, np.zeros(own.shape, dtype=bool)
        others = self.freedom - self.own
        with np.errstate(invalid="ignore", divide="ignore"):
            p = fdtrc(self._own_freedom, others, own * others / (total - squares))
        differ = (np.nan_to_num(p, nan=1.0) < _CLEAR) & self._has & (others >= 1)
        freedom = self.freedom - differ @ self.own
        differ &= freedom[:, None] >= 1
        freedom = (self.freedom - differ @ self.own)[:, None]
        pooled = (total - (squares * differ).sum(1, keepdims=True)) / freedom
        # a method's residuals hold (1 - 1/m) of its excess over the others, who get the rest (Grubbs)
        return pooled, freedom, np.where(own > pooled, pooled + (own - pooled) * self._excess, own), differ

    def read(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The rule itself, for any number of tables at once.

        Args:
            scores: (b, cells).

        Returns:
            (b, pairs) each: mean difference, its standard error, half the interval's width, degrees of freedom, and the
            correlation with the other comparisons.
        """
        import numpy as np

        pooled, of_pool, own, _ = self.spreads(scores)
        parts = []
        for r, least in zip(self.row.T, (self._counts_from, np.ones(len(self._has))), strict=True):
            wide = own[:, r] > least[r] * pooled if self.freedom else np.zeros((len(own), len(r)), dtype=bool)
            spread, freedom = np.where(wide, own[:, r], pooled), np.where(wide, self._own_freedom[r], of_pool)
            parts.append((spread / self.n, freedom, wide))
        (ours, of_ours, a), (theirs, of_theirs, b) = parts
        seeds = ours + theirs  # where both are pooled they are one estimate, else two that are independent
        lost = np.where(a | b, ours**2 / of_ours + theirs**2 / of_theirs, seeds**2 / of_pool)
        se, half, nu, shared = self._width(seeds, lost, theirs, range(len(self.pairs)))
        for i in np.flatnonzero(self._paired):  # the pair's own differences, where those spread more
            apart = (scores @ self._apart[i]).var(1, ddof=1)[:, None] / self.n[i]
            other = self._width(apart, apart**2 / (self.n[i] - 1), apart / 2, [i])
            more = other[1][:, 0] > half[:, i] if self.freedom else np.ones(len(scores), dtype=bool)
            for kept, found in zip((se, half, nu, shared), other, strict=True):
                kept[more, i] = found[more, 0]
        return scores @ self._mean, se, half, nu, shared

    def _width(self, seeds: np.ndarray, lost: np.ndarray, theirs: np.ndarray, which: Sequence[int]) -> tuple:
        """Standard error, half width, freedom and correlation from variances over seeds; `lost` is theirs over 2/ν."""
        import numpy as np

        which = np.asarray(which)
        examples, freedom = self.examples[which], self.example_freedom[which]
        variance, lost = seeds + examples, lost + examples**2 / freedom
        with np.errstate(invalid="ignore", divide="ignore"):
            nu = np.nan_to_num(np.maximum(variance**2 / lost, 1), nan=1.0)
            shared = np.nan_to_num(np.minimum(theirs / variance, _SHARED))
        half = np.empty_like(variance)
        for alpha in np.unique(self.alpha[which]):
            of = self.alpha[which] == alpha
            x = _critical(len(self.pairs), nu[:, of], shared[:, of], float(alpha), self.correlated)
            half[:, of] = x * np.sqrt(variance[:, of])
        return np.sqrt(variance), half, nu, shared

    def intervals(self, scores: Sequence[float]) -> list[Interval | None]:
        """Of one table: an interval for each pair, None where nothing varies, so that there is nothing to judge by."""
        import numpy as np
        from scipy.special import stdtr

        table = np.asarray(scores, dtype=float)[None]
        table = table - table.mean()
        mean, se, half, nu, shared = (found[0] for found in self.read(table))
        spread, differ = self._likely(table)
        detectable = self._detectable(spread)
        made: list[Interval | None] = []
        for i, pair in enumerate(self.row):
            if not se[i] > _TINY * max(1.0, abs(float(np.max(np.abs(scores))))):
                made.append(None)
                continue
            t, correlation = abs(mean[i] / se[i]), shared[i] if self.correlated else 0.0
            alone = float(2 * stdtr(min(nu[i], 1e9), -t))
            every = float(1 - within(t, len(self.pairs), nu[i], correlation)) if len(self.pairs) > 1 else alone
            corrected = float(min(1.0, max(alone, every * ALPHA / self.alpha[i])))
            said = "differ" if differ[pair].any() else "alike"
            made.append(Interval(float(se[i]), float(half[i]), alone, corrected, float(detectable[i]), said))
        return made

    def _likely(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each method's variance, its own where that clearly differs (F test) from the others', and where it does."""
        import numpy as np
        from scipy.special import fdtrc

        pooled, _, own, differ = (found[0] for found in self.spreads(table))
        likely = np.where(differ, own, pooled if self.freedom else 0.0)
        for i in np.flatnonzero(self._paired):
            apart, (a, b) = float((table @ self._apart[i]).var(ddof=1)), self.row[i]
            if not self.freedom:
                likely[a], likely[b] = max(likely[a], apart / 2), max(likely[b], apart / 2)
            elif fdtrc(self.n[i] - 1, self.freedom, apart / max(likely[a] + likely[b], 1e-300)) < _CLEAR:
                likely[a], differ[a] = apart - likely[b], True
        return likely, differ

    def _detectable(self, variance: np.ndarray) -> np.ndarray:
        """Smallest true differences that `read` finds in 80 % of tables whose methods have these variances.

        A true difference moves the mean and nothing else that the rule reads, so it is found where it is more than
        half the interval less what chance adds: the 80 % quantile of that over drawn tables.
        """
        import numpy as np

        draw = np.random.default_rng(0)
        of = self._methods
        scores = draw.normal(size=(DRAWS, len(of))) * np.sqrt(variance)[of]
        chance = draw.normal(size=(DRAWS, len(self.pairs))) * np.sqrt(self.examples)
        mean, _, half, _, _ = self.read(scores)
        return np.quantile(half - mean - chance, 0.8, axis=0)
