"""Settings are checked before anything starts; every option of the command arrives."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from polyfuse.cli.app import app
from polyfuse.core import threads
from polyfuse.core.errors import InputError
from polyfuse.serving import server
from polyfuse.serving.settings import Settings, with_keys


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"deadline": float("nan")}, "deadline"),
        ({"rate": 0.0}, "rate"),
        ({"port": 70_000}, "port"),
        ({"max_rows": 600}, "the queue holds 512"),
        ({"keys": ("short",)}, "16 printable"),
        ({"keys": ("not printable in ascii ü",)}, "16 printable"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Settings(**given)


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nfirst-key-of-16-chars\n\nsecond-key-of-16-chars\n")
    found = with_keys(Settings(), file, {"POLYFUSE_API_KEY": "third-key-of-16-chars"})
    assert found.keys == ("third-key-of-16-chars", "first-key-of-16-chars", "second-key-of-16-chars")
    assert with_keys(Settings(), None, {}).keys == ()
    file.write_text("# none\n")
    for wrong in (file, tmp_path / "missing"):
        with pytest.raises(InputError, match="key file"):
            with_keys(Settings(), wrong, {})


def test_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(threads, "_QUOTA", tmp_path / "cpu.max")
    assert [Settings(workers=workers).compute_threads() for workers in (1, 2, 3, 20)] == [8, 4, 2, 1]
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert Settings(workers=1).compute_threads() == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert Settings(workers=1, threads=5).compute_threads() == 5
    assert threads.cores() == 8


def test_every_option_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda run, settings: seen.append((run, settings)) or 0)
    monkeypatch.delenv("POLYFUSE_API_KEY", raising=False)
    (tmp_path / "keys").write_text("first-key-of-16-chars\n")
    options = {
        "--host": "0.0.0.0",
        "--port": "81",
        "--workers": "2",
        "--threads": "3",
        "--batch": "5",
        "--window": "7",
        "--queue": "900",
        "--deadline": "11",
        "--max-body": "0.5",
        "--max-rows": "13",
        "--max-megapixels": "0.25",
        "--max-seconds": "17",
        "--max-points": "18",
        "--max-text": "19",
        "--memory": "23",
        "--key-file": str(tmp_path / "keys"),
        "--rate": "29",
        "--burst": "31",
        "--proxy": "10.0.0.1",
        "--log": str(tmp_path / "log"),
        "--log-size": "37",
    }
    call = ["serve", "runs/y", "--page", *(word for pair in options.items() for word in pair)]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert done.exit_code == 0
    [(run, settings)] = seen
    assert run == Path("runs/y")
    assert settings == Settings(
        host="0.0.0.0",
        port=81,
        workers=2,
        threads=3,
        batch=5,
        window_ms=7,
        queue=900,
        deadline=11,
        max_body=1 << 19,
        max_rows=13,
        max_pixels=250_000,
        max_seconds=17,
        max_points=18,
        max_letters=19,
        memory=23 << 20,
        keys=("first-key-of-16-chars",),
        rate=29,
        burst=31,
        proxies=("10.0.0.1",),
        page=True,
        log=tmp_path / "log",
        log_size=37 << 20,
    )
    assert all(getattr(settings, field.name) != field.default for field in fields(Settings))


def test_every_setting_is_read_somewhere() -> None:
    folder = Path(inspect.getfile(server)).parent
    code = "".join(path.read_text() for path in folder.glob("*.py") if path.name != "settings.py")
    unread = [field.name for field in fields(Settings) if f"settings.{field.name}" not in code]
    assert set(unread) <= {"threads", "max_letters"}  # read by compute_threads, and by cells as their limits
