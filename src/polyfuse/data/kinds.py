"""What type a column has.

It is chosen from the cells that are not missing; the first rule that fits decides:

- none: left out.
- arrays (n, c) of decimals with 2 ≤ c ≤ 6 < n, which would be an image of few pixels' width, and lists of at least two
  points, each a list of 2 to 6 numbers, or JSON lists of them: points.
- PIL images, other arrays of two or three axes, lists of images: image.
- (array, rate), `{"array", "sampling_rate"}`: audio.
- bytes, `{"bytes", "path"}`: image, audio or points, by their first bytes or by the ending of the path.
- lists or arrays of numbers, of one length, or JSON lists of them: embedding.
- the same word, number or date in every row: left out as constant.
- booleans; whole numbers of one or two different values: category.
- whole numbers named like an id (`id`, `Clothing ID`, `userId`): left out as an identifier when nine in ten are
  different, else category.
- whole numbers that count the rows (rising, at least every second one used, none missing): left out as an identifier,
  unless the table has nothing else.
- other numbers: number. Dates and times: datetime.
- text that ends like an image (`.png` …), a recording (`.wav` …) or a cloud (`.ply` …) in half of the cells: image,
  audio, points.
- text that is a number (`12`, `1,234`) in nine of ten cells, none with a leading zero: as numbers; the rest is missing.
- text that is an ISO 8601 date or time in nine of ten cells: datetime; the rest is missing.
- text of few different values, each twice on average: category. Few are 10, or a tenth of the cells; of prose, which
  has four words or more on average, only 10.
- text of 1.5 words or more on average: text.
- other text: left out as an identifier when nine in ten are different, else category.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from polyfuse.data.cells import category, is_missing, json_list, number, parse_moment, shown
from polyfuse.data.media import MEDIA_TYPES, named_type, sniff
from polyfuse.data.points import FEWEST, WIDEST
from polyfuse.data.schema import ColumnType

_MOST = 0.9
_FEW = 10
_ID_NAME = re.compile(r"((^|[\s_.-])(id|ids|uuid|guid|idx|index))$|^unnamed: \d+$", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z](Id|ID|Idx)$")
# Chinese, Japanese and Korean are written without spaces: a sign counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_LEADING_ZERO = re.compile(r"0\d+")


@dataclass(frozen=True)
class Guess:
    """What a column is.

    Attributes:
        type: None when its cells are nothing that can be read.
        reason: why it is better left out; empty when it is not.
        counter: whether that is only because its numbers count the rows.
    """

    type: ColumnType | None
    reason: str = ""
    counter: bool = False


def guess_type(name: str, cells: Sequence[Any]) -> Guess:
    """Return what a column is; the rules are above.

    >>> guess_type("price", [1.5, 2.25, None, 3.0]).type
    'number'
    >>> guess_type("code", ["a1", "b2", "c3", "d4"])
    Guess(type='text', reason='identifier: 4 different values in 4 rows', counter=False)
    """
    found = [cell for cell in cells if not is_missing(cell)]
    if not found:
        return Guess(None, "missing in every row")
    kinds = Counter(_kind(cell) for cell in found)
    kind, count = kinds.most_common(1)[0]
    if set(kinds) <= {"text", "number", "boolean", "datetime"}:
        return _guess_scalars(name, found, set(kinds), whole=len(found) == len(cells))
    if count * 2 <= len(found):
        return Guess(None, f"cells of several kinds: {', '.join(sorted(kinds))}")
    if kind == "embedding":
        return _guess_embedding([cell for cell in found if _kind(cell) == kind])
    if kind in MEDIA_TYPES:
        return Guess(MEDIA_TYPES[kind])
    odd = next(cell for cell in found if _kind(cell) == kind)
    return Guess(None, f"its cells hold {shown(odd)}, which is none of the types")


def _kind(cell: Any) -> str:
    """Return the type that one cell speaks for; text, number, boolean and datetime are looked at together."""
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, bool | np.bool_):
        return "boolean"
    if isinstance(cell, float | Real | Decimal | datetime.timedelta | np.timedelta64):
        return "number"
    if isinstance(cell, datetime.date | np.datetime64):
        return "datetime"
    if isinstance(cell, Path):
        return named_type(str(cell)) or "other"
    if isinstance(cell, bytes | bytearray | memoryview):
        return sniff(bytes(cell[:16])) or "other"
    if isinstance(cell, Mapping):
        if "array" in cell:
            return "audio"
        data, path = cell.get("bytes"), cell.get("path")
        if isinstance(path, str) and is_missing(data):
            return named_type(path) or "other"
        return _kind(data) if isinstance(data, bytes) else "other"
    if isinstance(cell, list | tuple) or (isinstance(cell, np.ndarray) and cell.dtype == object):
        first = next((part for part in cell if not is_missing(part)), None)
        # Of many points a few tell; of numbers each could be none.
        some = cell[:_FEW] if isinstance(first, list | tuple | np.ndarray) else cell
        return _kind_of_list([part for part in some if not is_missing(part)])
    if hasattr(cell, "ndim") and hasattr(cell, "shape"):
        if cell.ndim == 2 and FEWEST <= cell.shape[1] <= WIDEST < cell.shape[0] and "float" in str(cell.dtype):
            return "points"
        return "embedding" if cell.ndim == 1 else "image" if cell.ndim in (2, 3) else "other"
    return "image" if type(cell).__module__.startswith("PIL.") else "other"


def _kind_of_list(parts: Sequence[Any]) -> str:
    if len(parts) == 2 and isinstance(parts[0], np.ndarray | list) and isinstance(parts[1], Real):
        return "audio"
    if all(isinstance(part, Real) for part in parts):
        return "embedding"
    kinds = {(named_type(part) if isinstance(part, str) else _kind(part)) or "other" for part in parts[:_FEW]}
    if kinds == {"embedding"} and len(parts) > 1 and all(FEWEST <= len(part) <= WIDEST for part in parts[:_FEW]):
        return "points"
    return "image" if kinds == {"image"} else "other"


def _guess_embedding(vectors: Sequence[Any]) -> Guess:
    lengths = Counter(len(vector) for vector in vectors)
    if lengths.most_common(1)[0][1] < _MOST * len(vectors):
        return Guess("embedding", "lists of numbers of different lengths")
    return Guess("embedding")


def _guess_scalars(name: str, found: Sequence[Any], kinds: set[str], *, whole: bool) -> Guess:
    names = [category(cell) for cell in found]
    constant = whole and len(names) > 1 and len(set(names)) == 1
    guess = _guess_values(name, found, names, kinds, whole=whole)
    if constant:
        return Guess(guess.type, f"constant: every row holds {shown(found[0])}")
    return guess


def _guess_values(name: str, found: Sequence[Any], names: Sequence[str], kinds: set[str], *, whole: bool) -> Guess:
    if kinds == {"number"}:
        return _guess_numbers(name, [number(cell) for cell in found], whole=whole)
    if kinds == {"datetime"}:
        return Guess("datetime")
    if kinds == {"boolean"}:
        return Guess("category")
    media = Counter(named_type(text) for text in names)
    media.pop(None, None)
    if media and media.total() * 2 >= len(names):
        return Guess(media.most_common(1)[0][0])
    lists = [parts for text in names if (parts := json_list(text))]
    vectors = [found for found in lists if all(isinstance(part, Real) for part in found)]
    if len(vectors) >= _MOST * len(names):
        return _guess_embedding(vectors)
    if sum(_kind_of_list(found) == "points" for found in lists) >= _MOST * len(names):
        return Guess("points")
    values = [number(text) for text in names]
    numeric = [value for value in values if value == value]
    if len(numeric) >= _MOST * len(names) and not any(_LEADING_ZERO.fullmatch(text.strip()) for text in names):
        return _guess_numbers(name, numeric, whole=whole and len(numeric) == len(names))
    if sum(parse_moment(text) == parse_moment(text) for text in names) >= _MOST * len(names):
        return Guess("datetime")
    return _guess_text(names)


def _guess_numbers(name: str, values: Sequence[float], *, whole: bool) -> Guess:
    distinct = len(set(values))
    if not all(value.is_integer() for value in values):
        return Guess("number")
    if _ID_NAME.search(name) or _CAMEL_ID.search(name):
        if distinct >= _MOST * len(values):
            return Guess("number", f"identifier: {distinct:,} different values in {len(values):,} rows")
        return Guess("category")
    if distinct <= 2:
        return Guess("category")
    rising = whole and all(a < b for a, b in pairwise(values))
    if rising and values[-1] - values[0] + 1 <= 2 * len(values):
        return Guess("number", "identifier: counts the rows", counter=True)
    return Guess("number")


def _guess_text(texts: Sequence[str]) -> Guess:
    distinct = len(set(texts))
    words = sum(len(_WORD.findall(text[:1000])) for text in texts) / len(texts)
    few = _FEW if words >= 4 else max(_FEW, len(texts) / 10)
    if distinct <= 2 < len(texts) or distinct <= min(few, len(texts) / 2):
        return Guess("category")
    if words >= 1.5:
        return Guess("text")
    if distinct >= _MOST * len(texts):
        return Guess("text", f"identifier: {distinct:,} different values in {len(texts):,} rows")
    return Guess("category")
