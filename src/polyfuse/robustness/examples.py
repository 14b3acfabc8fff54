"""Adversarial examples, to look at and to listen to."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image, ImageChops

from polyfuse.core.errors import InputError
from polyfuse.core.files import whole_folder
from polyfuse.core.types import Sound
from polyfuse.data.points import to_npy, to_ply
from polyfuse.data.rows import Rows

_MOST = 20
_LOUDER = 10  # the difference of two images is shown so much larger than it is
_GREY, _RED = (150, 150, 150), (220, 40, 40)
_SCALE = 4  # small images are enlarged, pixel by pixel


def check_free(folder: Path) -> None:
    """Check that examples may be written to a folder.

    Raises:
        InputError: it exists.
    """
    if folder.exists():
        raise InputError(f"examples: {folder} exists; choose another folder")


def write_examples(folder: Path, clean: Rows, found: Rows, before: list[Any], after: list[Any]) -> None:
    """Write the first rows whose answer was changed: media, and all that is words in `examples.json`.

    Clouds as NPY and, to be looked at, as PLY, in which the points that are not in the other one are red.

    Args:
        folder: is made, whole or not at all.
        clean: rows as they are.
        found: the same rows as an attack leaves them.
        before: answers of the model to the rows as they are.
        after: its answers to them as the attack leaves them.
    """
    turned = [row for row in range(len(clean)) if before[row] != after[row]][:_MOST]
    lines = []
    with whole_folder(folder) as temporary:
        for row in turned:
            changes: dict[str, Any] = {}
            for column in clean.schema.columns:
                was, made = clean.cell(column.name, row), found.cell(column.name, row)
                if was is not None and made is not was:
                    changes[column.name] = _written(was, made, temporary, f"{row}-{len(changes)}")
            lines.append(
                {
                    "row": str(clean.index[row]),
                    "truth": str(clean.answers[row]),
                    "before": str(before[row]),
                    "after": str(after[row]),
                    "changed": changes,
                }
            )
        text = json.dumps(lines, ensure_ascii=False, indent=2)
        (temporary / "examples.json").write_text(text + "\n", encoding="utf-8")


def _written(before: Any, after: Any, folder: Path, name: str) -> Any:
    """Write what is seen or heard, and return what the JSON document says of a changed cell."""
    if after is None:
        return "taken away"
    if isinstance(before, Sound):
        files = [f"{name}-{which}.wav" for which in ("before", "after")]
        for file, sound in zip(files, (before, after), strict=True):
            soundfile.write(folder / file, sound.samples, sound.rate, subtype="FLOAT")
        return files
    if isinstance(before, list):
        files = []
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            files.append(f"{name}-{i}.png")
            _side_by_side(one, other).save(folder / files[-1])
            other.save(folder / f"{name}-{i}-after.png")
        return files
    if isinstance(before, str) and " " in before:
        marks = difflib.ndiff(before.split(), after.split())
        return {"before": before, "after": after, "words": [mark for mark in marks if mark[0] in "+-"]}
    if isinstance(before, np.ndarray) and before.ndim == 2:
        files = []
        for which, cloud, other in (("before", before, after), ("after", after, before)):
            known = {point.tobytes() for point in other}
            here = np.array([point.tobytes() in known for point in cloud])
            colours = np.where(here[:, None], _GREY, _RED).astype(np.uint8)
            files += [f"{name}-{which}.npy", f"{name}-{which}.ply"]
            (folder / files[-2]).write_bytes(to_npy(cloud))
            (folder / files[-1]).write_bytes(to_ply(cloud, colours))
        return files
    if isinstance(before, np.ndarray):
        return {"moved": float(np.linalg.norm(after - before)), "length": float(np.linalg.norm(before))}
    return {"before": before, "after": after}


def _side_by_side(before: Image.Image, after: Image.Image) -> Image.Image:
    """Return an image before, after, and what was added, around grey, ten times as strong."""
    before = before.resize(after.size)
    added = ImageChops.subtract(after, before, scale=1 / _LOUDER, offset=128)
    scale = _SCALE if max(after.size) < 128 else 1
    wide, high = after.width * scale, after.height * scale
    whole = Image.new("RGB", (3 * wide, high))
    for i, part in enumerate((before, after, added)):
        whole.paste(part.resize((wide, high), Image.Resampling.NEAREST), (i * wide, 0))
    return whole
