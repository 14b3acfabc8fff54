"""Each statistic against its definition in plain loops or another library, and the decision against a naive one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from polyfuse.drift import statistics as st
from polyfuse.drift.deciding import corrected, shares_beyond, tails
from polyfuse.metrics.metric import Array, Floats

N, M = 60, 45


@pytest.fixture
def labels() -> Floats:
    return st.dealings(N, M, 40, seed=3)


def test_dealings_keep_the_sizes_and_begin_with_the_true_one(labels: Floats) -> None:
    assert labels.shape == (41, N + M)
    assert (labels.sum(axis=1) == M).all()
    assert (labels[0] == np.repeat([0, 1], [N, M])).all()
    assert len(np.unique(labels, axis=0)) == 41


def test_kolmogorov_is_the_one_of_scipy(labels: Floats) -> None:
    values = np.random.default_rng(0).normal(size=N + M).round(1)  # with ties
    values[[3, 70]] = np.nan
    found = st.kolmogorov(values, labels)
    for dealt, statistic in zip(labels, found, strict=True):
        old, new = (values[(dealt == side) & ~np.isnan(values)] for side in (0, 1))
        scale = np.sqrt(len(old) * len(new) / (len(old) + len(new)))
        assert statistic == pytest.approx(stats.ks_2samp(old, new).statistic * scale, abs=1e-5)


def test_homogeneity_is_pearsons(labels: Floats) -> None:
    codes = np.random.default_rng(1).integers(-1, 3, N + M)
    for dealt, statistic in zip(labels, st.homogeneity(codes, labels), strict=True):
        counts = [[((codes == level) & (dealt == side)).sum() for level in range(3)] for side in (0, 1)]
        assert statistic == pytest.approx(stats.chi2_contingency(counts, correction=False).statistic, rel=1e-4)


def test_rare_levels_are_counted_together() -> None:
    codes = np.array([7] * 40 + [8] * 40 + [1, 2, 3, 4, 5, -1])
    counted = st.common(codes, 0.5)
    assert (counted[:80] == codes[:80]).all()
    assert len(set(counted[80:85].tolist())) == 1
    assert counted[85] == -1


def test_shares_and_marks_are_squares_of_pearsons(labels: Floats) -> None:
    flags = np.random.default_rng(2).random((N + M, 2)) < 0.3
    each = [st.shares(flags[:, i], labels) for i in range(2)]
    for dealt, statistic in zip(labels, each[0], strict=True):
        counts = [[((flags[:, 0] == flag) & (dealt == side)).sum() for flag in (0, 1)] for side in (0, 1)]
        assert statistic**2 == pytest.approx(stats.chi2_contingency(counts, correction=False).statistic, rel=1e-4)
    assert st.marks(flags, labels) == pytest.approx(each[0] ** 2 + each[1] ** 2)


def test_rise_is_a_difference_of_means(labels: Floats) -> None:
    values = np.random.default_rng(2).normal(size=N + M)
    values[5] = np.nan
    expected = [np.nanmean(values[dealt == 1]) - np.nanmean(values[dealt == 0]) for dealt in labels]
    assert st.rise(values, labels) == pytest.approx(expected, abs=1e-5)


def test_discrepancy_is_the_sum_over_pairs() -> None:
    x = np.random.default_rng(4).normal(size=(14, 3))
    labels = st.dealings(8, 6, 5, seed=0)
    squares = ((x[:, None] - x) ** 2).sum(-1)
    kernel = np.exp(-squares / np.median(squares[squares > 1e-9]))
    for dealt, statistic in zip(labels, st.discrepancy(x, labels), strict=True):
        old, new = np.flatnonzero(dealt == 0), np.flatnonzero(dealt == 1)
        within = [np.mean([kernel[i, j] for i in some for j in some if i != j]) for some in (old, new)]
        across = np.mean([kernel[i, j] for i in old for j in new])
        assert statistic == pytest.approx(sum(within) - 2 * across, abs=1e-4)


def test_told_apart_is_a_ridge_fitted_by_folds(labels: Floats) -> None:
    x = np.random.default_rng(5).normal(size=(N + M, 4))
    found = st.told_apart(x, labels, seed=9)
    random = np.random.default_rng(9)
    order = random.permutation(N + M)
    z, folds = st.principal(x)[order], random.permutation(N + M) % 5
    for dealt, area in zip(labels[:6, order], found, strict=False):
        said = np.empty(N + M)
        for fold in range(5):
            inside = folds != fold
            # A ridge without an intercept on centred labels: the components are centred over all rows.
            model = Ridge(alpha=1e-2 * inside.sum(), fit_intercept=False)
            said[~inside] = model.fit(z[inside], dealt[inside] - dealt[inside].mean()).predict(z[~inside])
        assert area == pytest.approx(roc_auc_score(dealt, said), abs=2e-3)


def test_equal_rows_are_not_told_apart() -> None:
    labels = st.dealings(200, 200, 199, seed=0)
    assert abs(st.told_apart(np.ones((400, 3)), labels)[0] - 0.5) < 0.1
    few = np.random.default_rng(0).integers(0, 2, (400, 1)).astype(float)
    assert abs(st.told_apart(few, labels)[0] - 0.5) < 0.15


def test_principal_components_have_variance_one_and_no_correlation() -> None:
    x = np.random.default_rng(0).normal(size=(300, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    z = st.principal(x)
    assert np.cov(z.T, bias=True) == pytest.approx(np.eye(6), abs=1e-3)
    assert st.principal(np.zeros((50, 4))).shape == (50, 1)
    assert st.principal(np.random.default_rng(0).normal(size=(50, 100))).shape == (50, 5)


def test_tails_are_those_of_a_normal_and_of_a_skewed_law() -> None:
    random = np.random.default_rng(0)
    rows = np.stack([random.normal(size=20_000), random.chisquare(3, 20_000)])
    rows[:, 0] = 3.0, 12.0
    found = np.exp(tails(rows))[:, 0]
    assert found == pytest.approx([stats.norm.sf(3), stats.chi2.sf(12, 3)], rel=0.25)


def test_each_dealing_is_held_against_all_others() -> None:
    rows = np.random.default_rng(0).chisquare(2, size=(3, 50))
    rows[1, 0] = 1e5
    for at in (0, 7):
        others = np.delete(rows, at, axis=1)
        z = (rows[:, at] - others.mean(1)) / others.std(1)
        shape = 4 / stats.skew(others, axis=1) ** 2
        expected = stats.gamma.logsf(shape + z * np.sqrt(shape), shape)
        assert tails(rows)[:, at] == pytest.approx(expected, rel=1e-6)


def test_a_difference_beyond_measure_is_found_among_many() -> None:
    statistics = np.random.default_rng(3).normal(size=(400, 200))
    statistics[7, 0] = 1e6
    assert corrected(statistics)[7] == pytest.approx(1 / 200)


def naive(statistics: Floats) -> Array:
    """Step-down min P as in the book: the tests still there, one after another."""
    rare = tails(statistics)
    order, found = list(np.argsort(rare[:, 0], kind="stable")), np.zeros(len(rare))
    last = 0.0
    while order:
        first = order[0]
        hits = [min(rare[k, b] for k in order) <= rare[first, 0] + 1e-9 for b in range(rare.shape[1])]
        last = max(last, float(np.mean(hits)))
        found[first] = last
        order = order[1:]
    return found


def test_corrected_is_step_down_min_p() -> None:
    random = np.random.default_rng(1)
    statistics = random.normal(size=(5, 200))
    statistics[1] = statistics[0] + 0.1 * statistics[1]  # two that hang together
    statistics[2, 0], statistics[3, 0] = 5.0, 3.2
    found = corrected(statistics)
    assert found == pytest.approx(naive(statistics))
    assert found[2] == pytest.approx(1 / 200)
    assert (found >= shares_beyond(statistics) - 1 / 200 - 0.02).all()


def test_corrected_never_falls_from_one_test_to_the_next() -> None:
    for seed in range(30):
        statistics = np.random.default_rng(seed).normal(size=(6, 60))
        assert corrected(statistics) == pytest.approx(naive(statistics))


def test_the_same_test_twice_is_not_corrected_for() -> None:
    statistics = np.random.default_rng(3).normal(size=(1, 500))
    twice = corrected(np.repeat(statistics, 20, axis=0))
    assert twice == pytest.approx(corrected(statistics).repeat(20))


def test_many_tests_leave_room_to_find_a_large_difference() -> None:
    statistics = np.random.default_rng(3).normal(size=(300, 500))
    statistics[7, 0] = 9.0
    assert corrected(statistics)[7] == pytest.approx(1 / 500)


def test_false_alarms_are_as_many_as_was_asked() -> None:
    random, found = np.random.default_rng(0), 0
    for trial in range(300):
        labels = st.dealings(50, 30, 99, seed=trial)
        x = random.normal(size=(80, 3))
        x[:, 1] += x[:, 0]
        codes = random.integers(0, 3, 80)
        every = [st.kolmogorov(x[:, 0], labels), st.kolmogorov(x[:, 1], labels), st.homogeneity(codes, labels)]
        every += [st.discrepancy(x, labels), st.told_apart(x, labels)]
        found += corrected(np.stack(every)).min() <= 0.05
    # Of 300, 15 are expected; the bounds are those of a binomial, 99.9 %.
    assert 4 <= found <= 29
