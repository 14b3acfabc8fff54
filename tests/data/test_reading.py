"""Every kind of table gives the same rows; every broken one gives one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from polyfuse.core.errors import InputError
from polyfuse.data.inference import infer_schema
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import read_rows

WORDS = ("a warm coat of wool", "thin shirt, too small", "I love these jeans", 'they said "no" to it', "naïve 😀 emoji")


def records(rows: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "note": f"{WORDS[i % 5]} {i}" if i % 7 else None,
            "price": i * 1.1 + 0.3 if i % 5 else None,
            "size": ["small", "medium", "large"][i % 3],
            "when": f"2020-01-{1 + i % 28:02d}",
            "label": ["yes", "no"][i % 2],
        }
        for i in range(rows)
    ]


def write(kind: str, folder: Path) -> Any:
    rows, frame = records(), pd.DataFrame(records())
    path = folder / f"table.{kind}"
    if kind in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    elif kind in ("jsonl", "ndjson"):
        path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    elif kind == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "saved":
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return {"frame": frame, "dataset": datasets.Dataset.from_list(rows), "records": rows}.get(kind, path)


KINDS = ("csv", "tsv", "jsonl", "ndjson", "json", "parquet", "saved", "frame", "dataset", "records")


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_same_schema_and_values(kind: str, tmp_path: Path) -> None:
    expected = read_table(records())
    table = read_table(write(kind, tmp_path))
    schema = infer_schema(table, "label")
    assert schema == infer_schema(expected, "label")
    assert schema.modalities == {"text": ["note"], "table": ["price", "size", "when"]}
    found, other = read_rows(table, schema, training=True), read_rows(expected, schema, training=True)
    assert found.answers == other.answers
    for modality in schema.modalities:
        for row in range(len(found)):
            assert found.value(modality, row) == other.value(modality, row)
            assert found.digest(modality, row) == other.digest(modality, row)


def test_index_kept_and_names_become_strings() -> None:
    frame = pd.DataFrame({0: [1, 2], "b": [3, 4]}, index=["x", "y"])
    table = read_table(frame)
    assert list(table.frame.index) == ["x", "y"]
    assert list(table.frame.columns) == ["0", "b"]
    assert list(frame.columns) == [0, "b"]


def test_one_dict_is_one_row_and_may_hold_anything() -> None:
    image = Image.new("RGB", (2, 2))
    table = read_table({"image": image, "vector": np.arange(3.0), "audio": (np.zeros(5), 8000), "n": 1})
    assert len(table.frame) == 1
    assert table.frame["image"][0] is image
    assert table.frame["audio"][0][1] == 8000
    assert len(table.frame["vector"][0]) == 3


def test_images_and_audio_of_a_dataset_are_not_decoded() -> None:
    features = datasets.Features({"image": datasets.Image(), "images": datasets.List(datasets.Image())})
    image = Image.new("L", (4, 3))
    table = read_table(datasets.Dataset.from_dict({"image": [image], "images": [[image, image]]}, features=features))
    assert table.frame["image"][0]["bytes"].startswith(b"\x89PNG")
    assert len(table.frame["images"][0]) == 2
    plain = datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    sounds = datasets.Dataset.from_dict({"audio": [{"bytes": b"RIFF", "path": None}]}, features=plain)
    table = read_table(sounds.cast_column("audio", datasets.Audio()))
    assert table.frame["audio"][0]["bytes"] == b"RIFF"


def test_a_table_is_returned_as_it_is_and_media_root_replaces_its_folder(tmp_path: Path) -> None:
    table = Table(pd.DataFrame({"a": [1]}), None, "mine")
    assert read_table(table) is table
    assert read_table(table, media_root=tmp_path).folder == tmp_path
    (tmp_path / "t.csv").write_text("a\n1\n")
    assert read_table(tmp_path / "t.csv").folder == tmp_path
    assert read_table(str(tmp_path / "t.csv"), media_root="/").folder == Path("/")
    with pytest.raises(InputError, match=r"media_root .* is no folder"):
        read_table(table, media_root=tmp_path / "none")


def test_zero_rows_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    assert read_table(tmp_path / "t.csv").frame.shape == (0, 2)


def test_nul_and_emoji_survive(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes('a,b\n"x\0y","😀"\n'.encode())
    (tmp_path / "t.jsonl").write_text('{"a": "x\\u0000y", "b": "\\ud83d\\ude00"}\n')
    pd.DataFrame({"a": ["x\0y"], "b": ["😀"]}).to_parquet(tmp_path / "t.parquet")
    for ending in ("csv", "jsonl", "parquet"):
        row = read_table(tmp_path / f"t.{ending}").frame.iloc[0]
        assert (row["a"], row["b"]) == ("x\0y", "😀"), ending


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    for ending, text in (("csv", "a,b\n1,2\n"), ("jsonl", '{"a": 1, "b": 2}')):
        (tmp_path / f"t.{ending}").write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert list(read_table(tmp_path / f"t.{ending}").frame.columns) == ["a", "b"]


BROKEN = {
    "long_row.csv": ("a,b\n1,2\n1,2,3\n", "is broken: Expected 2 fields in line 3, saw 3"),
    "all_long.csv": ("a,b\n1,2,3\n1,2,3\n", "more fields than the first line has names"),
    "open_quote.csv": ('a,b\n1,"2\n', "is broken: EOF inside string"),
    "empty.csv": ("", "is empty"),
    "twice.csv": ("a,b,a\n1,2,3\n", "'a' occur more than once"),
    "twice.jsonl": ('{"a": 1, "a": 2}\n', "line 1: the column names 'a' occur more than once"),
    "broken.jsonl": ('{"a": 1}\n{"a": \n', "line 2: broken JSON"),
    "list.jsonl": ("[1, 2]\n", "line 1: every row is an object"),
    "deep.jsonl": ("[" * 100_000, "nested too deeply|broken JSON"),
    "empty.jsonl": ("\n", "is empty"),
    "text.parquet": ("hello", "is no Parquet file"),
    "sheet.xlsx": ("x", "the ending '.xlsx' is unknown; give a file"),
    "t.pkl": ("x", "a pickle can run code"),
    "utf16.csv": ("a,é\n1,2\n".encode("utf-16"), "is not UTF-8"),
    "latin.jsonl": ('{"a": "é"}'.encode("latin-1"), "is not UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_give_one_clear_error(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_table(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_equal_names_are_refused_everywhere(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table([[1], [2]], names=["a", "a"]), tmp_path / "t.parquet")
    for source in (tmp_path / "t.parquet", pd.DataFrame([[1, 2]], columns=["a", "a"]), {1: 0, "1": 0}):
        with pytest.raises(InputError, match="occur more than once"):
            read_table(source)


def test_places_that_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"there is no file .*tran.csv'; did you mean 'train.csv'\?"):
        read_table(tmp_path / "tran.csv")
    with pytest.raises(InputError, match="there is no folder"):
        read_table(tmp_path / "none" / "train.csv")
    with pytest.raises(InputError, match=r"is a folder, and none saved by datasets; give a file; it holds train.csv"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="there is no file 'a"):
        read_table("a\0b.csv")
    with pytest.raises(InputError, match=r"is no path|there is no file"):
        read_table("x" * 5000 + ".csv")
    with pytest.raises(InputError, match="has no columns"):
        read_table(pd.DataFrame(index=[0, 1]))
    for odd in (3, "", None, [1, 2], b"x"):
        with pytest.raises(InputError):
            read_table(odd)


def test_several_splits_are_named(tmp_path: Path) -> None:
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict({"a": [1]}), "test": datasets.Dataset.from_dict({"a": [1]})}
    )
    both.save_to_disk(str(tmp_path / "both"))
    with pytest.raises(InputError, match=r"holds several tables; give one of them: .*test or .*train"):
        read_table(tmp_path / "both")
    with pytest.raises(InputError, match="give one of its splits: train, test"):
        read_table(both)
    (tmp_path / "both" / "train" / "state.json").write_text("{")
    with pytest.raises(InputError, match="is no dataset that can be read"):
        read_table(tmp_path / "both" / "train")


def test_lone_surrogates_are_no_reason_to_fail() -> None:
    records = [{"note\ud800": "\ud800 is no character", "y": 1}, {"note\ud800": None, "y": 2}]
    table = read_table(records)
    assert list(table.frame.columns) == ["note\ufffd", "y"]
    assert table.frame["note\ufffd"].tolist() == ["\ud800 is no character", None]
    assert read_table([{"note": "\ud800"}]).frame["note"].tolist() == ["\ud800"]


@settings(max_examples=40)
@given(st.lists(st.text(st.characters()), min_size=1, max_size=5), st.floats())
def test_any_text_and_number_survive_as_records(texts: list[str], value: float) -> None:
    table = read_table([{"a": text, "x": value} for text in texts])
    assert table.frame["a"].tolist() == texts
    assert np.array_equal(table.frame["x"].to_numpy(dtype=float), [value] * len(texts), equal_nan=True)


def test_missing_cells_beside_whole_numbers_of_64_bits_are_missing(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_text("id,y\n9223372036854775809,a\nNA,b\n,c\n9223372036854775811,nan\n")
    frame = read_table(tmp_path / "ids.csv").frame
    assert frame["id"].isna().tolist() == [False, True, True, False]
    assert [str(cell) for cell in frame["id"].dropna()] == ["9223372036854775809", "9223372036854775811"]
    assert frame["y"].isna().tolist() == [False, False, False, True]
