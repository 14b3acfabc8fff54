"""From many statistics of the same dealings to one decision, at a rate of false alarms that is chosen."""

from __future__ import annotations

import numpy as np
from scipy import special

from polyfuse.metrics.metric import Floats

#: Statistics that differ by less are equal: what is left of rounding.
_EQUAL = 1e-6
_SYMMETRIC = 0.05  # skewness below which a law is taken for normal


def tails(statistics: Floats) -> Floats:
    """Return on one scale how rare each statistic is: the logarithm of a tail probability, (tests, dealings).

    The tail is that of the gamma distribution with mean, variance and skewness of the other dealings (Pearson's type
    III). Counted shares alone would end at 1 / dealings, and of many tests one always ends there. Each dealing is held
    against all others, the true one like the rest: were it alone left out of the moments, it would look a little rarer
    than it is, by a tenth of the false alarms.

    Args:
        statistics: (tests, dealings), the true dealing first.
    """
    x = statistics - statistics[:, 1:].mean(axis=1, keepdims=True)
    others = x.shape[1] - 1
    first, second, third = ((sum_of - x**power) / others for power, sum_of in _powers(x))
    # Of the true dealing directly: where it is far off, little would be left of the others in a difference of sums.
    first[:, 0], second[:, 0], third[:, 0] = ((x[:, 1:] ** power).mean(axis=1) for power in (1, 2, 3))
    variance = np.maximum(second - first**2, 0)
    spread = np.sqrt(np.where(variance > 0, variance, 1))
    skew = np.maximum((third - 3 * first * second + 2 * first**3) / spread**3, 0)
    z = (x - first) / spread
    shape = 4 / np.maximum(skew, _SYMMETRIC) ** 2
    with np.errstate(divide="ignore"):
        gamma = np.log(special.gammaincc(shape, np.maximum(shape + z * np.sqrt(shape), 0)))
    found: Floats = np.where(skew > _SYMMETRIC, gamma, special.log_ndtr(-z))
    return found


def _powers(x: Floats) -> list[tuple[int, Floats]]:
    """Return sums of the first three powers (tests, 1)."""
    return [(power, (x**power).sum(axis=1, keepdims=True)) for power in (1, 2, 3)]


def shares_beyond(statistics: Floats) -> Floats:
    """Return of each test the share of dealings whose statistic is at least the true one's (tests,)."""
    true = statistics[:, :1]
    beyond = statistics >= true - _EQUAL * np.abs(true)
    return np.asarray(beyond.mean(axis=1))


def corrected(statistics: Floats) -> Floats:
    """Return p-values (tests,) that hold for all tests together, by step-down min P (Westfall and Young 1993).

    The least tail of all tests, in the true dealing, is compared with the least one in each other dealing; then that of
    the tests that are left. Some test is below α by chance in a share α of the cases, however the tests hang together.
    """
    if not len(statistics):
        return np.empty(0)
    rare = tails(statistics)
    order = np.argsort(rare[:, 0], kind="stable")
    least = np.minimum.accumulate(rare[order][::-1], axis=0)[::-1]
    true = rare[order, 0][:, None]
    beyond = (least <= true + _EQUAL * np.abs(np.where(np.isfinite(true), true, 0))).mean(axis=1)
    found = np.empty(len(order))
    found[order] = np.maximum.accumulate(beyond)
    return found
