"""What a model leaves to the one after it: rows that are read again as they were, bounded, and no more than wanted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import ArtifactError
from polyfuse.data.inference import infer_schema
from polyfuse.data.keypad import keypad
from polyfuse.data.portable import portable_row, portable_table
from polyfuse.data.reading import read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.lineage import Kept, Offered, Reference, identity, keep, kept_table, load_kept, save_kept


def rows_of(frame: pd.DataFrame, target: str = "y", **options: object) -> Rows:
    table = read_table(frame)
    return read_rows(table, infer_schema(table, target, **options), training=False, answers=True)


def mixed(count: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": random.normal(size=count),
            "city": [["Rome", "Oslo", None][i % 3] for i in range(count)],
            "day": pd.date_range("2026-01-01 12:34:56.789", periods=count, freq="37h"),
            "vector": [random.normal(size=3).astype(np.float32) for _ in range(count)],
            "note": [f"a note of several words on case {i}" for i in range(count)],
            "y": [i % 4 for i in range(count)],
        }
    )


def offered(rows: Rows, **more: object) -> Offered:
    every = np.arange(len(rows))
    given = {"learned": every[: 2 * len(rows) // 3], "held": every[2 * len(rows) // 3 :], **more}
    return Offered(rows, rows.positions, **given)  # type: ignore[arg-type]


def chosen(rows: Rows, most: int = 12, megabytes: float = 1.0, **more: object) -> Kept:
    return keep(offered(rows, **more), [], rows=most, bytes=int(megabytes * 2**20), apart=True, seed=0)


def test_a_table_that_stands_alone_is_read_as_the_one_that_it_is_of(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    table = portable_table([portable_row(rows, row)[0] for row in range(len(rows))], rows.schema)
    table.to_parquet(tmp_path / "rows.parquet")
    again = read_rows(read_table(tmp_path / "rows.parquet"), rows.schema, training=False, answers=True)
    assert again.answers == rows.answers
    for name in rows.schema.modalities:
        assert [again.digest(name, i) for i in range(40)] == [rows.digest(name, i) for i in range(40)], name


def test_images_and_recordings_in_memory_come_back_as_they_were_decoded() -> None:
    rows = rows_of(keypad(12), "key")
    table = portable_table([portable_row(rows, row)[0] for row in range(12)], rows.schema)
    again = read_rows(read_table(table), rows.schema, training=False, answers=True)
    for row in range(12):
        image, sound = (rows.cell(name, row) for name in ("image", "audio"))
        if image is not None:
            assert again.cell("image", row)[0].tobytes() == image[0].tobytes()
        if sound is not None:
            np.testing.assert_array_equal(again.cell("audio", row).samples, sound.samples)


def test_rows_are_bounded_in_number_and_size_and_no_answer_is_left_out() -> None:
    rows = rows_of(mixed(400))
    kept = chosen(rows, 24)
    assert (len(kept.held.positions), len(kept.learned.positions)) == (8, 16)
    assert kept_table(kept.learned, rows.schema)["y"].nunique() == 4
    assert not set(kept.held.positions) & set(kept.learned.positions)
    _, size = portable_row(rows, 0)
    small = chosen(rows, 24, megabytes=6.5 * size / 2**20)
    assert 2 <= len(small.held.positions) + len(small.learned.positions) <= 6


def test_a_rare_answer_is_kept() -> None:
    frame = mixed(400).assign(y=["often"] * 394 + ["seldom"] * 6)
    rows = rows_of(frame)
    everywhere = {"learned": np.arange(400), "held": np.arange(0, 400, 5)}
    kept = chosen(rows, 30, **everywhere)
    assert "seldom" in set(kept_table(kept.learned, rows.schema)["y"])
    # What is there to measure on is not replayed, though the model has learned from all of it.
    kept = chosen(rows, 300, **everywhere)
    assert (len(kept.held.positions), len(kept.learned.positions)) == (80, 220)
    assert not set(kept.held.positions) & set(kept.learned.positions)


def test_groups_are_kept_whole_and_on_one_side() -> None:
    rows, groups = rows_of(mixed(60)), [i // 4 for i in range(60)]
    every = np.arange(60)
    kept = chosen(rows, 30, learned=every, held=every, groups=groups)
    sides = [{groups[i] for i in part.positions.tolist()} for part in (kept.held, kept.learned)]
    assert sides[0]
    assert sides[1]
    assert not sides[0] & sides[1]
    for part, side in zip((kept.held, kept.learned), sides, strict=True):
        assert len(part.positions) == 4 * len(side)


def test_nothing_that_a_row_holds_is_kept_where_none_is_to_be(tmp_path: Path) -> None:
    predictor = pf.Predictor("y", training={"epochs": 1}, fusion="concat", keep="none")
    predictor.fit(mixed(60), out=tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").rglob("*.parquet"))
    assert predictor.recipe.as_data()["keep"]["rows"] == 0
    kept = load_kept(tmp_path / "run" / "kept")
    assert kept is not None
    assert kept.held.table is None
    assert len(kept.held.positions) == 9


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    mixed(80).to_parquet(folder / "train.parquet")
    predictor = pf.Predictor("y", training={"epochs": 1}, fusion="concat", keep={"rows": 30})
    predictor.fit(folder / "train.parquet", out=folder / "run", progress=False)
    return folder / "run"


def test_an_artifact_tells_where_it_comes_from(run: Path) -> None:
    from polyfuse.artifact import summary

    about = summary(run)["lineage"]
    assert (about["id"], about["by"], about["rows"], about["ancestors"]) == (identity(run), "fit", 80, [])
    (source,) = about["sources"]
    assert source["path"] == str(run.parent / "train.parquet")
    assert len(source["digest"]) == 32


def test_kept_rows_are_read_when_they_are_asked_for_and_saved_again(run: Path, tmp_path: Path) -> None:
    again = pf.load(run).save(tmp_path / "again")
    for name in ("learned.parquet", "held.parquet", "kept.json"):
        assert (again / "kept" / name).read_bytes() == (run / "kept" / name).read_bytes()
    assert identity(again) == identity(run)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": 2}, "upgrade"),
        ({"apart": "perhaps"}, "apart"),
        ({"scored": True}, "other tensors"),
        ({"references": [{"path": "x"}]}, "rows"),
    ],
)
def test_damage_is_told(tmp_path: Path, change: dict[str, object], expected: str) -> None:
    rows = rows_of(mixed(60))
    save_kept(chosen(rows), tmp_path / "kept")
    path = tmp_path / "kept" / "kept.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=expected):
        load_kept(tmp_path / "kept")


def test_a_table_of_another_model_is_told(tmp_path: Path) -> None:
    rows = rows_of(mixed(60))
    save_kept(chosen(rows), tmp_path / "kept")
    kept = load_kept(tmp_path / "kept")
    assert kept is not None
    frame = pd.read_parquet(tmp_path / "kept" / "held.parquet")
    frame.drop(columns="x").to_parquet(tmp_path / "kept" / "held.parquet")
    with pytest.raises(ArtifactError, match="lacks the column 'x'"):
        kept_table(kept.held, rows.schema)
    frame.head(2).to_parquet(tmp_path / "kept" / "held.parquet")
    with pytest.raises(ArtifactError, match="2 rows instead of"):
        kept_table(kept.held, rows.schema)


def test_references_are_told_apart_by_what_rows_hold() -> None:
    from polyfuse.fitting.kept import reference_of

    frame = mixed(40)
    first, same, other = (
        reference_of(read_table(some), rows_of(some)) for some in (frame, frame.copy(), frame.assign(x=frame["x"] + 1))
    )
    assert isinstance(first, Reference)
    assert first.digest == same.digest != other.digest
