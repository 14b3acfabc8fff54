"""Why it answered so."""

from __future__ import annotations

import base64
import io
import math
from html import escape
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from polyfuse.evaluation.drawing import bar, svg, table
from polyfuse.evaluation.report import number_text
from polyfuse.explanation import (
    AudioPart,
    CloudPart,
    Counterfactuals,
    ImagePart,
    Part,
    RowExplanation,
    TablePart,
    TextPart,
)
from polyfuse.explanation.parts import short
from polyfuse.explanation.saving import AGAINST, FOR, colours, overlay, strength
from polyfuse.metrics.bootstrap import Interval
from polyfuse.reporting.cases import Cases

_WORDS = 120  # of a text that are shown
_POINTS = 400  # of a cloud that are drawn
_SIDE = 192  # pixels to which small images are enlarged
_METHODS = {
    "integrated_gradients": "integrated gradients",
    "occlusion": "occlusion",
    "gradient_input": "gradient × input",
    "rollout": "attention roll-out",
}
_NONE = {
    "columns": "No change of up to three columns",
    "removed": "No modality taken away",
    "swapped": "No modality of another row",
}


def draw(part: Cases, about: dict[str, Any]) -> str:
    """Draw a card for each row."""
    found = part.explanations
    head = (
        f"<p>A few rows that tell most. Orange speaks for the answer, blue against it (the {escape(found.explains)})."
        " Each map says how far it can be believed: where its strongest places are taken away first (deletion), or put"
        " back first (insertion), the answer should change sooner than in a random order. The two figures are by how"
        " much it does.</p>"
    )
    cards = [_card(why, truth, row) for why, truth, row in zip(part.why, part.truths, found.rows, strict=True)]
    return head + "".join(cards)


def _card(why: str, truth: Any, row: RowExplanation) -> str:
    sure = f", {_sure(row.score)} sure" if row.score is not None else ""
    lines = [
        f'<div class="case"><h3>{escape(why.capitalize())}: row {escape(row.row)}</h3>',
        f"<p>Answered <b>{escape(_said(row.answer))}</b>{sure}; the truth is <b>{escape(_said(truth))}</b>.</p>",
    ]
    for name, part in row.parts.items():
        lines += [f"<h4>{escape(name)}</h4>", _part(part), f'<p class="lead">{_believed(part)}</p>']
    if row.counterfactuals is not None:
        lines.append(_otherwise(row.counterfactuals))
    if row.neighbours:
        near = [
            [escape(f"row {one.row}"), escape(_said(one.truth)), escape(_said(one.answer)), number_text(one.distance)]
            for one in row.neighbours
        ]
        lines.append("<h4>Most alike among the training rows</h4>")
        lines.append(table(["Row", "Truth", "Answer", "Distance"], near, "Nearest"))
    return "".join(lines) + "</div>"


def _part(part: Part) -> str:
    if isinstance(part, ImagePart):
        plain = Image.fromarray(part.image)
        factor = max(1, _SIDE // max(plain.size))
        enlarged = plain.resize((plain.width * factor, plain.height * factor), Image.Resampling.NEAREST)
        veiled = overlay(part).resize(enlarged.size, Image.Resampling.NEAREST)
        return (
            f'<div class="plots">{_image(enlarged, "The image as the model reads it")}'
            f"{_image(veiled, 'The same under the weights of its pixels')}</div>"
        )
    if isinstance(part, TextPart):
        return _words(part)
    if isinstance(part, AudioPart):
        return _sound(part)
    if isinstance(part, CloudPart):
        return _cloud(part)
    assert isinstance(part, TablePart)
    most = max([abs(weight) for weight in part.weights], default=0.0) or 1.0
    rows = [
        [
            f"{escape(name)} <small>{escape(short(value))}</small>",
            bar(Interval(weight, math.nan, math.nan), -most, most),
            f"{weight:.2g}",
        ]
        for name, value, weight in sorted(
            zip(part.names, part.values, part.weights, strict=True), key=lambda one: -abs(one[2])
        )[:12]
    ]
    return table(["Column", "On one scale", "Weight"], rows, "Weights of the columns")


def _words(part: TextPart) -> str:
    shares = strength(np.asarray(part.weights, dtype=np.float64)).tolist()
    said = []
    for word, share in list(zip(part.words, shares, strict=True))[:_WORDS]:
        rgb = ",".join(map(str, FOR if share > 0 else AGAINST))
        said.append(f'<mark style="background:rgba({rgb},{0.4 * abs(share):.2f})">{escape(word)}</mark>')
    more = f" … and {len(part.words) - _WORDS} more words" if len(part.words) > _WORDS else ""
    return f'<p class="words">{" ".join(said)}{more}</p>'


def _sound(part: AudioPart) -> str:
    mel = np.flipud(part.mel)
    low, high = float(mel.min()), float(mel.max())
    grey = 255 - (255 * (mel - low) / (high - low or 1)).round()
    width = max(mel.shape[1], 1)
    at = np.linspace(0, len(part.weights) - 1, width).round().astype(int)
    veil, share = colours(part.weights)[at][None], np.abs(strength(part.weights))[at][None, :, None] * 0.6
    mixed = grey[..., None] * (1 - share) + veil * share
    made = Image.fromarray(mixed.clip(0, 255).astype(np.uint8)).resize((560, 120), Image.Resampling.BILINEAR)
    said = f"The spectrogram (time to the right, {part.seconds:.2f} s; pitch upwards) under its weights"
    return _wave(part) + _image(made, said)


def _wave(part: AudioPart) -> str:
    """Draw the waveform between its least and greatest samples."""
    most = float(np.abs(part.wave).max(initial=0.0)) or 1.0
    x = np.linspace(0, 560, len(part.wave))
    upper, lower = (30 - 28 * part.wave[:, side] / most for side in (1, 0))
    points = [*zip(x, upper, strict=True), *zip(x[::-1], lower[::-1], strict=True)]
    path = " ".join(f"{a:.0f},{b:.1f}" for a, b in points)
    drawn = svg(560, 60, "The waveform", f'<polygon points="{path}" fill="var(--soft)"/>')
    return f"<figure>{drawn}<figcaption>The waveform.</figcaption></figure>"


def _cloud(part: CloudPart) -> str:
    """Draw the points as they are seen along each axis; those with the least weights lie at the back."""
    middle, half = (part.places.max(0) + part.places.min(0)) / 2, float(np.ptp(part.places, axis=0).max()) / 2 or 1.0
    seen = np.argsort(np.abs(part.weights))[-_POINTS:]
    at, tints = 80 + 74 * (part.places[seen] - middle) / half, colours(part.weights[seen])
    views = list(combinations(range(part.places.shape[1]), 2))
    dots = [
        f'<circle cx="{160 * i + place[a]:.0f}" cy="{160 - place[b]:.0f}" r="2" stroke="var(--soft)"'
        f' stroke-width=".4" fill="rgb({",".join(map(str, tint))})"/>'
        for i, (a, b) in enumerate(views)
        for place, tint in zip(at, tints.tolist(), strict=True)
    ]
    said = " and ".join(f"{'xyz'[b]} over {'xyz'[a]}" for a, b in views)
    drawn = svg(160 * len(views), 160, "The points under their weights", "".join(dots))
    return f"<figure>{drawn}<figcaption>The points under their weights: {said}.</figcaption></figure>"


def _image(image: Image.Image, said: str) -> str:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", optimize=True)
    code = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return (
        f'<figure><img {size} alt="{escape(said)}" src="data:image/png;base64,{code}">'
        f"<figcaption>{escape(said)}.</figcaption></figure>"
    )


def _believed(part: Part) -> str:
    """Say how a map was made, and how far it can be believed."""
    over = f" beside {escape(part.baseline)}" if part.baseline else ""
    off = f" (its sum is off by {part.convergence.relative:.1%})" if part.convergence is not None else ""
    said = [f"By {_METHODS.get(part.method, escape(part.method))}{over}{off}."]
    if not part.class_specific:
        said.append("It says where the model looks, not what speaks for this answer.")
    for one in part.faithfulness:
        better = one.deletion.gain > 0 and one.insertion.gain > 0
        gains = f"{one.deletion.gain:.2g}, {one.insertion.gain:.2g}"
        said.append(f"Over {escape(one.baseline)} {'better' if better else 'no better'} than chance ({gains}).")
    return " ".join(said)


def _otherwise(found: Counterfactuals) -> str:
    lines = []
    for kind, one in {"columns": found.columns, "removed": found.removed, "swapped": found.swapped}.items():
        if not found.tried[kind]:
            continue
        if one is None:
            lines.append(f"{_NONE[kind]} turns the answer ({found.tried[kind]} tried).")
            continue
        changes = ", ".join(
            f"{change.column} {short(change.after)} in place of {short(change.before)}"
            if change.column
            else f"{change.modality} {change.after}"
            for change in one.changes
        )
        lines.append(f"With {changes}, it would answer {_said(one.answer)}.")
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<h4>What would change the answer</h4><ul class="plain">{items}</ul>' if items else ""


def _sure(score: float) -> str:
    """Return a probability; nothing is 100 % sure."""
    return f"{score:.0%}" if score < 0.995 else "over 99%"


def _said(answer: Any) -> str:
    if isinstance(answer, list | tuple | set):
        return ", ".join(map(str, answer)) or "none"
    return short(answer)
