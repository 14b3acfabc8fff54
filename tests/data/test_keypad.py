from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from polyfuse.data import keypad as module
from polyfuse.data.keypad import COLUMN_TONES, RATE, ROW_TONES, SIDE, keypad, keypad_split

Split = tuple[pd.DataFrame, pd.DataFrame]
MODALITIES = ("image", "audio", "note", "table")


@pytest.fixture(scope="module")
def split() -> Split:
    return keypad_split(1200, 400, seed=0)


def as_bytes(table: pd.DataFrame) -> list[tuple[object, ...]]:
    """All cells of a table in a form that can be compared."""
    images = [None if cell is None else cell.tobytes() for cell in table["image"]]
    sounds = [None if cell is None else (cell[0].tobytes(), cell[1]) for cell in table["audio"]]
    rest = table.drop(columns=["image", "audio"]).astype(str).itertuples(index=False)
    return list(zip(images, sounds, rest, strict=True))


def test_same_seed_same_table() -> None:
    assert as_bytes(keypad(40, seed=3)) == as_bytes(keypad(40, seed=3))
    assert as_bytes(keypad(40, seed=3)) != as_bytes(keypad(40, seed=4))
    for one, other in zip(keypad_split(30, 20, seed=5), keypad_split(30, 20, seed=5), strict=True):
        assert as_bytes(one) == as_bytes(other)


def test_cells(split: Split) -> None:
    train, test = split
    assert list(train) == ["image", "audio", "note", "pressure", "hold_ms", "finger", "key"]
    assert (len(train), len(test)) == (1200, 400)
    assert set(train["key"]) == set("0123456789")
    assert train["key"].value_counts(normalize=True).between(0.07, 0.13).all()
    for image in train["image"].dropna():
        assert (image.shape, image.dtype) == ((SIDE, SIDE), np.uint8)
    for samples, rate in train["audio"].dropna():
        assert rate == RATE
        assert samples.dtype == np.float32
        assert 0.1 * RATE <= len(samples) <= 0.2 * RATE
        assert np.abs(samples).max() <= 1
    assert train["pressure"].dropna().between(0, 1).all()
    assert (train["hold_ms"].dropna() > 0).all()
    assert train["note"].nunique() > 500


def test_absent_cells(split: Split) -> None:
    train, _ = split
    absent = train[["image", "audio", "note", "finger"]].isna()
    assert absent.mean().between(0.06, 0.14).all()
    assert not absent.all(axis=1).any()
    assert (train["finger"].isna() == train["pressure"].isna()).all()
    assert (train["finger"].isna() == train["hold_ms"].isna()).all()


@pytest.mark.parametrize("rows", [0, 1, 2000])
def test_any_number_of_rows(rows: int) -> None:
    assert len(keypad(rows)) == rows


def test_split_shares_no_handwritten_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []
    monkeypatch.setattr(module, "_image", lambda digit, random: drawn.append(digit.tobytes()))
    keypad_split(300, 100, seed=1)
    assert set(drawn[:300]).isdisjoint(drawn[300:])


def test_notes_are_true_of_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_mistype", lambda words, random: words)
    table = keypad(600, seed=2)
    parity = table[table["note"].str.contains("odd digit", na=False)]
    assert len(parity) > 3
    assert set(parity["key"]) <= set("13579")
    assert set(table[table["note"].str.contains("spider", na=False)]["key"]) == {"8"}


def test_tones_are_those_of_q23(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FADED", 0.0)
    samples, rate = module._audio(6, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(samples, 8000))
    strongest = [max(tones, key=lambda tone: power[round(tone * 8000 / rate)]) for tones in (ROW_TONES, COLUMN_TONES)]
    assert strongest == [770.0, 1477.0]


def tone_powers(table: pd.DataFrame) -> NDArray[np.float64]:
    """The Goertzel power at each of the seven frequencies, relative to their mean (rows, 7)."""
    tones = np.array(ROW_TONES + COLUMN_TONES)
    found = np.zeros((len(table), len(tones)))
    for row, cell in enumerate(table["audio"]):
        if cell is not None:
            turns = np.exp(-2j * np.pi * tones[:, None] * np.arange(len(cell[0])) / cell[1])
            powers = np.abs(turns @ cell[0])
            found[row] = powers / powers.mean()
    return found


def hints(table: pd.DataFrame) -> NDArray[np.float64]:
    fingers = pd.get_dummies(table["finger"]).reindex(columns=["thumb", "index", "middle"], fill_value=0)
    numbers = np.column_stack([table["pressure"].fillna(-1), np.log(table["hold_ms"].fillna(1))])
    return np.column_stack([numbers, fingers.to_numpy(dtype=float)])


def pixels(table: pd.DataFrame) -> NDArray[np.float64]:
    blank = np.zeros((SIDE, SIDE))
    return np.stack([(blank if cell is None else cell / 255).ravel() for cell in table["image"]])


@pytest.fixture(scope="module")
def log_scores(split: Split) -> dict[str, NDArray[np.float64]]:
    """What a plain model of each modality alone makes of the test rows (rows, keys)."""
    train, test = split
    words = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
    inputs = {
        "image": (KNeighborsClassifier(9, weights="distance"), pixels(train), pixels(test)),
        "audio": (RandomForestClassifier(100, random_state=0), tone_powers(train), tone_powers(test)),
        "note": (
            LogisticRegression(C=20),
            words.fit_transform(train["note"].fillna("")),
            words.transform(test["note"].fillna("")),
        ),
        "table": (LogisticRegression(max_iter=2000), hints(train), hints(test)),
    }
    return {
        name: np.log(model.fit(x, train["key"]).predict_proba(x_test) + 1e-2)
        for name, (model, x, x_test) in inputs.items()
    }


def accuracy(split: Split, log_scores: dict[str, NDArray[np.float64]], modalities: tuple[str, ...]) -> float:
    chosen = sum(log_scores[name] for name in modalities).argmax(axis=1)  # type: ignore[union-attr]
    return float((chosen.astype(str) == split[1]["key"]).mean())


@pytest.mark.parametrize(
    ("modality", "least", "most"),
    [("image", 0.5, 0.8), ("audio", 0.5, 0.8), ("note", 0.45, 0.8), ("table", 0.25, 0.42)],
)
def test_no_modality_suffices(
    split: Split, log_scores: dict[str, NDArray[np.float64]], modality: str, least: float, most: float
) -> None:
    assert least < accuracy(split, log_scores, (modality,)) < most


def test_modalities_complete_each_other(split: Split, log_scores: dict[str, NDArray[np.float64]]) -> None:
    for pair in combinations(MODALITIES, 2):
        best = max(accuracy(split, log_scores, (name,)) for name in pair)
        assert accuracy(split, log_scores, pair) > best + 0.02, pair
    together = accuracy(split, log_scores, MODALITIES)
    assert together > 0.92
    for name in ("image", "audio", "note"):
        rest = tuple(other for other in MODALITIES if other != name)
        assert accuracy(split, log_scores, rest) < together - 0.02, name
