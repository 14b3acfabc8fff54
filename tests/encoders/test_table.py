from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column
from polyfuse.encoders.embedding import EmbeddingEncoder
from polyfuse.encoders.ft_transformer import FTTransformerEncoder
from polyfuse.encoders.mlp import MLPEncoder
from polyfuse.encoders.table import MISSING, UNKNOWN, NumberEmbeddings, squash

AGE = Column(name="age", type="number", quantiles=np.linspace(0, 100, 51).tolist())
BRAND = Column(name="brand", type="category", levels=["x", "y"])
SOLD = Column(name="sold", type="datetime", quantiles=np.linspace(0, 1e9, 51).tolist())
MAKERS = [MLPEncoder, FTTransformerEncoder]


def test_numbers_are_scaled_by_median_and_quartiles() -> None:
    found = MLPEncoder([AGE]).prepare([(50.0,), (100.0,), (0.0,), (1e9,), (None,)])
    z = (100 - 50) / (75 - 25)
    expected = [0.0, z / np.sqrt(1 + (z / 3) ** 2), -z / np.sqrt(1 + (z / 3) ** 2), 3.0, 0.0]
    np.testing.assert_allclose(found["numbers"][:, 0], expected, rtol=1e-5)
    assert found["missing"][:, 0].tolist() == [False, False, False, False, True]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.floats(allow_nan=False))
@example([1296669846194831.0, 0.0, 4.0], 4.5243581083867064e16)
def test_scaled_numbers_are_bounded_and_keep_their_order(values: list[float], center: float) -> None:
    width = 1.0 + abs(values[0]) / 2
    found = squash(np.sort(np.array(values)), np.clip(center, -1e300, 1e300), width)
    assert (np.abs(found) <= 3.0).all()
    assert (np.diff(found) >= 0).all()


def test_where_the_quartiles_are_equal_the_range_scales() -> None:
    column = Column(name="sparse", type="number", quantiles=[0.0] * 49 + [5.0, 10.0])
    numbers = MLPEncoder([column]).prepare([(5.0,), (0.0,)])["numbers"][:, 0]
    assert numbers[0] == pytest.approx(1 / np.sqrt(1 + 1 / 9))
    constant = Column(name="constant", type="number", quantiles=[7.0] * 51)
    assert MLPEncoder([constant]).prepare([(7.0,), (9.0,)])["numbers"].tolist() == [[0.0], [0.0]]
    assert MLPEncoder([Column(name="n", type="number")]).prepare([(7.0,)])["numbers"].tolist() == [[0.0]]


def test_categories_are_coded_missing_unknown_then_levels() -> None:
    codes = MLPEncoder([BRAND]).prepare([("x",), ("y",), ("z",), (None,), None])["codes"][:, 0]
    assert codes.tolist() == [2, 3, UNKNOWN, MISSING, MISSING]


def test_datetimes_have_a_place_in_year_week_and_day() -> None:
    day = 86_400.0
    found = MLPEncoder([SOLD]).prepare([(0.0,), (day,), (7 * day,), (365.2425 * day,), (day / 4,)])["numbers"]
    year, week, hours = found[:, 1:3], found[:, 3:5], found[:, 5:7]
    torch.testing.assert_close(year[0], year[3], atol=1e-5, rtol=0)
    torch.testing.assert_close(week[0], week[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(hours[0], hours[1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(hours[4], [1.0, 0.0], atol=1e-6)
    assert not torch.allclose(week[0], week[1])


def test_piecewise_encoding_by_its_definition() -> None:
    edges = [np.array([-2.0, -1.0, 0.0, 2.0]), np.array([0.0, 0.0, 0.0, 1.0])]
    layer = NumberEmbeddings(edges, 2, "piecewise", 3)
    found = layer.encode(torch.tensor([[-3.0, -1.0], [-0.5, 0.25], [5.0, 2.0]]))
    expected = [
        [[-1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]],
        [[1.0, 0.5, 0.0], [0.25, 0.0, 0.0]],
        [[1.0, 1.0, 2.5], [2.0, 0.0, 0.0]],
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_periodic_and_linear_encodings_by_their_definition() -> None:
    layer = NumberEmbeddings([np.zeros(2)], 2, "periodic", 3)
    c = layer.frequencies.detach().numpy()[0]
    expected = np.concatenate([np.sin(2 * np.pi * c * 0.7), np.cos(2 * np.pi * c * 0.7)])
    np.testing.assert_allclose(layer.encode(torch.tensor([[0.7]])).detach()[0, 0], expected, rtol=1e-4)
    assert NumberEmbeddings([np.zeros(2)], 2, "linear", 3).encode(torch.tensor([[0.7]])).tolist() == [
        [[pytest.approx(0.7)]]
    ]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("columns", [[AGE], [BRAND], [SOLD], [BRAND, AGE, SOLD, BRAND]])
def test_numbers_or_categories_alone_are_enough(make: Any, columns: list[Column]) -> None:
    encoder = make(columns, dim=8)
    cells: dict[str, Any] = {"number": 3.0, "category": "x", "datetime": 5e8}
    features = encoder(**encoder.prepare([tuple(cells[column.type] for column in columns), None]))
    assert features.pooled.shape == (2, 8)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("numbers", ["piecewise", "periodic", "linear"])
def test_missing_differs_from_the_median_and_unknown_from_known(make: Any, numbers: str) -> None:
    torch.manual_seed(0)
    encoder = make([AGE, BRAND], numbers=numbers).eval()
    rows = [(50.0, "x"), (None, "x"), (50.0, None), (50.0, "never seen"), (50.0, "y"), (51.0, "x")]
    pooled = encoder(**encoder.prepare(rows)).pooled
    assert torch.pdist(pooled).min() > 1e-5


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (MLPEncoder, "dim", 7),
        (MLPEncoder, "depth", 4),
        (MLPEncoder, "embedding", 5),
        (MLPEncoder, "bins", 4),
        (FTTransformerEncoder, "dim", 8),
        (FTTransformerEncoder, "depth", 3),
        (FTTransformerEncoder, "bins", 4),
    ],
)
def test_options_change_the_weights(make: Any, option: str, value: int) -> None:
    plain, changed = make([AGE, BRAND]), make([AGE, BRAND], **{option: value})
    assert [p.shape for p in plain.parameters()] != [p.shape for p in changed.parameters()]


@pytest.mark.parametrize("make", MAKERS)
def test_dropout_acts_in_training_only(make: Any) -> None:
    encoder = make([AGE, BRAND], dropout=0.5)
    tensors = encoder.prepare([(1.0, "x")] * 4)
    assert not encoder.train()(**tensors).pooled[0].equal(encoder(**tensors).pooled[1])
    assert encoder.eval()(**tensors).pooled[0].allclose(encoder(**tensors).pooled[1])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads=3"):
        FTTransformerEncoder([AGE], heads=3)


def test_embeddings_are_direction_length_and_presence() -> None:
    columns = [Column(name="a", type="embedding", size=2), Column(name="b", type="embedding", size=1)]
    encoder = EmbeddingEncoder(columns)
    pooled = encoder(**encoder.prepare([(np.array([3.0, 4.0], dtype=np.float32), None)])).pooled
    rms = np.sqrt(12.5)
    np.testing.assert_allclose(
        pooled, [[3 / rms, 4 / rms, 0, np.log1p(rms), np.log1p(1e-6), 0, 1]], rtol=1e-4, atol=1e-9
    )
    assert encoder.dim == 7
    turned = np.array([4.0, 3.0], dtype=np.float32)[::-1]
    np.testing.assert_array_equal(encoder.prepare([(turned, None)])["vectors"][0], [3, 4, 0])
    with pytest.raises(InputError, match="column 'c'"):
        EmbeddingEncoder([Column(name="c", type="embedding")])


@settings(max_examples=25)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_embeddings_of_any_size_stay_finite(values: list[float]) -> None:
    encoder = EmbeddingEncoder([Column(name="a", type="embedding", size=3)])
    tensors = encoder.prepare([(np.array(values, dtype=np.float32),)])
    leaf = tensors["vectors"].requires_grad_()
    pooled = encoder(vectors=leaf, missing=tensors["missing"]).pooled
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
