"""What several ask for is answered together, as the predictor answers each."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.core.errors import DataError
from polyfuse.serving.engine import Busy, Engine, Late, Stopping
from polyfuse.serving.settings import Settings
from serving.models import png, records, wav
from shapes import npy, ply, xyz


class Slow:
    """Lets a predictor wait, and counts how many rows it was given at a time."""

    def __init__(self, predictor: pf.Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.begun, self.sizes = threading.Event(), threading.Event(), list[int]()
        real = predictor.answer_rows

        def answer_rows(rows: Any, **options: Any) -> Any:
            self.begun.set()
            assert self.go.wait(20)
            self.sizes.append(len(rows))
            return real(rows, **options)

        monkeypatch.setattr(predictor, "answer_rows", answer_rows)


def test_answers_are_those_of_the_predictor(engine: Engine, table: pd.DataFrame) -> None:
    predictor = engine.predictor
    some = records(table, predictor)[:40]
    for i in range(0, 40, 3):
        some[i]["photo"] = None
    some[5] = {}
    labels, frame = predictor.predict(some).tolist(), predictor.predict(some, screen=True)
    scores = predictor.predict_proba(some)

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(engine.answer([row]) for row in some))

    found = asyncio.run(all_at_once())
    assert max(one.batch for one in found) > 1
    for i, one in enumerate(found):
        [told] = one.told
        assert told.said["label"].answer == labels[i]
        assert list(told.said["label"].probabilities or {}) == ["no", "yes"]
        np.testing.assert_allclose(list((told.said["label"].probabilities or {}).values()), scores.iloc[i], atol=1e-5)
        assert told.suspicion == pytest.approx(frame["suspicion"].iloc[i], abs=1e-4)
        np.testing.assert_allclose(one.answers.scores.to_numpy()[0], scores.iloc[i], atol=1e-5)
    assert found[5].told[0].present == []
    assert found[0].told[0].present == ["audio", "text", "table", "vector", "points"]


def test_what_comes_while_computing_is_computed_together(
    predictor: pf.Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, some = Slow(predictor, monkeypatch), records(table, predictor)
    engine = Engine(predictor, Settings(threads=1, batch=8))

    async def run() -> None:
        first = asyncio.create_task(engine.answer(some[:1]))
        await asyncio.to_thread(slow.begun.wait, 20)
        rest = [asyncio.create_task(engine.answer([row])) for row in some[1:12]]
        other = asyncio.create_task(engine.answer(some[12:13], level=0.8))
        while engine.waiting < 13:
            await asyncio.sleep(0.01)
        slow.go.set()
        await asyncio.gather(first, other, *rest)
        assert (await other).told[0].said["label"].labels is not None

    asyncio.run(run())
    engine.close()
    assert slow.sizes[0] == 1
    assert sorted(slow.sizes[1:]) == [1, 3, 8]


def test_a_row_that_cannot_be_read_is_its_own_matter(engine: Engine, table: pd.DataFrame) -> None:
    some = records(table, engine.predictor)[:3]
    some[1]["photo"] = png(np.zeros((4, 4), np.uint8))[:40]

    async def run() -> list[Any]:
        return await asyncio.gather(*(engine.answer([row]) for row in some), return_exceptions=True)

    first, bad, last = asyncio.run(run())
    assert isinstance(bad, DataError)
    assert bad.problems[0].column == "photo"
    assert len(first.told) == len(last.told) == 1


def test_a_request_that_breaks_the_computation_is_found_among_others(
    engine: Engine, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, real = records(table, engine.predictor)[:6], engine.predictor.answer_rows

    def answer_rows(rows: Any, **options: Any) -> Any:
        if any(rows.cell("note", row) == "break" for row in range(len(rows))):
            raise ZeroDivisionError
        return real(rows, **options)

    monkeypatch.setattr(engine.predictor, "answer_rows", answer_rows)
    some[3]["note"] = "break"

    async def run() -> list[Any]:
        return await asyncio.gather(*(engine.answer([row]) for row in some), return_exceptions=True)

    found = asyncio.run(run())
    assert [isinstance(one, ZeroDivisionError) for one in found] == [i == 3 for i in range(6)]


def test_too_much_and_too_late(predictor: pf.Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, some = Slow(predictor, monkeypatch), records(table, predictor)
    engine = Engine(predictor, Settings(threads=1, queue=4, max_rows=4))

    async def run() -> None:
        first = asyncio.create_task(engine.answer(some[:1]))
        await asyncio.to_thread(slow.begun.wait, 20)
        waits = asyncio.create_task(engine.answer(some[1:3]))
        while engine.waiting < 3:
            await asyncio.sleep(0.01)
        with pytest.raises(Busy) as busy:
            await engine.answer(some[:2])
        assert 1 <= busy.value.retry_after <= 60
        with pytest.raises(Late):
            await engine.answer(some[3:4], deadline=0.1)
        slow.go.set()
        assert len((await first).told) + len((await waits).told) == 3

    asyncio.run(run())
    engine.close()
    assert sum(slow.sizes) == 3  # what came too late was never computed
    assert engine.waiting == 0


def test_what_is_read_too_late_is_not_computed(
    predictor: pf.Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, real = Slow(predictor, monkeypatch), predictor.read_rows
    slow.go.set()
    read = threading.Event()

    def read_rows(rows: Any) -> Any:
        assert read.wait(20)
        return real(rows)

    monkeypatch.setattr(predictor, "read_rows", read_rows)
    engine = Engine(predictor, Settings(threads=1))
    with pytest.raises(Late):
        asyncio.run(_late(engine, records(table, predictor)[:1], read))
    engine.close()
    assert slow.sizes == []


async def _late(engine: Engine, rows: list[dict[str, Any]], read: threading.Event) -> None:
    try:
        await engine.answer(rows, deadline=0.05)
    finally:
        read.set()


def test_what_is_decoded_has_bounded_room(
    predictor: pf.Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, large = Slow(predictor, monkeypatch), {"photo": png(np.zeros((500, 600), np.uint8))}
    engine = Engine(predictor, Settings(threads=1, memory=1 << 20))
    thread = threading.Thread(target=engine.ask, args=([large],))
    thread.start()
    assert slow.begun.wait(20)
    with pytest.raises(Busy, match="room"):
        engine.ask([large])
    slow.go.set()
    thread.join()
    assert len(engine.ask([large])) == 1
    with pytest.raises(DataError, match="MiB decoded"):
        engine.ask([large, large])
    engine.close()


def test_what_was_taken_is_answered_before_the_end(
    predictor: pf.Predictor, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, some = Slow(predictor, monkeypatch), records(table, predictor)
    engine = Engine(predictor, Settings(threads=1))
    found: list[Any] = []
    asking = [threading.Thread(target=lambda row=row: found.append(engine.ask([row]))) for row in some[:5]]
    for thread in asking:
        thread.start()
    while engine.waiting < 5:
        slow.begun.wait(0.01)
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine.stopping:
        slow.begun.wait(0.01)
    with pytest.raises(Stopping):
        engine.ask(some[:1])
    slow.go.set()
    closing.join(20)
    for thread in asking:
        thread.join(20)
    assert len(found) == 5


def test_shares_add_up(engine: Engine, several: pf.Predictor, table: pd.DataFrame) -> None:
    row = records(table, engine.predictor)[0] | {"sound": None}
    [share] = engine.explain(row).shares
    assert share.label == engine.ask([row])[0].said["label"].answer
    assert set(share.gives) == {"image", "audio", "text", "table", "vector", "points"}
    assert share.gives["audio"] == 0
    assert sum(share.gives.values()) == pytest.approx(share.everything - share.nothing, abs=1e-5)
    other = Engine(several, Settings(threads=1))
    label, price = other.explain(row).shares
    assert (label.target, price.target, price.label) == ("label", "price", None)
    assert price.everything == pytest.approx(several.predict(row)["price"].iloc[0], abs=1e-4)
    assert sum(price.gives.values()) == pytest.approx(price.everything - price.nothing, abs=1e-4)
    other.close()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"photo": "/etc/passwd"}, "given as its bytes"),
        ({"sound": "https://example.org/a.wav"}, "given as its bytes"),
        ({"photo": [png(np.zeros((2, 2), np.uint8)), "a.png"]}, "given as its bytes"),
        ({"photo": {"path": "/etc/passwd"}}, "given as its bytes"),
        ({"phtoo": None}, "did you mean 'photo'"),
        ({"photo": png(np.zeros((101, 100), np.uint8))}, "10,000 pixels"),
        ({"sound": wav(np.zeros(9000))}, "1 seconds"),
        ({"note": "x" * 101}, "100 characters"),
        ({"note": ["x"]}, "text is expected"),
        ({"vector": [1.0, 2.0]}, "3 numbers"),
        ({"scan": "/etc/passwd"}, "given as its bytes"),
        ({"scan": {"path": "/etc/passwd"}}, "given as its bytes"),
        ({"scan": np.zeros((51, 3)).tolist()}, "50 points"),
        ({"scan": npy(np.zeros((51, 3), np.float32))}, "50 points"),
        ({"scan": ply(np.zeros((51, 3), np.float32), "x y z")}, "50 points"),
        ({"scan": xyz(np.zeros((51, 3), np.float32))}, "50 points"),
        ({"scan": [[1.0, 2.0]]}, "3 numbers a point"),
    ],
)
def test_limits(predictor: pf.Predictor, row: dict[str, Any], message: str) -> None:
    engine = Engine(predictor, Settings(threads=1, max_pixels=10_000, max_seconds=1, max_points=50, max_letters=100))
    with pytest.raises(DataError, match=message):
        engine.ask([{}, row])
    assert engine.waiting == 0
    engine.close()
