"""Drawings in SVG, in the colours of the page that they stand on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from polyfuse.evaluation.report import Confusion, number_text
from polyfuse.metrics.bootstrap import Interval

#: Colours that differ for the colour-blind too (Okabe and Ito 2008), dark enough on white and light enough on black.
SERIES = ("var(--mark)", "var(--base)", "var(--third)", "var(--fourth)", "var(--fifth)", "var(--soft)")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")


def dots(at: Interval, base: float) -> str:
    """Draw a value with its interval, and the prior as a ring, on a line from 0 to 1 or to the greatest of them."""
    known_ones = [x for x in (at.value, at.low, at.high, base) if not math.isnan(x)]
    if math.isnan(at.value):
        return ""
    least, most = min(0.0, *known_ones), max(1.0, *known_ones)

    def x(value: float) -> float:
        return 6 + 148 * (value - least) / (most - least)

    drawn = ['<line x1="6" x2="154" y1="10" y2="10" stroke="var(--line)"/>']
    if not math.isnan(at.low):
        drawn.append(
            f'<line x1="{x(at.low):.1f}" x2="{x(at.high):.1f}" y1="10" y2="10" stroke="var(--mark)" stroke-width="4"/>'
        )
    if not math.isnan(base):
        drawn.append(f'<circle cx="{x(base):.1f}" cy="10" r="4" fill="none" stroke="var(--base)" stroke-width="2"/>')
    drawn.append(f'<circle cx="{x(at.value):.1f}" cy="10" r="5" fill="var(--mark)"/>')
    said = f"{number_text(at.value)} (dot), prior {number_text(base)} (ring), on a line from {least:.3g} to {most:.3g}"
    return svg(160, 20, said, "".join(drawn))


def heat(confusion: Confusion) -> str:
    """Draw a confusion matrix: each cell darker with its share of the true label's rows."""
    names, counts = confusion.names, np.asarray(confusion.counts)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    cell = 44 if len(names) <= 12 else 30
    left = 24 + 7 * min(16, max(len(name) for name in names)) + 8
    top = 40 if all(len(name) <= 4 for name in names) else 30 + 6 * min(16, max(len(name) for name in names))
    drawn = [f'<text x="{left + cell * len(names) / 2:.0f}" y="14" text-anchor="middle" class="soft">answered</text>']
    drawn.append(
        f'<text transform="translate(12 {top + cell * len(names) / 2:.0f}) rotate(-90)" text-anchor="middle"'
        ' class="soft">true</text>'
    )
    for i, name in enumerate(names):
        short, middle = escape(name if len(name) <= 16 else f"{name[:8]}…{name[-7:]}"), cell * i + cell / 2
        turn = "" if top == 40 else " rotate(-45)"
        anchor = "middle" if top == 40 else "start"
        drawn.append(f'<text x="{left - 8}" y="{top + middle + 4:.0f}" text-anchor="end">{short}</text>')
        drawn.append(
            f'<text transform="translate({left + middle:.0f} {top - 8}){turn}" text-anchor="{anchor}">{short}</text>'
        )
        for j, other in enumerate(names):
            share = shares[i, j]
            drawn.append(
                f"<g><title>{escape(name)} answered as {escape(other)}: {counts[i, j]} ({share:.0%})</title>"
                f'<rect x="{left + cell * j}" y="{top + cell * i}" width="{cell - 1}" height="{cell - 1}" '
                f'fill="var(--mark)" fill-opacity="{0.05 + 0.85 * share:.3f}"/>'
            )
            if counts[i, j]:
                fill = ' style="fill: var(--paper)"' if share > 0.7 else ""
                drawn.append(
                    f'<text x="{left + cell * j + cell / 2:.0f}" y="{top + cell * i + cell / 2 + 4:.0f}" '
                    f'text-anchor="middle"{fill}>{counts[i, j]}</text>'
                )
            drawn.append("</g>")
    width, height = left + cell * len(names) + (0 if top == 40 else 70), top + cell * len(names) + 4
    said = f"Confusion matrix of {len(names)} labels, {int(np.trace(counts))} of {counts.sum()} rows on the diagonal"
    return svg(width, height, said, "".join(drawn))


def scatter(points: list[tuple[float, float]]) -> str:
    """Draw predicted over true values with the line on which they agree."""
    least, most = min(min(pair) for pair in points), max(max(pair) for pair in points)
    span = (most - least) or 1.0

    def at(value: float) -> float:
        return 330 * (value - least) / span

    dots = "".join(
        f'<circle cx="{60 + at(true):.1f}" cy="{345 - at(predicted):.1f}" r="3.5"/>' for true, predicted in points
    )
    labels = "".join(
        f'<text x="{60 + at(v):.0f}" y="368" text-anchor="{"start" if v == least else "end"}">{v:.4g}</text>'
        f'<text x="52" y="{349 - at(v):.0f}" text-anchor="end">{v:.4g}</text>'
        for v in dict.fromkeys((least, most))
    )
    drawn = (
        '<rect x="60" y="15" width="330" height="330" fill="none" stroke="var(--line)"/>'
        '<line x1="60" y1="345" x2="390" y2="15" stroke="var(--base)" stroke-dasharray="5 4"/>'
        f'<g fill="var(--mark)" fill-opacity="0.45">{dots}</g>{labels}'
        '<text x="225" y="388" text-anchor="middle" class="soft">true</text>'
        '<text transform="translate(16 180) rotate(-90)" text-anchor="middle" class="soft">predicted</text>'
    )
    return svg(420, 395, f"Predicted over true values, {len(points)} rows", drawn)


def svg(width: float, height: float, said: str, drawn: str) -> str:
    """Return a drawing, with what a screen reader says of it."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{said}">{drawn}</svg>'


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    x: str,
    y: str,
    said: str,
    *,
    diagonal: bool = False,
    level: float | None = None,
    unit: bool = True,
    marks: bool = False,
    joined: bool = True,
) -> str:
    """Draw curves, with a legend where there are several.

    Args:
        curves: name to points.
        x: what the horizontal axis is.
        y: what the vertical one is.
        said: what a screen reader says.
        diagonal: whether the line on which both agree is drawn.
        level: where a horizontal line is drawn.
        unit: whether both axes go from 0 to 1; else as far as the points.
        marks: whether each point gets a dot.
        joined: whether points are joined by a line.
    """
    points = [point for some in curves.values() for point in some if all(map(math.isfinite, point))]
    if not points:
        return ""
    (left, right), (bottom, top) = ((0.0, 1.0), (0.0, 1.0)) if unit else (_span(points, 0), _span(points, 1))

    def px(value: float) -> float:
        return 46 + 244 * (value - left) / (right - left)

    def py(value: float) -> float:
        return 222 - 210 * (value - bottom) / (top - bottom)

    drawn = ['<rect x="46" y="12" width="244" height="210" fill="none" stroke="var(--line)"/>']
    if diagonal:
        drawn.append('<line x1="46" y1="222" x2="290" y2="12" stroke="var(--soft)" stroke-dasharray="3 4"/>')
    if level is not None and bottom <= level <= top:
        drawn.append(
            f'<line x1="46" x2="290" y1="{py(level):.1f}" y2="{py(level):.1f}" stroke="var(--soft)"'
            ' stroke-dasharray="3 4"/>'
        )
    for i, some in enumerate(curves.values()):
        places = [(px(a), py(b)) for a, b in some if math.isfinite(a) and math.isfinite(b)]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        colour, dash = SERIES[i % len(SERIES)], _DASHES[i // len(SERIES) % len(_DASHES)]
        if joined:
            drawn.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
            )
        if marks or len(places) == 1:
            drawn += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places]
    for value, anchor in ((left, "start"), (right, "end")):
        drawn.append(f'<text x="{px(value):.0f}" y="238" text-anchor="{anchor}">{value:.3g}</text>')
    for value in (bottom, top):
        drawn.append(
            f'<text x="41" y="{py(value) + (0 if value == bottom else 10):.0f}" text-anchor="end">{value:.3g}</text>'
        )
    drawn.append(f'<text x="168" y="252" text-anchor="middle" class="soft">{escape(x)}</text>')
    drawn.append(
        f'<text transform="translate(12 117) rotate(-90)" text-anchor="middle" class="soft">{escape(y)}</text>'
    )
    height = 260
    if len(curves) > 1:
        for i, name in enumerate(curves):
            across, down = 46 + 126 * (i % 2), 272 + 18 * (i // 2)
            dash = _DASHES[i // len(SERIES) % len(_DASHES)]
            drawn.append(
                f'<line x1="{across}" x2="{across + 18}" y1="{down}" y2="{down}" stroke="{SERIES[i % len(SERIES)]}"'
                f' stroke-width="3" stroke-dasharray="{dash}"/>'
                f'<text x="{across + 24}" y="{down + 4}">{escape(short(name, 15))}</text>'
            )
        height = 282 + 18 * ((len(curves) - 1) // 2)
    return svg(304, height, said, "".join(drawn))


def bar(at: Interval, least: float, most: float) -> str:
    """Draw a value with its interval on a line from `least` to `most`, with a mark at 0."""
    if math.isnan(at.value) or not most > least:
        return ""

    def x(value: float) -> float:
        return 6 + 148 * (min(max(value, least), most) - least) / (most - least)

    drawn = ['<line x1="6" x2="154" y1="10" y2="10" stroke="var(--line)"/>']
    if least < 0 < most:
        drawn.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="2" y2="18" stroke="var(--soft)"/>')
    if not math.isnan(at.low):
        drawn.append(
            f'<line x1="{x(at.low):.1f}" x2="{x(at.high):.1f}" y1="10" y2="10" stroke="var(--mark)" stroke-width="4"'
            ' stroke-opacity="0.5"/>'
        )
    drawn.append(f'<circle cx="{x(at.value):.1f}" cy="10" r="5" fill="var(--mark)"/>')
    return f'<svg width="160" height="20" viewBox="0 0 160 20" aria-hidden="true">{"".join(drawn)}</svg>'


def forest(rows: Mapping[str, Interval], heading: str, unit: str = "Value") -> str:
    """Return a table of values with their intervals, each drawn on one scale.

    Args:
        rows: name to value.
        heading: of the names.
        unit: of the values.
    """
    ends = [x for at in rows.values() for x in (at.value, at.low, at.high) if math.isfinite(x)]
    least, most = min([0.0, *ends]), max([0.0, *ends])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="drawn">{bar(at, least, most)}</td>'
        f"<td>{number_text(at.value)}</td><td>{between(at)}</td></tr>"
        for name, at in rows.items()
    )
    heads = (
        f'<th scope="col">{escape(heading)}</th><th scope="col" class="drawn">On one scale</th>'
        f'<th scope="col">{escape(unit)}</th><th scope="col">Interval</th>'
    )
    return scrolled(f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>", heading)


def between(at: Interval) -> str:
    """Return the bounds of an interval, or a dash."""
    return "–" if math.isnan(at.low) else f"{number_text(at.low)} to {number_text(at.high)}"


def scrolled(inside: str, said: str) -> str:
    """Return something that may be wider than the page, in a part that scrolls, by the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(said)}">{inside}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], said: str) -> str:
    """Return a table; the first cell of each row is its heading. Cells are HTML."""
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return scrolled(f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>", said)


def short(text: str, most: int) -> str:
    """Return a text, its middle left out where it is longer.

    >>> short("a long label", 7)
    'a l…bel'
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"


def _span(points: Sequence[tuple[float, float]], axis: int) -> tuple[float, float]:
    values = [point[axis] for point in points]
    least, most = min(values), max(values)
    return (least, most) if most > least else (least - 0.5, most + 0.5)
