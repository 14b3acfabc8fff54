"""What is planted in a table is found, and what is not there is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import polyfuse as pf
from altered import brighter, jpeg, picture, text
from cli_runner import polyfuse
from polyfuse.cli.checking import check as command
from polyfuse.core.errors import InputError
from polyfuse.quality import QualityReport, check
from polyfuse.quality.labels import divergence
from wild import texts


def plain(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Make a table of two numbers and a category that tell the answer most of the time."""
    drawn = np.random.default_rng(seed)
    a, b = drawn.normal(size=(2, rows))
    group = drawn.choice(["x", "y", "z"], rows)
    answers = np.where(a + (group == "x") + drawn.normal(0, 0.5, rows) > 0.3, "yes", "no")
    return pd.DataFrame({"a": a, "b": b, "group": group, "y": answers})


def run(table: Any, target: Any = "y", **options: Any) -> QualityReport:
    return check(table, target, progress=False, **options)


MIXED, PLANTED = 300, 12
Mixed: TypeAlias = tuple[QualityReport, list[int], list[int]]


@pytest.fixture(scope="module")
def mixed() -> Mixed:
    """Check a table of a text, an image and a number with planted doubles, wrong labels and contradictions."""
    drawn = np.random.default_rng(3)
    label = np.arange(MIXED) % 2
    notes = [f"{['awful poor', 'lovely fine'][y]} {text(1000 + i, 20)}" for i, y in enumerate(label)]
    images = []
    for i, y in enumerate(label):
        pixels = np.asarray(picture(i, 32), dtype=np.uint8).copy()
        # A bright bar, upright or level, that the label is told by.
        if y:
            pixels[:, 12:20] = 255
        else:
            pixels[12:20] = 255
        images.append(Image.fromarray(pixels))
    contradicting = drawn.choice(np.arange(100, 200), PLANTED, replace=False).tolist()
    for row in contradicting:
        notes[row] = (
            notes[row].replace("awful poor", "?").replace("lovely fine", "awful poor").replace("?", "lovely fine")
        )
    wrong = drawn.choice(np.arange(200, 300), PLANTED, replace=False).tolist()
    answers = label.copy()
    answers[wrong] = 1 - answers[wrong]
    table = pd.DataFrame({"note": notes, "image": images, "size": drawn.normal(size=MIXED), "y": answers})
    doubles = table.iloc[:6].copy()
    doubles["image"] = pd.Series([jpeg(image, 80) if i % 2 else brighter(image) for i, image in enumerate(images[:6])])
    doubles["note"] = [f"{note}!" for note in doubles["note"]]
    doubles["y"] = [1 - y if i < 2 else y for i, y in enumerate(doubles["y"])]
    others = table.iloc[6:12].copy()  # near in all but the text
    others["note"] = [text(5000 + i, 20) for i in range(6)]
    whole = pd.concat([table, doubles, others], ignore_index=True)
    return run(whole), wrong, contradicting


def test_near_doubles_need_every_modality_to_be_near(mixed: Mixed) -> None:
    within = mixed[0].doubles.within
    assert (within.exact, within.near, within.rows) == (0, 6, 12)
    assert sorted(group.rows for group in within.examples) == [[i, MIXED + i] for i in range(6)]


def test_doubles_with_other_answers_are_conflicts(mixed: Mixed) -> None:
    conflicts = mixed[0].doubles.conflicts
    assert [group.rows for group in conflicts.examples] == [[0, MIXED], [1, MIXED + 1]]
    assert conflicts.examples[0].answers == ["0", "1"]
    assert "2 groups of equal rows with different answers" in mixed[0].serious


def test_wrong_labels_are_found(mixed: Mixed) -> None:
    labels = mixed[0].labels
    assert labels is not None
    found = set(labels.positions) - {0, 1, MIXED, MIXED + 1}  # of a conflict, one is wrong
    assert len(found & set(mixed[1])) >= 0.8 * PLANTED
    assert len(found & set(mixed[1])) >= 0.8 * len(found)
    first = labels.examples[0]
    assert first.given != first.suggested
    assert [error.quality for error in labels.examples] == sorted(error.quality for error in labels.examples)


def test_contradicting_modalities_are_found(mixed: Mixed) -> None:
    contradictions = mixed[0].disagreements
    assert contradictions is not None
    listed = [one.row for one in contradictions.examples]
    assert len(set(listed) & set(mixed[2])) >= 8
    assert contradictions.count >= PLANTED - 2
    for one in contradictions.examples:
        assert one.says["text"][0] != one.says["image"][0]


def test_a_modality_that_knows_nothing_contradicts_nobody() -> None:
    table = plain(300)
    table["note"] = [text(i) for i in range(300)]
    report = run(table)
    assert report.disagreements is not None
    assert report.disagreements.rows == 300
    assert report.disagreements.count == 0


def test_a_report_says_the_same_in_every_form(mixed: Mixed, tmp_path: Path) -> None:
    report = mixed[0]
    data = json.loads(report.to_json(tmp_path / "check.json"))
    assert json.loads((tmp_path / "check.json").read_text()) == data
    assert data["doubles"]["within"]["near"] == 6
    assert data["labels"]["count"] == report.labels.count  # type: ignore[union-attr]
    shown = str(report)
    for expected in (
        "there twice: 0 groups of equal rows, 6 of nearly equal ones",
        "labels likely wrong",
        "image says",
    ):
        assert expected in shown
    assert {column["name"]: column["role"] for column in data["columns"]} == {
        "note": "text",
        "image": "image",
        "size": "table",
        "y": "target",
    }


def test_unrelated_rows_raise_no_alarm() -> None:
    report = run(plain(), test=plain(100, seed=1))
    assert report.doubles.within.count == 0
    assert report.doubles.across is not None
    assert report.doubles.across.count == 0
    assert report.leaks == []
    assert report.problems == []
    assert report.serious == []


def test_rows_of_the_test_table_are_found() -> None:
    train, test = plain(), plain(60, seed=1)
    test.loc[:9, ["a", "b", "group"]] = train.loc[20:29, ["a", "b", "group"]].to_numpy()
    test.loc[10:14, ["a", "b"]] = train.loc[30:34, ["a", "b"]].to_numpy() * (1 + 1e-7)
    test.loc[10:14, "group"] = train.loc[30:34, "group"].to_numpy()
    report = run(train, test=test.drop(columns="y"))
    across = report.doubles.across
    assert across is not None
    assert (across.exact, across.near, across.test_rows) == (10, 5, 15)
    assert [(group.rows, group.test_rows) for group in across.examples] == [([20 + i], [i]) for i in range(10)]
    assert any("15 rows of" in reason for reason in report.serious)


def test_equal_rows_are_no_leak_where_columns_are_few_and_coarse() -> None:
    table = plain()[["group", "y"]].assign(sex=np.random.default_rng(0).choice(["f", "m"], 400))
    report = run(table)
    assert report.doubles.within.exact == 6
    assert report.doubles.by_chance > 1000
    assert report.serious == []
    assert "would be equal by chance" in str(report)


@pytest.mark.parametrize("name", ["copy", "code", "threshold", "missing"])
def test_a_column_that_gives_the_answer_away_is_found(name: str) -> None:
    table = plain()
    yes = (table["y"] == "yes").to_numpy()
    drawn = np.random.default_rng(0)
    table["given"] = {
        "copy": np.where(yes, "Yes", "no "),
        "code": np.where(yes, drawn.choice(["q", "r"], 400), drawn.choice(["s", "t"], 400)),
        "threshold": np.where(yes, 1, -1) * drawn.uniform(0.5, 3, 400),
        "missing": np.where(yes, np.nan, drawn.normal(size=400)),
    }[name]
    (leak,) = run(table).leaks
    assert leak.column == "given"
    assert leak.kind == ("copy" if name == "copy" else "predicts")
    assert leak.used
    assert leak.score >= 0.99
    assert leak.prior == max(yes.mean(), 1 - yes.mean())


def test_a_leak_of_a_regression_and_one_through_an_identifier() -> None:
    drawn = np.random.default_rng(0)
    price = np.sort(drawn.uniform(10, 1000, 400))
    table = pd.DataFrame({"a": drawn.normal(size=400), "net": price / 1.19, "id": range(400), "price": price})
    found = {leak.column: leak for leak in run(table, "price").leaks}
    assert set(found) == {"net", "id"}
    assert found["net"].measure == "r2"
    assert found["net"].used
    assert not found["id"].used
    assert run(table, "price").serious == ["the answer leaks through 'net'"]


def test_small_tables_and_rare_labels_accuse_nobody() -> None:
    table = plain(60)
    table["given"] = np.where(table["y"] == "yes", "p", "q")
    report = run(table)
    assert report.leaks == []
    assert "60 rows" in report.left_out["columns that alone predict the target"]
    rare = plain(400)
    rare["y"] = ["yes"] * 8 + ["no"] * 392
    rare["given"] = np.where(rare["y"] == "yes", "p", "q")
    assert run(rare).leaks == []


def test_cells_that_cannot_be_read_are_told_not_raised(tmp_path: Path) -> None:
    table = plain(100)
    table["image"] = ["nowhere.png"] * 100
    table.loc[5, "y"] = None
    report = run(table, types={"image": "image"})
    told = " ".join(map(str, report.problems))
    assert "there is no such file" in told
    assert "the target is missing" in told
    assert report.modalities["image"] == 0.0
    assert report.serious


def test_a_model_is_believed_where_its_probabilities_are_given() -> None:
    table = plain(300)
    from polyfuse.data.inference import infer_schema
    from polyfuse.data.reading import read_table

    schema = infer_schema(read_table(table), "y")
    sure = np.full((300, 2), 0.02)
    sure[np.arange(300), [schema.target.levels.index(y) for y in table["y"]]] = 0.98
    sure[[4, 7, 9]] = sure[[4, 7, 9]][:, ::-1]
    report = check(table, schema=schema, scores=sure, progress=False)
    assert report.labels is not None
    assert sorted(report.labels.positions) == [4, 7, 9]
    assert report.labels.source == "probabilities of the model"
    with pytest.raises(InputError, match=r"shape .* give a probability for each row and label"):
        check(table, schema=schema, scores=sure[:, :1], progress=False)


def test_labels_that_nothing_tells_are_not_doubted() -> None:
    table = plain(300)
    table["y"] = np.random.default_rng(9).choice(["yes", "no"], 300)
    report = run(table)
    assert report.labels is None
    assert "hardly better than the most frequent answer" in report.left_out["label errors"]


def test_several_labels_of_a_row_and_several_targets() -> None:
    table = plain(300)
    tags = [["hot"] * (a > 0) + ["late"] * (b > 0) for a, b in zip(table["a"], table["b"], strict=True)]
    for row in (3, 50, 120, 200):
        tags[row] = [tag for tag in ("hot", "late") if tag not in tags[row]]
    table["tags"] = tags
    report = run(table.drop(columns="y"), "tags")
    assert report.labels is not None
    assert {3, 50, 120, 200} <= set(report.labels.positions)
    both = run(table, ["y", "tags"])
    assert both.labels is None
    assert "several targets" in both.left_out["label errors"]


def test_many_rows_are_sampled_and_it_is_said() -> None:
    report = run(plain(600), rows=200, fast=True)
    assert report.labels is not None
    assert report.labels.rows == 200
    assert any("200 of 600 rows" in note for note in report.notes)
    again = run(plain(600), rows=200, fast=True)
    assert again.labels == report.labels


def test_a_call_that_is_wrong_is_refused() -> None:
    with pytest.raises(InputError, match="no target is named"):
        check(plain(), progress=False)
    with pytest.raises(InputError, match="has no column 'z'"):
        run(plain(), "z")
    with pytest.raises(InputError, match="has none of the columns"):
        run(plain(), test=pd.DataFrame({"other": [1]}))


def test_divergence_is_that_of_scipy() -> None:
    from scipy.spatial.distance import jensenshannon

    first, second = np.random.default_rng(0).dirichlet(np.ones(4), (2, 50))
    expected = [jensenshannon(p, q, base=2) ** 2 for p, q in zip(first, second, strict=True)]
    assert divergence(first, second) == pytest.approx(np.array(expected))


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.lists(st.floats(width=32), max_size=3),
    st.binary(max_size=9),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_wild_table_raises_nothing_else(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 70))
    narrow = st.sampled_from([1, 2, 3, "a", "b", None])
    columns = {
        name: data.draw(st.lists(data.draw(st.sampled_from([cells, narrow, texts])), min_size=rows, max_size=rows))
        for name in ("a", "b", "y")
    }
    table = pd.DataFrame({name: pd.Series(some, dtype=object) for name, some in columns.items()})
    try:
        report = run(table, test=table if data.draw(st.booleans()) else None, fast=True)
    except InputError:
        return
    assert str(report)
    json.loads(report.to_json())


def test_the_command_ends_as_it_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = plain(200)
    train["given"] = np.where(train["y"] == "yes", 1, 2)
    train.to_csv(tmp_path / "train.csv", index=False)
    train.head(20).to_csv(tmp_path / "test.csv", index=False)
    command(tmp_path / "train.csv", ["y"], test=tmp_path / "test.csv", fast=True)
    assert "'given' alone predicts the target" in capsys.readouterr().out
    asked = ("check", "train.csv", "--target", "y", "--test", "test.csv", "--fast", "--json", "--strict")
    out, _ = polyfuse(*asked, cwd=tmp_path, code=1)
    found = json.loads(out)
    assert found["doubles"]["across"]["test_rows"] == 20
    assert len(found["serious"]) == 2


def test_the_command_asks_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictor = pf.Predictor("y", fusion={"name": "auto", "candidates": ["linear"]})
    predictor.fit(plain(200), progress=False).save(tmp_path / "run")
    other = plain(150, seed=5)
    other.to_csv(tmp_path / "other.csv", index=False)
    command(tmp_path / "other.csv", run=tmp_path / "run", as_json=True)
    found = json.loads(capsys.readouterr().out)["labels"]
    assert found["source"] == "probabilities of the model"
    right = (predictor.predict(other) == other["y"]).mean()
    assert found["accuracy"] == pytest.approx(right)


def test_a_command_that_is_wrong_is_refused(tmp_path: Path) -> None:
    plain(100).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match="did you mean 'number'"):
        command(tmp_path / "train.csv", ["y"], types=["a=numbr"])
    with pytest.raises(InputError, match="did you mean 'regression'"):
        command(tmp_path / "train.csv", ["y"], task="regresion")
    with pytest.raises(typer.BadParameter, match="--run says what the target and the types are"):
        command(tmp_path / "train.csv", ["y"], run=tmp_path / "run")


def test_the_face_has_it() -> None:
    assert pf.check is check
