"""The page answers as the predictor does, and gives nothing else away."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import polyfuse as pf
from polyfuse.data.schema import Column
from polyfuse.serving.app import make_app
from polyfuse.serving.logs import Logs
from polyfuse.serving.page import UPLOADS
from polyfuse.serving.page.door import Door, inside, make_room
from polyfuse.serving.page.fields import usual
from polyfuse.serving.page.shown import answered, card
from polyfuse.serving.settings import Settings
from polyfuse.serving.telling import Explained, Said, Share, Told
from serving.client import Asked
from serving.models import png, wav
from shapes import npy

SETTINGS = Settings(threads=1, max_body=1 << 20, page=True)
ORDER = ["photo", "sound", "note", "size in cm", "shop", "day", "vector", "scan"]
TYPED: dict[str, Any] = {
    "note": "a good day number 7",
    "size in cm": "0.5",
    "shop": "north",
    "day": "2020-02-01",
    "vector": "[1, 0.5, 1]",
}


@pytest.fixture(scope="module")
def app(predictor: pf.Predictor) -> Iterator[FastAPI]:
    made = make_app(predictor, SETTINGS, logs=Logs(io.StringIO()))
    yield made
    made.state.engine.close()


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as made:
        yield made


def upload(client: TestClient, name: str, data: bytes) -> dict[str, Any]:
    answer = client.post("/gradio_api/upload?upload_id=abc", files={"files": (name, data)})
    assert answer.status_code == 200, answer.text
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}, "orig_name": name}


def ask(client: TestClient, row: dict[str, Any], without: list[str] | None = None) -> str:
    data = [*(row.get(name) for name in ORDER), without or []]
    answer = client.post(
        "/gradio_api/run/predict", json={"data": data, "fn_index": 0, "trigger_id": 9, "session_hash": "a"}
    )
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["data"][0]
    return found


def figures(page: str, caption: str) -> dict[str, str]:
    [table] = re.findall(f'<table aria-label="{caption}">(.*?)</table>', page)
    rows = re.findall(r'<th scope="row">(.*?)</th>.*?<td class="figure">(.*?)</td>', table)
    return {html.unescape(name): figure for name, figure in rows}


def test_answers_are_those_of_the_predictor(client: TestClient, predictor: pf.Predictor) -> None:
    photo = png(np.full((10, 10), 160, np.uint8))
    sound = wav(np.random.default_rng(0).normal(0, 0.3, 800).clip(-1, 1))
    scan = npy(np.random.default_rng(0).normal(0, 1.2, (20, 3)).astype(np.float32))
    sent = {**TYPED, "photo": upload(client, "a b.png", photo), "sound": upload(client, "c.wav", sound)}
    sent["scan"] = upload(client, "d.npy", scan)
    row = {**TYPED, "photo": photo, "sound": sound, "scan": scan}
    for without in ([], ["audio"], ["image", "text"]):
        page, answers = ask(client, sent, without), predictor.answer(row, without=without, screen=True, level=0.9)
        label, proba = answers.labels.iloc[0], answers.scores.iloc[0]
        assert f'<p class="said">{label}<small>{proba[label]:.1%}</small>' in page
        assert figures(page, "Probabilities") == {name: f"{share:.1%}" for name, share in sorted_down(proba)}
        assert f"Suspicion {answers.screened['suspicion'].iloc[0]:.2f}" in page
        assert answers.within is not None
        assert f"<b>{', '.join(answers.within['set'].iloc[0]) or 'none of the labels'}</b>" in page
        gave = figures(page, "What each modality gave")
        assert [name for name, figure in gave.items() if figure == "absent"] == without
        given = sum(float(figure) for figure in gave.values() if figure != "absent")
        prior = predictor.schema.target.frequencies[predictor.schema.target.levels.index(label)]
        assert given == pytest.approx(proba[label] - prior, abs=0.005)


def sorted_down(proba: pd.Series) -> list[tuple[str, float]]:
    return [(str(name), share) for name, share in proba.sort_values(ascending=False).items()]


def test_what_is_left_empty_is_absent(client: TestClient, predictor: pf.Predictor) -> None:
    page = ask(client, {"note": "a bad day", "size in cm": " ", "shop": ""})
    [proba] = predictor.predict_proba({**dict.fromkeys(ORDER), "note": "a bad day"}).to_numpy()
    assert set(figures(page, "Probabilities").values()) == {f"{share:.1%}" for share in proba}
    gave = figures(page, "What each modality gave")
    assert [name for name, figure in gave.items() if figure != "absent"] == ["text"]
    assert "Nothing was given" in ask(client, {})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"size in cm": "tall"}, "&#x27;size in cm&#x27;: a number is expected"),
        ({"day": "yesterday"}, "a date such as 2026-11-30"),
        ({"vector": "[1, 2]"}, "3 numbers is expected"),
        ({"size in cm": "<b>1</b>"}, "a number is expected: &#x27;&lt;b&gt;1"),
    ],
)
def test_what_cannot_be_read_is_said_in_place_of_the_answer(client: TestClient, row: dict[str, Any], told: str) -> None:
    page = ask(client, row)
    assert 'role="alert"' in page
    assert told in page
    assert "said" not in page


def test_media_that_are_none_or_too_large_are_refused_before_they_are_decoded(client: TestClient) -> None:
    wide = io.BytesIO()
    from PIL import Image

    Image.new("1", (6000, 5000)).save(wide, "PNG")  # 30 megapixels in a few kilobytes
    assert "pixels" in ask(client, {"photo": upload(client, "wide.png", wide.getvalue())})
    assert "no image that can be read" in ask(client, {"photo": upload(client, "x.svg", b"<svg onload='alert(1)'/>")})
    assert "no recording" in ask(client, {"sound": upload(client, "x.wav", b"RIFF")})
    assert client.post("/gradio_api/upload", files={"files": ("a", b"0" * (2 << 20))}).status_code == 413


def test_the_page_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    scripts = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in scripts
    assert scripts.count("sha256-") >= 3
    assert "default-src 'none'" in policy
    for kind in ("src", "href"):
        assert not [url for url in re.findall(rf'\s{kind}="([^"]*)"', page.text) if re.match(r"[a-z]*:?//", url)]
    style = client.get("/theme.css").text
    assert "system-ui" in style
    assert not re.findall(r"@import|//[a-z]", style.replace("http://www.w3.org/2000/svg", ""))


CLOSED = [
    ("GET", "/config"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/openapi.json"),
    ("GET", "/gradio_api/app_id"),
    ("GET", "/gradio_api/file=/etc/passwd"),
    ("GET", "/gradio_api/file=https://example.org/a.png"),
    ("GET", "/gradio_api/proxy=https://example.org/"),
    ("GET", "/gradio_api/heartbeat/a"),
    ("GET", "/gradio_api/queue/data?session_hash=a"),
    ("GET", "/monitoring"),
    ("GET", "/manifest.json"),
    ("GET", "/assets/%2e%2e/%2e%2e/%2e%2e/routes.py"),
    ("GET", "/static/../../routes.py"),
    ("GET", "/nothing"),
    ("POST", "/login"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/call/predict"),
    ("POST", "/gradio_api/api/predict"),
    ("POST", "/gradio_api/component_server"),
    ("DELETE", "/"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_all_else_of_gradio_is_closed(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_uploads_are_given_out(client: TestClient, tmp_path: Path) -> None:
    sent = upload(client, "a.html", b"<script>alert(1)</script>")
    found = client.get(f"/gradio_api/file={sent['path']}")
    assert found.content == b"<script>alert(1)</script>"
    assert "sandbox" in found.headers["content-security-policy"]
    assert found.headers["content-disposition"].startswith("attachment")
    folder = Path(sent["path"]).parent.parent
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    (folder / "link.png").symlink_to(secret)
    for way in (f"{folder}/link.png", f"{sent['path']}/../../../{secret.name}", f"{folder}/../{secret}", str(secret)):
        assert inside(way, folder) is None
        assert client.get(f"/gradio_api/file={way}").status_code == 404
    (folder / "link.png").unlink()


def test_a_request_that_the_page_would_not_send_is_refused(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(np.zeros((4, 4), np.uint8)))
    meta = {"meta": {"_type": "gradio.FileData"}}
    good: list[Any] = [None] * 8
    for data in (
        [*good],
        [*good, [], []],
        [*good, ["elsewhere"]],
        [*good, None],
        [*good, [[]]],
        [{"path": str(tmp_path / "a.png"), **meta}, *good[1:], []],
        [{"path": "/etc/passwd", **meta}, *good[1:], []],
        [{"path": "http://127.0.0.1:1/a.png", **meta}, *good[1:], []],
        [{"path": "x", "url": "http://127.0.0.1:1/a.png", **meta}, *good[1:], []],
        [{"url": "data:image/png;base64,AAAA", "path": None, **meta}, *good[1:], []],
        ["/etc/passwd", *good[1:], []],
        [*good[:2], {"path": "/etc/passwd", **meta}, *good[3:], []],
        [*good[:3], 3, *good[4:], []],
        {"a": 1},
        None,
    ):
        assert client.post("/gradio_api/run/predict", json={"data": json.loads(json.dumps(data))}).status_code == 422
    for body in (b"", b"\xff", b"[]", b"3", b'{"data": "abc"}', b"[" * 100_000, b'{"fn_index": 0}'):
        assert client.post("/gradio_api/run/predict", content=body).status_code == 422
    assert client.post("/gradio_api/run/predict", content=b"0" * (2 << 20)).status_code == 413
    assert "role" in client.post("/gradio_api/run/predict", json={"data": [*good, []], "fn_index": 99}).text


def test_uploads_that_are_none_are_refused_and_names_lead_nowhere(client: TestClient) -> None:
    whole = b'--x\r\nContent-Disposition: form-data; name="files"; filename="%s"\r\n\r\ndata\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}

    def status(body: bytes, headers: dict[str, str] = kind) -> int:
        return client.post("/gradio_api/upload", content=body, headers=headers).status_code

    good = whole % b"a.png"
    assert status(good) == 200
    assert 400 <= status(b"{}", {"content-type": "application/json"}) < 500
    assert 400 <= status(good, {"content-type": "multipart/form-data"}) < 500
    rng = np.random.default_rng(0)
    for _ in range(60):
        body = bytearray(good)
        for place in rng.integers(len(body), size=3):
            body[place] = rng.integers(256)
        assert status(bytes(body[: rng.integers(len(body) + 1)])) < 500
    for name in (b"../../../etc/a", b"/etc/a", b"..", b"a\x00b", b"." * 300, b"\xff\xfe"):
        answer = client.post("/gradio_api/upload", content=whole % name, headers=kind)
        assert answer.status_code < 500
        if answer.status_code == 200:
            folder = Path(os.environ["GRADIO_TEMP_DIR"])
            assert all(inside(path, folder) is not None for path in answer.json())


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.sampled_from(["data", "path", "url"]), inner),
        max_leaves=20,
    )
)
@settings(max_examples=60)
def test_nothing_but_inputs_goes_through_the_door(said: Any) -> None:
    door = Door(None, Path("/nowhere"), media=[True, False], names=["image"], room=1, most=1 << 20)  # type: ignore[arg-type]
    for body in (said, {"data": said}, {"data": [said, None, []]}, {"data": [None, said, ["image"]]}):
        checked = door.checked(json.dumps(body).encode())
        if checked is not None:
            [media, text, gone] = json.loads(checked)["data"]
            assert media is None
            assert text is None or isinstance(text, str)
            assert gone in ([], ["image"])


def test_uploads_have_so_much_room(tmp_path: Path) -> None:
    now = time.time()
    for i, age in enumerate((7200, 30, 20, 10)):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "file").write_bytes(b"0" * 1000)
        os.utime(folder, (now - age, now - age))
    make_room(tmp_path, 10_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3"]
    make_room(tmp_path, 2000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3"]


def test_uploads_are_gone_at_the_end(predictor: pf.Predictor) -> None:
    with TestClient(make_app(predictor, SETTINGS, logs=Logs(io.StringIO()))) as client:
        path = Path(upload(client, "a.png", b"0")["path"])
        assert path.is_file()
    assert not path.parent.parent.exists()


def test_workers_share_their_uploads(predictor: pf.Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UPLOADS, str(tmp_path))
    one, other = (TestClient(make_app(predictor, SETTINGS, logs=Logs(io.StringIO()))) for _ in range(2))
    with one, other:
        sent = upload(one, "p.png", png(np.zeros((8, 8), np.uint8)))
        assert "absent" in ask(other, {"photo": sent})
        assert figures(ask(other, {"photo": sent}), "What each modality gave")["image"] != "absent"
    assert Path(sent["path"]).is_file()


def test_a_key_is_asked_for_where_there_is_one(predictor: pf.Predictor) -> None:
    key = "k" * 24
    closed = Asked(predictor, keys=(key,), page=None)
    assert closed("GET", "/", headers={"X-API-Key": key}).status_code == 404  # not a second way in by itself
    closed.close()
    asked = Asked(predictor, keys=(key,), page=True)
    for method, path in (("GET", "/"), ("GET", "/theme.css"), ("POST", "/gradio_api/run/predict")):
        answer = asked(method, path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic")
        assert asked(method, path, auth=("me", "x" * 24)).status_code == 401
        assert asked(method, path, auth=("me", key)).status_code == (200 if method == "GET" else 422)
    asked.close()


def test_what_the_page_asks_is_counted_and_its_files_are_not(predictor: pf.Predictor) -> None:
    limited = Asked(predictor, rate=0.01, burst=2, page=True)
    for _ in range(5):
        assert limited("GET", "/theme.css").status_code == 200
    found = [limited("POST", "/gradio_api/run/predict").status_code for _ in range(3)]
    assert found == [422, 422, 429]
    limited.close()


def test_what_is_usual_stands_there_at_first(predictor: pf.Predictor) -> None:
    found = {column.name: usual(column) for column in predictor.schema.columns}
    assert found["shop"] in ("north", "south")
    assert float(found["size in cm"] or "nan") == pytest.approx(0.5, abs=1)
    assert (found["day"] or "").startswith("202")
    assert found["note"] is found["photo"] is found["vector"] is None
    assert usual(Column(name="a", type="datetime", quantiles=[1e300])) is None


def test_every_kind_of_answer_is_shown_and_escaped(several: pf.Predictor) -> None:
    schema = several.schema
    shares = [
        Share("label", "<yes>", 0.5, 0.9, {"image": 0.6, "audio": -0.2, "text": 0.0}),
        Share("price", None, 10.0, 12.5, {"image": 2.5, "audio": 0.0, "text": 0.0}),
    ]
    label = Said("<yes>", {"<yes>": 0.9, "no": 0.1}, labels=["<yes>"])
    told = Told({"label": label, "price": Said(12.5, low=11.0, high=14.0)}, ["image", "audio"], 0.97, True)
    page = answered(schema, Explained(told, shares), told, 0.9)
    assert "<yes>" not in page
    assert "between 11 and 14" in page
    assert "12.5" in page
    assert "Suspicious" in page
    assert "text" in figures(
        page.replace("What each modality gave to", "", 1).split("price: what")[1], "What each modality gave"
    )
    tags = Told({"label": Said([], {"a": 0.2}), "price": Said(1.0)}, [])
    empty = answered(schema, Explained(tags, []), None, 0.0)
    assert "none of them" in empty
    assert "Nothing was given" in empty
    shown = card(schema, several.metrics)
    assert "price: a number" in shown
    assert "label: one of 2 labels" in shown
    assert "On its validation rows" in shown


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no Chromium here")
def test_a_person_uploads_asks_and_leaves_one_out(app: FastAPI, client: TestClient, tmp_path: Path) -> None:
    import uvicorn
    from playwright.sync_api import expect, sync_playwright

    (tmp_path / "p.png").write_bytes(png(np.full((10, 10), 170, np.uint8)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    asked, complaints = list[str](), list[str]()
    try:
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 390, "height": 844})
            page.set_default_timeout(60_000)
            expect.set_options(timeout=60_000)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.goto(f"http://127.0.0.1:{port}/")
            page.get_by_label("note").fill("a good day")
            page.set_input_files("input[type=file] >> nth=0", tmp_path / "p.png")
            page.locator("img[src*='file=']").wait_for()
            page.get_by_role("button", name="Answer").press("Enter")
            gave = page.get_by_role("table", name="What each modality gave")
            expect(gave.get_by_role("row", name="image")).to_contain_text(re.compile(r"[+-]\d"))
            expect(gave.get_by_role("row", name="audio")).to_contain_text("absent")
            page.get_by_role("checkbox", name="image").check()
            page.get_by_role("button", name="Answer").click()
            expect(gave.get_by_role("row", name="image")).to_contain_text("absent")
            wide = page.evaluate("document.documentElement.scrollWidth")
            browser.close()
    finally:
        server.should_exit = True
        thread.join(20)
    assert wide <= 390
    assert not complaints
    outside = [url for url in asked if not url.startswith((f"http://127.0.0.1:{port}/", "blob:", "data:"))]
    assert not outside
