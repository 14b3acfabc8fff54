"""From many statistics of the same dealings to one decision, at a rate of false alarms that is chosen."""

from __future__ import annotations

import numpy as np
from scipy import special

from polyfuse.metrics.metric import Floats

#: Statistics that differ by less are equal: what is left of rounding.
_EQUAL = 1e-6


def tails(statistics: Floats) -> Floats:
    """Return on one scale how rare each statistic is: the logarithm of a tail probability, (tests, dealings).

    The tail is that of the gamma distribution with mean, variance and skewness of the dealings (Pearson's type III),
    the true one left out. Counted shares alone would end at 1 / dealings, and of many tests one always ends there. What
    the scale is does not matter for the false alarms: it is the same for every dealing.

    Args:
        statistics: (tests, dealings), the true dealing first.
    """
    others = statistics[:, 1:]
    mean, spread = others.mean(axis=1, keepdims=True), others.std(axis=1, keepdims=True)
    z = (statistics - mean) / np.where(spread > 0, spread, 1)
    skew = (z[:, 1:] ** 3).mean(axis=1, keepdims=True)
    shape = 4 / np.maximum(skew, 0.05) ** 2
    with np.errstate(divide="ignore"):
        gamma = np.log(special.gammaincc(shape, np.maximum(shape + z * np.sqrt(shape), 0)))
    found: Floats = np.where(skew > 0.05, gamma, special.log_ndtr(-z))
    return found


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
