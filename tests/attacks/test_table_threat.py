"""The threat to tables: what is named or mended lies within the budget, and the region is what the cells allow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyfuse.attacks.regions import Box
from polyfuse.attacks.relations import Relation
from polyfuse.attacks.table import RangesThreat
from polyfuse.attacks.threat import Sample, Seam, Value
from polyfuse.core.errors import InputError
from polyfuse.data.augmentation.table import spread
from polyfuse.data.schema import Column
from polyfuse.encoders.table import TableEncoder

AGE = Column(name="age", type="number", quantiles=np.linspace(0, 100, 51).tolist())
LEAST = Column(name="least", type="number", quantiles=np.linspace(0, 10, 51).tolist())
MOST = Column(name="most", type="number", quantiles=np.linspace(5, 15, 51).tolist())
SOLD = Column(name="sold", type="datetime", quantiles=np.linspace(0, 1e9, 51).tolist())
BRAND = Column(name="brand", type="category", levels=["x", "y", "z"])
CITY = Column(name="city", type="category", levels=["p", "q"])
COLUMNS = [AGE, LEAST, SOLD, MOST, BRAND, CITY]
CLEAN = (30.0, 4.5, 5e8, 6.25, "x", "p")


class Plain(TableEncoder):
    def forward(self, *args: Any, **tensors: Any) -> Any:
        raise NotImplementedError


class Backwards(Plain):
    def prepare(self, values: Any) -> Any:
        tensors = super().prepare(values)
        return {**tensors, "numbers": -tensors["numbers"]}


def excess(threat: RangesThreat, clean: Value, found: Value) -> float:
    return threat.excess(Sample(clean), Sample(found))


def replaced(**cells: Any) -> Value:
    names = [column.name for column in COLUMNS]
    return tuple(cells.get(name, cell) for name, cell in zip(names, CLEAN, strict=True))


def seam(encoder: TableEncoder, values: list[Value | None]) -> Seam:
    return Seam.of(encoder, encoder.prepare(values), values)


NUMBER = st.floats(allow_nan=False) | st.integers(-5, 5).map(float)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[Column], Value, Value]:
    """Return columns, a clean row and any other row of the same types."""
    columns, clean, other = [], [], []
    for i in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            finite = st.floats(allow_nan=False, allow_infinity=False)
            few = draw(st.lists(st.integers(-3, 3).map(float) | finite, max_size=5))
            columns.append(Column(name=f"n{i}", type="number", quantiles=sorted(few)))
            cells = st.none() | NUMBER | (st.sampled_from(few) if few else st.nothing())
        else:
            columns.append(Column(name=f"c{i}", type="category", levels=["a", "b"]))
            cells = st.none() | st.sampled_from(["a", "b", "rare"])
        clean.append(draw(cells))
        other.append(draw(cells))
    return columns, tuple(clean), tuple(other)


@settings(max_examples=250)
@given(table=tables(), radius=st.sampled_from([1e-3, 0.25, 3.0, 1e9]), limit=st.integers(0, 2), seed=st.integers(0, 99))
def test_whatever_is_named_or_mended_is_within_the_budget(
    table: tuple[list[Column], Value, Value], radius: float, limit: int, seed: int
) -> None:
    columns, clean, other = table
    names = [column.name for column in columns if column.type == "number"]
    relations = [f"{a} {sign} {b}" for a, b, sign in zip(names, names[1:], ("<", "<=", "<"), strict=False)]
    threat = RangesThreat(columns, radius=radius, categories=limit, relations=relations)
    assert excess(threat, clean, clean) == -1
    assert threat.mended(clean, clean) == clean
    mended = threat.mended(other, clean)
    assert excess(threat, clean, mended) <= 0
    assert threat.mended(mended, clean) == mended
    random, value = np.random.default_rng(seed), clean
    for _ in range(4):
        near = threat.neighbours(value, clean, random)
        for one in near:
            assert one != value
            assert excess(threat, clean, one) <= 0
            assert [cell is None for cell in one] == [cell is None for cell in clean]
        if not near:
            break
        value = near[random.integers(len(near))]
    encoder = Plain(columns)
    box = threat.region(seam(encoder, [clean, None]))
    assert box.project(box.clean).equal(box.clean)


@pytest.mark.parametrize(
    ("found", "beyond"),
    [
        (replaced(), -1),
        (replaced(age=42.0), -1 + 12 / 12.5),
        (replaced(age=43.0), 0.5 / 12.5),
        (replaced(age=42.5), math.inf),  # ages are whole
        (replaced(least=5.75), 0),
        (replaced(least=5.75001), 0.00001 / 1.25),
        (replaced(sold=5e8 + 1), math.inf),
        (replaced(brand="y"), 0),
        (replaced(brand="y", city="q"), 1),
        (replaced(brand="new"), math.inf),
        (replaced(brand=None), math.inf),
        (replaced(age=None), math.inf),
        (replaced(least=5.5, most=5.4), math.inf),  # least <= most
        (replaced(most=4.9), math.inf),  # never seen, and 1.08 radii away
        (CLEAN[:-1], math.inf),
    ],
)
def test_what_a_row_uses_of_its_budget(found: Value, beyond: float) -> None:
    threat = RangesThreat(COLUMNS, relations=["least <= most"])
    assert excess(threat, CLEAN, found) == pytest.approx(beyond, abs=1e-6)


def test_each_option_holds() -> None:
    assert excess(RangesThreat(COLUMNS, immutable=["age"]), CLEAN, replaced(age=31.0)) == math.inf
    assert excess(RangesThreat(COLUMNS, categories=0), CLEAN, replaced(city="q")) == math.inf
    assert excess(RangesThreat(COLUMNS, categories=2), CLEAN, replaced(brand="z", city="q")) == 0
    assert excess(RangesThreat(COLUMNS, radius=0.5), CLEAN, replaced(age=55.0)) == pytest.approx(0, abs=1e-6)
    assert RangesThreat(COLUMNS, immutable=["age"]).unchanged() == ["age", "sold"]
    scaled = RangesThreat(COLUMNS, immutable=["age"], relations=["least < most"]).scaled(2.0)
    assert scaled.options() == {"radius": 0.5, "categories": 1, "immutable": ("age",), "relations": ("least < most",)}
    # What was seen bounds what may be, and is widened to hold what is there.
    assert excess(RangesThreat(COLUMNS, radius=9), CLEAN, replaced(age=101.0)) == math.inf
    old = replaced(age=120.0)
    assert excess(RangesThreat(COLUMNS, radius=9), old, replaced(age=110.0)) < 0
    assert excess(RangesThreat(COLUMNS, radius=9), old, replaced(age=121.0)) == math.inf


@pytest.mark.parametrize("least", [0.0, 1e17])
def test_rounding_takes_no_number_out_of_its_range(least: float) -> None:
    # As far apart as numbers of that size are at least, or as all numbers are.
    step = 5e-324 if least == 0 else 16.0
    column = Column(name="n", type="number", quantiles=[least + i * step for i in range(9)])
    for radius in (0.15, 0.2, 0.3, 0.6, 0.9):
        threat = RangesThreat([column], radius=radius)
        for x in column.quantiles:
            for near in threat.neighbours((x,), (x,), np.random.default_rng(0)):
                assert excess(threat, (x,), near) <= 0


def test_a_fraction_among_whole_numbers_is_not_passed() -> None:
    threat = RangesThreat([AGE], radius=0.005)
    assert [threat.mended((y,), (30.5,)) for y in (30.7, 30.3)] == [(30.5,), (30.5,)]


def test_neighbours_of_a_row() -> None:
    threat = RangesThreat(COLUMNS, immutable=["most"], relations=["least <= most"])
    near = threat.neighbours(CLEAN, CLEAN, np.random.default_rng(0))
    assert {replaced(brand="y"), replaced(brand="z"), replaced(city="q"), replaced(age=18.0), replaced(age=42.0)} < set(
        near
    )
    assert all(sum(a != b for a, b in zip(one, CLEAN, strict=True)) == 1 for one in near)
    assert {one[1] for one in near} >= {3.25, 5.75}
    once = replaced(brand="y")
    assert {one[4:] for one in threat.neighbours(once, CLEAN, np.random.default_rng(0))} == {
        ("x", "p"),
        ("y", "p"),
        ("z", "p"),
    }


def test_relations_are_repaired_towards_the_clean_row() -> None:
    threat = RangesThreat(COLUMNS, radius=0.5, relations=["least < most", "most <= age"])
    mended = threat.mended(replaced(least=6.5, most=5.0), CLEAN)
    assert mended[1] < mended[3]
    assert CLEAN[1] < mended[1] < 6.5
    assert 5.0 < mended[3] < CLEAN[3]
    assert mended[3] - mended[1] < 0.01, "no farther back than it takes"
    # A relation that the clean row breaks is left alone.
    broken = replaced(least=7.0)
    assert threat.mended((*broken[:1], 7.5, *broken[2:]), broken)[1] == 7.5
    # Where both are alike, there is no room.
    alike = replaced(least=6.25)
    assert RangesThreat(COLUMNS, relations=["least <= most"]).mended(replaced(least=7.0), alike) == alike


def test_relations_that_hang_together_all_hold() -> None:
    names = "abc"
    columns = [Column(name=name, type="number", quantiles=np.linspace(0, 10.5, 51).tolist()) for name in names]
    threat = RangesThreat(columns, radius=9, relations=["a <= b", "b <= c"])
    clean = (1.0, 2.0, 3.0)
    assert threat.mended((4.0, 4.5, 2.5), clean)[:2] == clean[:2]
    fixed, random = RangesThreat(columns, radius=9, relations=["a < b"], immutable=["b"]), np.random.default_rng(0)
    for _ in range(200):
        b = float(random.uniform(1, 9))
        mended = fixed.mended((10.0, 5.0, 5.0), (0.5, b, 5.0))
        assert mended[1] == b
        assert 0.5 < mended[0] < b


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("least > most", "least <= most"),
        ("least", "least <= most"),
        ("least <=", "least <= most"),
        ("leest <= most", "no number column 'leest'; did you mean 'least'"),
        ("least < brand", "no number column 'brand'"),
        ("least <= sold", "no number column 'sold'"),
        ("least < least", "least <= most"),
        ("least < most < age", "no number column 'most < age'"),
    ],
)
def test_relations_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        RangesThreat(COLUMNS, relations=[text])
    assert repr(text) in str(error.value)


def test_relations_between_columns_with_signs_in_their_names() -> None:
    columns = [Column(name="a<b", type="number"), Column(name="c", type="number")]
    assert Relation.of("a<b<=c", columns) == Relation(0, 1, strict=False)
    assert Relation.of("c < a<b", columns) == Relation(1, 0, strict=True)
    with pytest.raises(InputError, match="immutable"):
        RangesThreat(columns, immutable=["d"])


@settings(max_examples=60)
@given(x=st.floats(-30, 130), radius=st.sampled_from([0.05, 0.25, 2.0]))
def test_the_region_is_what_the_cells_allow(x: float, radius: float) -> None:
    column = Column(name="size", type="number", quantiles=(np.linspace(0, 10, 51) ** 2).tolist())
    threat, encoder = RangesThreat([column], radius=radius), Plain([column])
    box = threat.region(seam(encoder, [(x,)]))
    r = radius * spread(column.quantiles)
    ends = {}
    for sign in (-1, 1):
        outside = min if sign < 0 else max
        end = (outside(0.0, x) if sign < 0 else outside(100.0, x)) if r == math.inf else x + sign * r
        ends[sign] = max(end, min(0.0, x)) if sign < 0 else min(end, max(100.0, x))
    for sign, end in ends.items():
        inner, outer = (encoder.prepare([(end + sign * step,)])["numbers"] for step in (-1e-3, 1e-3))
        assert box.project(outer) == pytest.approx(float(encoder.prepare([(end,)])["numbers"]), abs=1e-5)
        if x not in (end, end - sign * 1e-3) and abs(end - x) > 1e-3:
            assert box.project(inner).equal(inner)
            assert excess(threat, (x,), (end - sign * 1e-3,)) <= 0
        assert excess(threat, (x,), (end + sign * 1e-3,)) > 0


def test_the_region_holds_numbers_alone() -> None:
    encoder = Plain(COLUMNS)
    threat = RangesThreat(COLUMNS, immutable=["most"])
    where = seam(encoder, [CLEAN, None, replaced(age=None, least=0.0)])
    box = threat.region(where)
    assert isinstance(box, Box)
    free = torch.zeros_like(box.free)
    free[0, :2] = free[2, 1] = True  # of nine entries, seven are the datetime's
    assert box.free.equal(free)
    assert box.low.shape == box.high.shape == box.radius.shape == where.clean.shape
    far = box.project(torch.full_like(box.clean, 9.0))
    restored = encoder.restore({**encoder.prepare(where.values), "numbers": far}, where.values)
    mended = [
        threat.mended(a, b) for a, b in zip(restored, where.values, strict=True) if a is not None and b is not None
    ]
    assert mended[0][:2] == pytest.approx((42.0, 5.75))
    assert excess(threat, CLEAN, mended[0]) <= 0
    assert box.rows(torch.tensor([2])).low.equal(box.low[2:])


def test_an_encoder_that_turns_numbers_round_is_refused() -> None:
    with pytest.raises(TypeError, match="Backwards"):
        RangesThreat(COLUMNS).region(seam(Backwards(COLUMNS), [CLEAN]))
