"""An input of the page for each column, and the way from what a browser sends to the cells of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyfuse.core.errors import import_extra
from polyfuse.data.cells import CellError, embedding, moment, number, shown
from polyfuse.data.media import MEDIA_TYPES, POINTS_ENDINGS
from polyfuse.data.schema import Column, Schema
from polyfuse.serving.page.door import inside


@dataclass(frozen=True)
class Field:
    """One input.

    Attributes:
        column: whose cell it asks for.
        component: of gradio.
    """

    column: Column
    component: Any

    @property
    def media(self) -> bool:
        """Whether a file is sent."""
        return self.column.type in MEDIA_TYPES


def field_of(column: Column) -> Field:
    """Return the input for a column, made inside a gradio layout; it begins with what is usual in the training rows."""
    gr = import_extra("gradio", "ui", "the page")
    name = column.name
    if column.type == "image":
        sources = ["upload", "webcam", "clipboard"]
        made = gr.Image(label=name, type="filepath", image_mode=None, sources=sources, height=240, buttons=[])
    elif column.type == "audio":
        made = gr.Audio(label=name, type="filepath", sources=["upload", "microphone"], buttons=[])
    elif column.type == "points":
        made = gr.File(label=f"{name} (NPY, PLY, XYZ)", type="filepath", file_types=sorted(POINTS_ENDINGS), height=120)
    elif column.type == "category":
        # A level that is new is a normal case: the model knows what to do with it.
        made = gr.Dropdown(column.levels, value=usual(column), label=name, allow_custom_value=True)
    elif column.type == "text":
        made = gr.Textbox(label=name, lines=2, max_lines=12, placeholder="any text")
    else:
        # An empty gr.Number shows and sends 0, and that is another thing than nothing.
        made = gr.Textbox(label=name, value=usual(column), placeholder=_hint(column), autoscroll=False)
    if column.type in MEDIA_TYPES:
        made.preprocess = _path  # the file as it came: gradio would decode it, and write another
    return Field(column, made)


def usual(column: Column) -> str | None:
    """Return what is usual in a column's training rows, as it would be typed: nothing for text, media and vectors.

    >>> usual(Column(name="age", type="number", quantiles=[1.0, 30.5, 90.0]))
    '30.5'
    >>> usual(Column(name="when", type="datetime", quantiles=[0.0]))
    '1970-01-01'
    """
    if column.type == "category":
        return column.levels[0] if column.levels else None
    if column.type not in ("number", "datetime") or not column.quantiles:
        return None
    middle = column.quantiles[len(column.quantiles) // 2]
    if column.type == "number":
        return f"{middle:.6g}"
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(middle, UTC).date().isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def row_of(schema: Schema, fields: Sequence[Field], values: Sequence[Any], gone: Sequence[str], folder: Path) -> Any:
    """Return the row that was typed and uploaded; what is empty is absent.

    Args:
        schema: of the model.
        fields: of the page.
        values: of each.
        gone: modalities that are left out.
        folder: where uploads are.

    Raises:
        CellError: a field does not hold what its column's type says.
    """
    left_out = {column for name in gone for column in schema.modalities[name]}
    row: dict[str, Any] = {}
    for field, value in zip(fields, values, strict=True):
        if field.column.name in left_out or value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            row[field.column.name] = _cell(field.column, value, folder)
        except CellError as error:
            raise CellError(f"{field.column.name!r}: {error}") from error
    return row


def _cell(column: Column, value: str, folder: Path) -> Any:
    if column.type in MEDIA_TYPES:
        path = inside(value, folder)
        if path is None:
            raise CellError("the file is gone; upload it again")
        return path.read_bytes()
    if column.type == "number":
        found = number(value)
        if found != found:
            raise CellError("a number is expected", shown(value))
        return found
    if column.type == "datetime" and moment(value) != moment(value):
        raise CellError("a date such as 2026-11-30 is expected, or 2026-11-30T18:00", shown(value))
    return embedding(value, column.size).tolist() if column.type == "embedding" else value


def _hint(column: Column) -> str:
    if column.type == "embedding":
        return f"[0.1, -0.2, …]: {column.size} numbers" if column.size else "[0.1, -0.2, …]"
    return "a number" if column.type == "number" else "2026-11-30"


def _path(payload: Any) -> str | None:
    if payload is None:
        return None
    path: str = payload["path"] if isinstance(payload, Mapping) else payload.path
    return path
