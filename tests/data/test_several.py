"""Several targets in a table: each row has some of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polyfuse.core.errors import DataError, InputError
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Schema, Target
from polyfuse.data.splits import folds, split

N = 60
BOTH = ["kind", "price"]


def table(**changed: Any) -> Table:
    columns = {
        "size": [i / 7 for i in range(N)],
        "kind": [["no", "yes"][i % 2] for i in range(N)],
        "price": [100.5 + i for i in range(N)],
        **changed,
    }
    return read_table(pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}))


def lacking(column: str, *rows: int, cell: Any = None) -> list[Any]:
    cells = table().frame[column].tolist()
    for row in rows:
        cells[row] = cell
    return cells


def read(data: Table, schema: Schema | None = None, **options: Any) -> Rows:
    return read_rows(data, schema or infer_schema(table(), BOTH), **{"training": True, **options})


def problems(data: Table, **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        read(data, **options)
    return [str(problem) for problem in caught.value.problems]


def test_each_target_is_inferred_and_none_is_an_input() -> None:
    schema = infer_schema(table(), BOTH)
    target = schema.target
    assert (target.name, target.task, target.names) == ("kind, price", "several", BOTH)
    assert target.asked == ("classification", "regression")
    assert [part.levels for part in target.each()] == [["no", "yes"], []]
    assert target.parts[1].mean == pytest.approx(130.0)
    assert schema.modalities == {"table": ["size"]}
    assert "kind" not in schema.left_out
    assert Schema.model_validate(schema.as_json()) == schema
    # One name in a list is one target.
    one = infer_schema(table(), ["kind"]).target
    assert one == infer_schema(table(), "kind").target
    assert (one.each(), one.asked, one.names) == ([one], "classification", ["kind"])


def test_tasks_of_all_or_by_name() -> None:
    numbers = table(kind=[i % 2 for i in range(N)])
    assert infer_schema(numbers, BOTH).target.asked == ("classification", "regression")
    assert infer_schema(numbers, BOTH, task="regression").target.asked == ("regression", "regression")
    assert infer_schema(numbers, BOTH, task={"kind": "regression"}).target.asked == ("regression", "regression")
    assert infer_schema(numbers, "kind", task={"kind": "regression"}).target.task == "regression"


@pytest.mark.parametrize(
    ("target", "options", "told"),
    [
        (["kind", "kind"], {}, "'kind' is named twice"),
        ([], {}, "no column is named"),
        (["kind", "prise"], {}, "no column 'prise', the target; did you mean 'price'"),
        (BOTH, {"modalities": {"table": ["size", "price"]}}, "modalities.table: 'price' is a target, and cannot be"),
        (BOTH, {"types": {"kind": "text"}}, "columns: 'kind' is a target"),
        (BOTH, {"task": {"kin": "regression"}}, "task: 'kin' is not among the targets; did you mean 'kind'"),
        (BOTH, {"task": {"kind": "multilabel"}}, "target 'kind' holds 'no': multilabel needs a list"),
    ],
)
def test_wrong_targets_are_told(target: list[str], options: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        infer_schema(table(), target, **options)


def test_a_target_that_is_missing_everywhere_is_told_by_its_column() -> None:
    with pytest.raises(DataError, match="column 'price': the target is missing in every row"):
        infer_schema(table(price=[None] * N), BOTH)


def test_rows_with_some_of_the_targets() -> None:
    rows = read(table(kind=lacking("kind", 0, 3), price=lacking("price", 1, cell=" ")))
    assert len(rows) == N
    assert rows.answers[:4] == [(None, 100.5), ("yes", None), ("no", 102.5), (None, 103.5)]
    assert rows.notes[:2] == ["target 'kind': 58 of 60 rows have it", "target 'price': 59 of 60 rows have it"]
    assert rows.subset([1, 0]).answers == [("yes", None), (None, 100.5)]


def test_rows_with_none_of_them() -> None:
    data = table(kind=lacking("kind", 0, 3), price=lacking("price", 0, 1))
    told = "none of the targets 'kind', 'price' is there; fill one in, or leave the row out"
    assert problems(data) == [f"{told} (row 0)"]
    for how in ("skip", "absent"):
        rows = read(data, on_bad_row=how)
        assert rows.skipped == {0: told}
        assert rows.answers[0] == ("yes", None)


def test_a_wrong_answer_is_told_by_its_column() -> None:
    data = table(kind=lacking("kind", 2, 4, cell="maybe"), price=lacking("price", 4, 5, cell="dear"))
    assert problems(data) == [
        "column 'kind': the label is not among those of the training rows, e.g. 'maybe' (rows 2, 4)",
        "column 'price': the target must be a number, e.g. 'dear' (rows 4, 5)",
    ]
    skipped = read(data, on_bad_row="skip")
    assert sorted(skipped.skipped) == [2, 4, 5]
    # Taken for missing, the other answer of a row still counts.
    kept = read(data, on_bad_row="absent")
    assert sorted(kept.skipped) == [4]
    assert "maybe" in kept.skipped[4]
    assert kept.answers[2] == (None, 102.5)
    assert kept.answers[4] == ("yes", None)
    assert kept.value("table", 2) == (2 / 7,)


def test_a_table_may_lack_a_target_but_not_all() -> None:
    frame = table().frame
    some = read_table(frame[["size", "price"]])
    assert read(some, training=False, answers=True).answers[0] == (None, 100.5)
    with pytest.raises(InputError, match="no column 'kind', nor another of the targets kind, price"):
        read(read_table(frame[["size"]]), training=False, answers=True)
    assert len(read(read_table(frame[["size"]]), training=False)) == N


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"price": [*range(9), *[None] * (N - 9)]}, "column 'price': 9 rows with a target: a training needs at least"),
        ({"kind": ["no"] * N}, "column 'kind': the target is 'no' in every row"),
        ({"kind": [f"k{i}" for i in range(40)] + [None] * 20}, "column 'kind': 40 classes: at most 20 can be learned"),
    ],
)
def test_each_target_must_do_for_a_training(changed: Any, told: str) -> None:
    data = table(**changed)
    with pytest.raises(DataError, match=told.replace("(", r"\(")):
        read_rows(data, infer_schema(data, BOTH, task={"price": "regression"}), training=True)


def test_rows_are_split_by_the_first_answer_that_they_have() -> None:
    random = np.random.default_rng(0)
    kinds = [["a", "b", None][i] for i in random.choice(3, 300, p=[0.5, 0.1, 0.4])]
    prices = [None if kind is not None and i % 3 else float(i) for i, kind in enumerate(kinds)]
    answers = list(zip(prices, kinds, strict=True))
    tasks = ("regression", "classification")
    total = Counter(kinds)
    parts = folds(answers, tasks, count=5, seed=0)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(300))
    for part in parts:
        found = Counter(kinds[i] for i in part)
        assert all(abs(found[kind] - total[kind] / 5) <= 3 for kind in total)
    means = [np.mean([prices[i] for i in part if kinds[i] is None]) for part in parts]  # type: ignore[misc]
    assert np.ptp(means) < 30, "those without a class by their number"
    first, second = split(answers, tasks, share=0.2, seed=0)
    assert sorted([*first, *second]) == list(range(300))
    assert abs(sum(kinds[i] == "b" for i in second) - total["b"] / 5) <= 2
    one, two = (split(answers, tasks, share=0.2, seed=0, groups=[i // 4 for i in range(300)])[1] for _ in range(2))
    assert one.tolist() == two.tolist()


def test_several_of_one_kind() -> None:
    schema = infer_schema(table(price=[["x"], ["x", "y"], []] * (N // 3)), BOTH)
    assert schema.target.asked == ("classification", "multilabel")
    assert Target.of(schema.target.parts) == schema.target
    rows = read(table(price=[["x"], None, []] * (N // 3)), schema)
    assert rows.answers[:3] == [("no", ["x"]), ("yes", None), ("no", [])]
    assert len(folds(rows.answers, schema.target.asked, count=3, seed=0)) == 3
