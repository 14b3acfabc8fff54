"""What is measured by group: each formula derived again in pandas, gaps that are there, and gaps that are not."""

from __future__ import annotations

import json
import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polyfuse.core.errors import InputError
from polyfuse.core.files import strict_json
from polyfuse.data.groups import MISSING, Grouping
from polyfuse.data.schema import Target
from polyfuse.fairness import ColumnFairness, measure
from polyfuse.fairness.resampling import Rate, gap_of, resampled
from polyfuse.metrics.bootstrap import Interval

FAST: dict[str, Any] = {"resamples": 200}


def target_of(*levels: str, task: Any = "classification") -> Target:
    return Target(name="y", task=task, levels=list(levels), frequencies=[1 / len(levels)] * len(levels))


BINARY = target_of("no", "yes")


def table(rows: int = 900, gap: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Answers that are right in 8 of 10 rows, but that group "b" gets a "yes" less often by `gap`."""
    drawn = np.random.default_rng(seed)
    frame = pd.DataFrame({"group": drawn.choice(["a", "b", "c"], rows), "age": drawn.normal(40, 10, rows)})
    frame["true"] = drawn.integers(0, 2, rows)
    flipped = np.where(drawn.random(rows) < 0.2, 1 - frame["true"], frame["true"])
    denied = (frame["group"] == "b") & (drawn.random(rows) < gap)
    frame["answer"] = np.where(denied, 0, flipped)
    frame["score"] = np.where(frame["answer"] == 1, 0.6, 0.4) + drawn.uniform(-0.09, 0.09, rows)
    return frame


def scores(frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    return np.stack([1 - frame["score"], frame["score"]], axis=1)


def measured(frame: pd.DataFrame, **options: Any) -> ColumnFairness:
    groups = {"group": frame["group"]}
    return measure(frame["true"].to_numpy(), scores(frame), BINARY, groups, **{**FAST, **options}).columns[0]


def holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def widest(values: pd.Series) -> float:
    return max(abs(values[a] - values[b]) for a, b in combinations(values.index, 2))


def test_formulas_against_pandas() -> None:
    frame = table(gap=0.5)
    found = measured(frame)
    selected = frame.groupby("group")["answer"].mean()
    tpr = frame[frame["true"] == 1].groupby("group")["answer"].mean()
    fpr = frame[frame["true"] == 0].groupby("group")["answer"].mean()
    right = (frame["true"] == frame["answer"]).groupby(frame["group"]).mean()
    parity, odds, metric = found.demographic_parity, found.equalized_odds, found.metric_gap
    assert parity is not None and odds is not None and metric is not None  # noqa: PT018
    assert parity.difference.value == pytest.approx(widest(selected))
    assert parity.ratio is not None
    assert parity.ratio.value == pytest.approx(selected.min() / selected.max())
    assert (parity.low, parity.high) == (selected.idxmin(), selected.idxmax())
    assert odds.difference.value == pytest.approx(max(widest(tpr), widest(fpr)))
    assert metric.difference.value == pytest.approx(widest(right))
    assert (found.worst, found.worst_value.value) == (right.idxmin(), pytest.approx(right.min()))
    for group in found.groups:
        expected = {"accuracy": right, "selection_rate": selected, "tpr": tpr, "fpr": fpr, "fnr": 1 - tpr}
        assert {name: at.value for name, at in group.values.items()} == pytest.approx(
            {name: by_group[group.group] for name, by_group in expected.items()}
        )
        assert all(holds(at, at.value) for at in group.values.values())
    assert found.overall["selection_rate"].value == pytest.approx(frame["answer"].mean())
    other = measured(frame, positive="no")
    assert other.label == "no"
    assert other.overall["selection_rate"].value == pytest.approx(1 - frame["answer"].mean())


def test_a_planted_gap_is_found_and_none_where_there_is_none() -> None:
    planted = measured(table(gap=0.5)).demographic_parity
    assert planted is not None
    assert planted.low == "b"
    assert planted.difference.low > 0
    assert planted.ratio is not None
    assert planted.ratio.high < 1
    nothing = measured(table(gap=0.0)).demographic_parity
    assert nothing is not None
    assert nothing.difference.value > 0
    assert nothing.difference.low < 0 < nothing.difference.high


def test_intervals_of_chosen_gaps_hold_as_often_as_they_say() -> None:
    """The widest of 15 gaps that are all 0 is taken for one in about 5 % of tables; of plain intervals in far more."""
    found = 0
    for seed in range(60):
        drawn = np.random.default_rng(seed)
        codes, decided = drawn.integers(0, 6, 600), drawn.random(600) < 0.5
        every = np.ones(600, dtype=bool)
        values = [np.array([decided[codes == code].mean() for code in range(6)])]
        gap = gap_of(resampled([Rate("rate", decided, every)], codes, values, 2, 200, seed), list("abcdef"))
        assert gap is not None
        found += gap.difference.low > 0
    assert found <= 9  # of 60 at 5 % more than 9 are drawn once in 1,000


def test_names_of_groups_and_order_of_rows_do_not_matter() -> None:
    frame = table(gap=0.5)
    plain = measured(frame)
    renamed = measured(frame.assign(group=frame["group"].map({"a": "z", "b": "y", "c": "x"})))
    shuffled = measured(frame.sample(frac=1, random_state=1))
    for gap in ("demographic_parity", "equalized_odds", "metric_gap"):
        one, two, three = (getattr(some, gap) for some in (plain, renamed, shuffled))
        assert vars(two.difference) == pytest.approx(vars(one.difference))  # the rows that are drawn are the same
        assert three.difference.value == pytest.approx(one.difference.value)
        assert three.difference.low == pytest.approx(one.difference.low, abs=0.05)
    assert [group.rows for group in renamed.groups] == [group.rows for group in plain.groups][::-1]


def test_small_groups_are_counted_and_not_judged() -> None:
    frame = table(gap=0.5)
    small = frame[frame["group"] == "b"].iloc[:19].index
    frame.loc[(frame["group"] == "b") & ~frame.index.isin(small), "group"] = "a"
    found = measured(frame)
    by_name = {group.group: group for group in found.groups}
    assert (by_name["b"].rows, by_name["b"].judged, by_name["b"].values) == (19, False, {})
    assert found.demographic_parity is not None
    assert {found.demographic_parity.low, found.demographic_parity.high} == {"a", "c"}
    assert "'b' (19 rows)" in found.notes[0]
    judged = measured(frame, least=19)
    assert all(group.judged for group in judged.groups)
    # Of 19 rows too few are positive: a rate needs as many as a group does.
    assert math.isnan({group.group: group for group in judged.groups}["b"].values["tpr"].value)
    alone = measured(frame[frame["group"] == "a"])
    assert alone.demographic_parity is None
    assert alone.worst == "a"
    assert "nothing to compare" in alone.notes[-1]


def test_a_rate_of_no_rows_is_no_gap() -> None:
    """A group without positives has no true positive rate; taken for 0, it would be the widest gap."""
    frame = table()
    frame.loc[frame["group"] == "a", "true"] = 0
    odds = measured(frame).equalized_odds
    assert odds is not None
    assert odds.measure == "fpr" or "a" not in (odds.low, odds.high)


def test_labels_stand_against_the_rest() -> None:
    drawn = np.random.default_rng(0)
    group = drawn.choice(["a", "b"], 600)
    true = drawn.integers(0, 3, 600)
    answer = np.where((group == "b") & (true == 2), 1, true)
    report = measure(true, np.eye(3)[answer], target_of("x", "y", "z"), {"group": pd.Series(group)}, **FAST)
    (found,) = report.columns
    for code, label in enumerate("xyz"):
        selected = [(answer[group == name] == code).mean() for name in "ab"]
        tpr = [(answer == code)[(group == name) & (true == code)].mean() for name in "ab"]
        fpr = [(answer == code)[(group == name) & (true != code)].mean() for name in "ab"]
        told = found.by_label[label]
        assert told["demographic_parity"] == pytest.approx(abs(selected[0] - selected[1]))
        assert told["equalized_odds"] == pytest.approx(max(abs(tpr[0] - tpr[1]), abs(fpr[0] - fpr[1])))
    assert found.demographic_parity is not None
    assert found.equalized_odds is not None
    assert found.label == found.demographic_parity.label
    assert found.demographic_parity.difference.value == max(at["demographic_parity"] for at in found.by_label.values())
    assert (found.equalized_odds.label, found.equalized_odds.measure) == ("z", "tpr")
    assert found.equalized_odds.difference.value == 1
    assert not found.thresholds
    several = measure(
        np.eye(3)[true].astype(int),
        np.eye(3)[answer] * 0.8,
        target_of("x", "y", "z", task="multilabel"),
        {"g": pd.Series(group)},
        **FAST,
    )
    assert several.metric == "subset_accuracy"
    assert several.columns[0].by_label == found.by_label


def test_regression_tells_errors_and_means() -> None:
    drawn = np.random.default_rng(0)
    group, true = drawn.choice(["a", "b"], 400), drawn.normal(100, 10, 400)
    given = true + drawn.normal(0, 1, 400) - 5 * (group == "b")
    target = Target(name="y", task="regression", mean=100, std=10)
    report = measure(true, given, target, {"group": pd.Series(group)}, **FAST)
    (found,) = report.columns
    error = [float((given - true)[group == name].mean()) for name in "ab"]
    mae = [float(np.abs(given - true)[group == name].mean()) for name in "ab"]
    mean = [float(given[group == name].mean()) for name in "ab"]
    assert [at.values["mean_error"].value for at in found.groups] == pytest.approx(error)
    assert [at.values["mae"].value for at in found.groups] == pytest.approx(mae)
    assert found.demographic_parity is not None
    assert found.demographic_parity.difference.value == pytest.approx(abs(mean[0] - mean[1]))
    assert (found.worst, found.worst_value.value) == ("b", pytest.approx(max(mae)))
    assert found.demographic_parity.ratio is None
    assert found.equalized_odds is None
    assert not report.greater_is_better


def test_thresholds_are_chosen_on_some_rows_and_measured_on_others() -> None:
    frame = table(rows=1500, gap=0.6)
    found = {moved.criterion: moved for moved in measured(frame).thresholds}
    assert list(found) == ["demographic_parity", "equalized_odds"]
    for moved in found.values():
        assert (moved.fitted, moved.measured) == (750, 750)
        assert moved.before is not None
        assert moved.after is not None
        assert moved.before.difference.low > 0
        assert moved.after.difference.value < moved.before.difference.value / 2
        assert moved.cost.value == pytest.approx(moved.accuracy_before.value - moved.accuracy_after.value)
    assert measured(frame, seed=1).thresholds != list(found.values())
    of_one_label = frame.assign(true=np.where(frame["group"] == "c", 1, frame["true"]))
    untried = measured(of_one_label)
    assert not untried.thresholds
    assert "'c' have one label only" in untried.notes[-1]


def test_columns_are_crossed_and_cut() -> None:
    frame = table()
    groups = {"group": frame["group"].where(frame.index > 50), "age": frame["age"]}
    report = measure(frame["true"].to_numpy(), scores(frame), BINARY, groups, **FAST)
    first, second, crossed = report.columns
    assert [group.group for group in first.groups] == ["a", "b", "c", MISSING]
    assert [group.rows for group in second.groups] == [225] * 4
    assert crossed.column == "group & age"
    assert len(crossed.groups) == 16
    cut = pd.qcut(frame["age"], 4, labels=False)
    expected = groups["group"].fillna(MISSING).groupby([groups["group"].fillna(MISSING), cut]).size()
    assert sorted(group.rows for group in crossed.groups) == sorted(expected)
    assert sum(group.rows for group in crossed.groups) == len(frame)
    document = json.loads(strict_json(report.data()))
    assert document["columns"][0]["groups"][0]["values"]["accuracy"]["value"] > 0.7
    text = str(report)
    assert "group & age" in text
    assert "too few rows" in text


def test_groups_of_other_rows_are_the_same() -> None:
    few = Grouping.of("n", pd.Series([1, 2, 1.0, None, np.inf]))
    assert few.names == ("1", "2", MISSING)
    assert few.codes(pd.Series(["1", 2.0, 3])).tolist() == [0, 1, -1]
    flags = Grouping.of("flag", pd.Series([True, False]))
    assert flags.names == ("False", "True")
    cut = Grouping.of("n", pd.Series(range(101)))
    assert cut.edges == (25, 50, 75)
    assert cut.codes(pd.Series([-9, 25, 25.5, 75, 999, None])).tolist() == [0, 0, 1, 2, 3, -1]
    tied = Grouping.of("n", pd.Series([0] * 80 + list(range(1, 7))))
    assert set(tied.codes(pd.Series([0, 6])).tolist()) == set(range(len(tied.names)))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"groups": {}}, "no column is named"),
        ({"groups": {"g": pd.Series([1, 2])}}, "'g' has 2 values for 60 rows"),
        ({"groups": {"g": pd.Series([f"v{i}" for i in range(60)])}}, "60 groups, of which there may be 20"),
        ({"least": 1}, "least is 1"),
        ({"positive": "maybe"}, "'maybe' is not one of two labels"),
        ({"target": Target.of([BINARY, BINARY])}, "several targets"),
        ({"y_true": np.zeros(3)}, "y_true has 3 rows"),
    ],
)
def test_what_cannot_be_measured_is_told(change: dict[str, Any], told: str) -> None:
    frame = table(rows=60)
    given = {"y_true": frame["true"].to_numpy(), "y_score": scores(frame), "target": BINARY, **FAST}
    with pytest.raises(InputError, match=told):
        measure(**{**given, "groups": {"g": frame["group"]}, **change})
