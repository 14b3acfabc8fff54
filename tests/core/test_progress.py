"""Bars, tables and lines on standard error."""

from __future__ import annotations

import time

import pytest

from polyfuse.core.progress import Silent
from polyfuse.progress import RichProgress, make_progress


def test_a_table_stands_above_its_bar_and_stays(capsys: pytest.CaptureFixture[str]) -> None:
    with RichProgress().bar("Comparing", 2) as bar:
        bar.table(["candidate", "loss"], [["linear [bold]x", "0.5"]])
        time.sleep(0.7)
        bar.table(["candidate", "loss"], [["linear [bold]x", "0.4"], ["concat", "0.6"]])
        bar.advance(2, "done")
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert "candidate" in lines[0]
    assert "0.4" in err
    assert "0.5" not in lines[1]
    assert err.index("concat") < err.index("Comparing")
    assert "[bold]" in err, "what stands in a name is no markup"


def test_lines_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    RichProgress().say("about [3] s")
    assert capsys.readouterr().err == "about [3] s\n"
    with Silent().bar("x") as bar:
        bar.table(["a"], [["b"]])
    Silent().say("nothing")
    assert capsys.readouterr() == ("", "")
    assert isinstance(make_progress(False), Silent)
