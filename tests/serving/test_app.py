"""The application, in process: what it answers, what it refuses, what it tells of itself."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import polyfuse as pf
from polyfuse.serving.doors import Buckets
from serving.client import Asked, as_json, rows_of
from serving.models import png, wav
from shapes import npy, ply, xyz

KEY = "0123456789abcdef-key"


@pytest.fixture(scope="module")
def asked(predictor: pf.Predictor) -> Iterator[Asked]:
    made = Asked(predictor, max_body=1 << 20, max_rows=50, max_pixels=10_000, max_letters=500)
    yield made
    made.close()


def test_one_row_several_rows_and_a_form_are_answered_alike(
    asked: Asked, predictor: pf.Predictor, table: pd.DataFrame
) -> None:
    rows = rows_of(table, predictor)[:5]
    labels, scores = predictor.predict(rows).tolist(), predictor.predict_proba(rows)
    one = asked("POST", "/predict", json=as_json(rows[0])).json()
    assert one["answer"] == labels[0]
    assert one["present"] == ["image", "audio", "text", "table", "vector", "points"]
    np.testing.assert_allclose(list(one["probabilities"].values()), scores.iloc[0], atol=1e-5)
    assert 0 <= one["suspicion"] <= 1
    assert isinstance(one["suspicious"], bool)
    many = asked("POST", "/predict/batch", json={"rows": [as_json(row) for row in rows]}).json()
    assert [answer["answer"] for answer in many["answers"]] == labels
    files = {"photo": ("../../x.png", rows[0]["photo"]), "sound": rows[0]["sound"], "scan": rows[0]["scan"]}
    fields = {"note": rows[0]["note"], "size in cm": str(rows[0]["size in cm"]), "shop": rows[0]["shop"]}
    form = asked(
        "POST", "/predict", files=files, data={**fields, "day": rows[0]["day"], "vector": str(rows[0]["vector"])}
    ).json()
    assert form["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6)


def test_what_is_left_out_is_absent(asked: Asked, predictor: pf.Predictor, table: pd.DataFrame) -> None:
    row = rows_of(table, predictor)[0]
    part = {"note": row["note"], "sound": None}
    told = asked("POST", "/predict", json=part).json()
    assert told["present"] == ["text"]
    with pytest.warns(UserWarning, match="lacks"):
        expected = predictor.predict_proba({"note": row["note"]})
    np.testing.assert_allclose(list(told["probabilities"].values()), expected.iloc[0], atol=1e-5)
    nothing = asked("POST", "/predict", json={}).json()
    assert nothing["present"] == []
    blank = asked("POST", "/predict", files={"photo": b""}, data={"note": "", "size in cm": ""}).json()
    assert blank["present"] == []


def test_a_level_adds_a_set(asked: Asked, several: pf.Predictor, table: pd.DataFrame) -> None:
    row = as_json(rows_of(table, asked.app.state.engine.predictor)[0])
    assert "labels" not in asked("POST", "/predict", json=row).json()
    told = asked("POST", "/predict", json=row, params={"level": 0.8}).json()
    assert set(told["labels"]) <= {"no", "yes"}
    refused = asked("POST", "/predict", json=row, params={"level": 0.99999})
    assert (refused.status_code, refused.json()["errors"][0]["message"][:6]) == (422, "level:")
    other = Asked(several)
    body = other("POST", "/predict", json=row, params={"level": 0.8}).json()
    assert body["targets"]["price"]["low"] < body["targets"]["price"]["answer"] < body["targets"]["price"]["high"]
    assert body["targets"]["label"]["answer"] in ("no", "yes")
    shares = other("POST", "/explain", json=row).json()["shares"]
    assert [share["target"] for share in shares] == ["label", "price"]
    other.close()


def test_explanations_add_up(asked: Asked, table: pd.DataFrame) -> None:
    row = as_json(rows_of(table, asked.app.state.engine.predictor)[0])
    told = asked("POST", "/explain", json=row).json()
    [share] = told["shares"]
    assert share["label"] == told["answer"]
    assert sum(share["gives"].values()) == pytest.approx(share["everything"] - share["nothing"], abs=1e-5)


IMAGE = base64.b64encode(png(np.zeros((4, 4), np.uint8))).decode()
REFUSED: list[tuple[Any, str, str]] = [
    ({"phtoo": IMAGE}, "phtoo", "did you mean 'photo'"),
    ({"label": "yes"}, "label", "no such column"),
    ({"photo": "/etc/passwd"}, "photo", "never read"),
    ({"photo": "file:///etc/passwd"}, "photo", "never read"),
    ({"photo": "https://example.org/a.png"}, "photo", "never read"),
    ({"photo": "data:image/png,abc"}, "photo", "never read"),
    ({"photo": {"path": "/etc/passwd", "bytes": None}}, "photo", "base64"),
    ({"photo": ["/etc/passwd"]}, "photo", "never read"),
    ({"photo": [IMAGE] * 65}, "photo", "at most 64"),
    ({"photo": ""}, "photo", "is empty"),
    ({"photo": IMAGE[:40]}, "photo", "image is damaged|no image"),
    ({"photo": base64.b64encode(b"<svg/>").decode()}, "photo", "no image"),
    ({"photo": base64.b64encode(png(np.zeros((101, 100), np.uint8))).decode()}, "photo", "10,000 pixels"),
    ({"sound": IMAGE}, "sound", "no recording"),
    ({"sound": "a.wav"}, "sound", "never read"),
    ({"note": 3}, "note", "text is expected"),
    ({"note": "x" * 501}, "note", "500 characters"),
    ({"size in cm": "12"}, "size in cm", "finite number"),
    ({"size in cm": True}, "size in cm", "finite number"),
    ({"size in cm": 10**400}, "size in cm", "finite number"),
    ({"shop": ["north"]}, "shop", "word, a number"),
    ({"day": "yesterday"}, "day", "date or time"),
    ({"vector": [1, 2]}, "vector", "list of 3"),
    ({"vector": [1, 2, 1e300]}, "vector", "at most"),
    ({"vector": [1, 2, None]}, "vector", "finite number"),
]


@pytest.mark.parametrize(("body", "column", "message"), REFUSED)
def test_what_is_wrong_is_said(asked: Asked, body: Any, column: str, message: str) -> None:
    answer = asked("POST", "/predict/batch", json={"rows": [{}, body]})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["title"], problem["status"]) == ("Unprocessable Entity", 422)
    [error] = problem["errors"]
    assert (error["column"], error["row"]) == (column, 1)
    assert re.search(message, error["message"]), error
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/predict", {}, 405),
        ("POST", "/health/live", {}, 405),
        ("POST", "/predict", {"content": b"{}"}, 415),
        ("POST", "/predict", {"data": {"note": "x"}}, 415),
        ("POST", "/predict/batch", {"files": {"photo": b"x"}}, 415),
        ("POST", "/predict", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/predict", {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/predict", {"content": b'{"note":"\xff"}', "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/predict", {"content": b'{"note":"\\ud800"}', "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
        ("POST", "/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, 400),
        ("POST", "/predict", {"json": []}, 422),
        ("POST", "/predict", {"content": b"null", "headers": {"content-type": "application/json"}}, 422),
        ("POST", "/predict/batch", {"json": {"rows": []}}, 422),
        ("POST", "/predict/batch", {"json": {"rows": [{}] * 51}}, 422),
        ("POST", "/predict/batch", {"json": {"note": "x"}}, 422),
        ("POST", "/predict", {"json": {f"c{i}": i for i in range(5000)}}, 422),
        ("POST", "/predict", {"json": {"x" * 100_000: 1}}, 422),
        ("POST", "/predict", {"params": {"level": "x"}, "json": {}}, 422),
        ("POST", "/predict", {"content": b" " * (2 << 20), "headers": {"content-type": "application/json"}}, 413),
        ("POST", "/feedback", {"json": {}}, 404),
    ],
)
def test_every_refusal_is_a_problem(asked: Asked, method: str, path: str, options: dict[str, Any], status: int) -> None:
    answer = asked(method, path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    assert len(answer.content) < 10_000


def test_a_body_is_bounded_while_it_comes(asked: Asked) -> None:
    taken = 0

    async def endless() -> Any:
        nonlocal taken
        while taken < 100 << 20:
            taken += 1 << 16
            yield b" " * (1 << 16)

    answer = asked("POST", "/predict", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert taken <= 2 << 20


def test_a_body_that_does_not_come_is_not_waited_for(predictor: pf.Predictor) -> None:
    import asyncio

    slow = Asked(predictor, deadline=0.2)

    async def dripping() -> Any:
        for _ in range(50):
            await asyncio.sleep(0.1)
            yield b" "

    answer = slow("POST", "/predict", content=dripping(), headers={"content-type": "application/json"})
    assert answer.status_code == 408
    slow.close()


def test_a_client_that_goes_away_is_no_failure(asked: Asked) -> None:
    import asyncio

    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "root_path": "", "headers": []}
    scope["headers"] = [(b"content-type", b"application/json")]
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asked.app(scope, receive, send))
    assert sent == []
    assert (asked.lines[-1]["event"], asked.lines[-1]["status"]) == ("request", 499)


def test_keys(predictor: pf.Predictor) -> None:
    keyed = Asked(predictor, keys=(KEY, "another-key-of-16-chars"))
    assert keyed("GET", "/health/live").status_code == 200
    for path in ("/metrics", "/model", "/docs", "/openapi.json"):
        refused = keyed("GET", path)
        assert (refused.status_code, refused.json()["title"]) == (401, "Unauthorized")
        assert "www-authenticate" in refused.headers
    basic = base64.b64encode(f"any:{KEY}".encode()).decode()
    for headers in (
        {"X-API-Key": KEY},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"Basic {basic}"},
        {"X-API-Key": "another-key-of-16-chars"},
    ):
        assert keyed("GET", "/model", headers=headers).status_code == 200
    for headers in ({"X-API-Key": KEY[:-1]}, {"X-API-Key": ""}, {"Authorization": f"Bearer {KEY}x"}):
        assert keyed("POST", "/predict", headers=headers, json={}).status_code == 401
    assert KEY not in keyed.stream.getvalue()
    keyed.close()


def test_a_client_that_comes_too_often(predictor: pf.Predictor) -> None:
    limited = Asked(predictor, rate=0.01, burst=3)
    answers = [limited("GET", "/model") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 101
    assert limited("GET", "/health/ready").status_code == 200
    limited.close()


def test_tokens_come_back() -> None:
    now = 0.0
    buckets = Buckets(2.0, 3, clock=lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.take("b") == 0
    now = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 0.5]
    now = 100.0
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]


def test_every_answer_carries_what_protects(asked: Asked) -> None:
    for path in ("/model", "/docs", "/nothing", "/health/live"):
        headers = asked("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_request_ids_are_taken_where_they_are_well_formed(asked: Asked) -> None:
    assert asked("GET", "/model", headers={"X-Request-ID": "trace-0123"}).headers["x-request-id"] == "trace-0123"
    for bad in ("short", "x" * 65, "a b c d e f g h", 'quo"te-quote', "café-café"):
        given = asked("GET", "/model", headers={"X-Request-ID": bad.encode("latin-1")}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", given)


def test_the_log_says_what_happened_and_nothing_of_what_was_sent(asked: Asked) -> None:
    asked("POST", "/predict", json={"note": "a secret word"}, headers={"X-Request-ID": "logged-1234"})
    asked("GET", "/a%20place%0A")
    line, missed = asked.lines[-2:]
    assert {"id": "logged-1234", "path": "/predict", "status": 200, "rows": 1, "batch": 1}.items() <= line.items()
    assert line["ms"] > 0
    assert missed["status"] == 404
    assert "secret word" not in asked.stream.getvalue()


def test_a_failure_shows_no_trace(predictor: pf.Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, sent = Asked(predictor), "what was sent"

    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(sent)

    monkeypatch.setattr(predictor, "answer_rows", fail)
    answer = broken("POST", "/predict", json={})
    assert answer.status_code == 500
    assert sent not in answer.text
    assert "Traceback" not in answer.text
    failure, line = broken.lines[-2:]
    assert failure["event"] == "failure"
    assert failure["id"] == line["id"] == answer.json()["request_id"]
    assert "fail" in failure["trace"]
    assert sent not in json.dumps(failure)
    broken.close()


def test_metrics(predictor: pf.Predictor) -> None:
    fresh = Asked(predictor)
    fresh("POST", "/predict/batch", json={"rows": [{}, {}]})
    fresh("GET", "/made/up/by/a/client")
    fresh("POST", "/predict", json={"nothing": 1})
    text = fresh("GET", "/metrics").text
    for line in (
        'polyfuse_requests_total{method="POST",path="/predict/batch",status="200"} 1.0',
        'polyfuse_requests_total{method="GET",path="other",status="404"} 1.0',
        'polyfuse_requests_total{method="POST",path="/predict",status="422"} 1.0',
        "polyfuse_rows_total 2.0",
        "polyfuse_batch_rows_count 1.0",
        "polyfuse_waiting_rows 0.0",
        'polyfuse_request_seconds_count{path="/predict/batch"} 1.0',
    ):
        assert line in text, line
    assert float(re.search(r"^polyfuse_memory_bytes (\S+)", text, re.MULTILINE)[1]) > 1e7  # type: ignore[index]
    fresh.close()


def test_suspicious_rows_are_counted(predictor: pf.Predictor, table: pd.DataFrame) -> None:
    fresh = Asked(predictor)
    rows = [as_json({**row, "size in cm": 1e6, "vector": [1e6] * 3}) for row in rows_of(table, predictor)[:10]]
    told = fresh("POST", "/predict/batch", json={"rows": rows}).json()["answers"]
    flagged = sum(one["suspicious"] for one in told)
    assert flagged > 0
    assert f"polyfuse_suspicious_rows_total {float(flagged)}" in fresh("GET", "/metrics").text
    fresh.close()


def test_the_card_and_the_documents_know_the_model(asked: Asked, several: pf.Predictor) -> None:
    card = asked("GET", "/model").json()
    assert card["targets"] == [{"name": "label", "task": "classification", "labels": ["no", "yes"]}]
    assert {"name": "photo", "type": "image", "modality": "image", "missing": 0.0} in card["columns"]
    assert "accuracy" in card["validation"]["metrics"]
    assert card["screen"] is True
    document = asked("GET", "/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    assert set(row["properties"]) == {"photo", "sound", "note", "size in cm", "shop", "day", "vector", "scan"}
    assert row["additionalProperties"] is False
    assert row["examples"][0]["shop"] in ("north", "south")
    assert asked("POST", "/predict", json=row["examples"][0]).status_code == 200
    answer = document["components"]["schemas"]["Answer"]
    assert answer["properties"]["answer"]["enum"] == ["no", "yes"]
    other = Asked(several)
    targets = other("GET", "/openapi.json").json()["components"]["schemas"]["Targets"]["properties"]
    assert set(targets) == {"label", "price"}
    other.close()


def test_the_docs_load_nothing_from_elsewhere(asked: Asked) -> None:
    answer = asked("GET", "/docs")
    page = answer.text
    for said in ("size in cm", "/predict/batch", "north", "Try it"):
        assert said in page
    assert not re.search(r"(src|href)\s*=\s*.(https?:|//)", page)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_feedback_and_the_request_log(predictor: pf.Predictor, table: pd.DataFrame, tmp_path: Path) -> None:
    from polyfuse.serving.journal import Journal

    logged = Asked(predictor, log=tmp_path / "log")
    row = rows_of(table, predictor)[0]
    told = logged("POST", "/predict", json=as_json(row)).json()
    body = {"request_id": told["request_id"], "row": 0, "truth": {"label": "yes"}}
    assert logged("POST", "/feedback", json=body).status_code == 200
    assert logged("POST", "/feedback", json={**body, "row": 3}).status_code == 404
    for wrong in ({"label": "perhaps"}, {"colour": "yes"}, {}):
        assert logged("POST", "/feedback", json={**body, "truth": wrong}).status_code == 422
    assert logged("POST", "/feedback", content=b"{}").status_code == 415
    logged.close()
    kept = Journal.at(tmp_path / "log").table(labelled=True)
    assert kept["label"].tolist() == ["yes"]
    assert kept["photo"].tolist() == [row["photo"]]
    assert kept["request_id"].tolist() == [told["request_id"]]


def test_answers_go_on_while_the_server_drains(asked: Asked) -> None:
    engine = asked.app.state.engine
    engine.draining = True
    try:
        answer = asked("POST", "/predict", json={})
        assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert asked("GET", "/health/ready").status_code == 503
        assert asked("GET", "/health/live").status_code == 200
    finally:
        engine.draining = False


def test_too_much_at_once_is_told_to_come_again(predictor: pf.Predictor) -> None:
    small = Asked(predictor, queue=2, max_rows=2, batch=1)
    answers = small.together([("POST", "/predict", {"json": {"note": "good"}})] * 12)
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    assert all(answer.headers.get("retry-after") for answer in answers if answer.status_code == 429)
    small.close()


def test_seconds_of_a_recording_are_read_from_its_header(predictor: pf.Predictor) -> None:
    short = Asked(predictor, max_seconds=0.5)
    sound = base64.b64encode(wav(np.zeros(8000))).decode()
    assert "0.5 seconds" in short("POST", "/predict", json={"sound": sound}).json()["errors"][0]["message"]
    short.close()


def test_a_cloud_is_a_list_of_points_or_a_file(asked: Asked, predictor: pf.Predictor) -> None:
    cloud = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    expected = predictor.answer({"scan": cloud}).scores.iloc[0].to_dict()
    files = [npy(cloud), ply(cloud, "x y z"), xyz(cloud)]
    told = [asked("POST", "/predict", json={"scan": base64.b64encode(file).decode()}) for file in files]
    told += [asked("POST", "/predict", json={"scan": cloud.tolist()})]
    told += [asked("POST", "/predict", files={"scan": ("a.ply", files[1])})]
    told += [asked("POST", "/predict", data={"scan": json.dumps(cloud.tolist())}, files={"note": (None, "")})]
    for answer in told:
        assert answer.status_code == 200, answer.text
        assert answer.json()["present"] == ["points"]
        assert answer.json()["probabilities"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        ("/etc/passwd", "a path or an address is never read"),
        (3, "a point cloud is given as base64"),
        ([], "a cloud has 1 to 1,000,000 points"),
        ([[1, 2]], "a list of 3 numbers is expected"),
        ([[1, 2, "x"]], "a finite number is expected"),
        ([[1, 2, 1e39]], "at most 3.4"),
        (base64.b64encode(b"hello there").decode(), "a point a line"),
    ],
)
def test_what_is_no_cloud(asked: Asked, scan: Any, message: str) -> None:
    answer = asked("POST", "/predict", json={"scan": scan})
    assert answer.status_code == 422
    assert message in answer.json()["errors"][0]["message"]
