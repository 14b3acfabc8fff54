"""One cell: whether it is missing, and what it holds as a value of a column's type."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polyfuse.core.errors import InputError

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_DATE = re.compile(r"\d{4}([-/])\d{2}\1\d{2}([T ]\d{2}:?\d{2}\S*)?")


class CellError(InputError):
    """A cell does not hold what its column's type says.

    Attributes:
        kind: what is wrong, in the same words for every cell of which it is true.
        example: what this cell holds.
    """

    def __init__(self, kind: str, example: str = "") -> None:
        self.kind, self.example = kind, example
        super().__init__(f"{kind}: {example}" if example else kind)


def shown(cell: Any) -> str:
    """Return a cell for a message, shortened.

    >>> shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    if isinstance(cell, str):
        return repr(clean(cell[:60]) + ("…" if len(cell) > 60 else ""))
    if isinstance(cell, Real | Decimal | datetime.date):
        return str(cell)[:60]
    return f"a {type(cell).__name__}"


def is_missing(cell: Any) -> bool:
    """Tell whether a cell holds nothing: None, NaN, NaT, NA, blank text, an empty list, {"bytes": None, "path": None}.

    >>> [is_missing(cell) for cell in (None, float("nan"), " ", [], 0, "x")]
    [True, True, True, True, False, False]
    """
    if type(cell) is float:  # first what most cells are, here and below: to ask for a Real takes five times as long
        return cell != cell
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return True
    if isinstance(cell, str):
        return not cell.strip()
    if isinstance(cell, Decimal):
        return cell.is_nan()
    if isinstance(cell, Real | np.datetime64 | np.timedelta64):
        return bool(cell != cell)
    if isinstance(cell, Mapping):
        return all(is_missing(value) for value in cell.values())
    if isinstance(cell, np.ndarray):
        return cell.size == 0 or (cell.dtype == object and all(is_missing(part) for part in cell.flat))
    if isinstance(cell, list | tuple):
        return all(is_missing(part) for part in cell)
    return False


def clean(text: str) -> str:
    """Return text that UTF-8 can hold: lone surrogates become U+FFFD, everything else stays, NUL too."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def number(cell: Any) -> float:
    """Return a number; NaN where a string does not hold one. Durations are in seconds.

    >>> number("1,234.5"), number("n/a"), number(-(10**400))
    (1234.5, nan, -inf)

    Raises:
        CellError: the cell holds something else.
    """
    if type(cell) is float:
        return cell
    if isinstance(cell, str):
        return parse_number(cell)
    if isinstance(cell, np.bool_):
        return float(cell)
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, np.timedelta64):
        try:
            return float(cell / np.timedelta64(1, "s"))
        except TypeError:
            raise CellError("a duration of a fixed length is expected, not months or years", shown(cell)) from None
    if isinstance(cell, Real | Decimal):
        try:
            return float(cell)
        except OverflowError:
            return math.inf if cell > 0 else -math.inf  # type: ignore[operator]
    raise CellError("a number is expected", shown(cell))


def parse_number(text: str) -> float:
    """Return the number that a string holds, NaN if none."""
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


def moment(cell: Any) -> float:
    """Return a point in time as seconds since 1970 UTC; NaN where a string does not hold one.

    Time without a zone is taken as UTC; a plain number as seconds since 1970.

    >>> moment("1970-01-02"), moment("1970-01-01T01:00:00+01:00")
    (86400.0, 0.0)

    Raises:
        CellError: the cell holds something else.
    """
    if isinstance(cell, str):
        return parse_moment(cell)
    if isinstance(cell, np.datetime64):
        return float((cell - np.datetime64(0, "s")) / np.timedelta64(1, "s"))
    if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
        cell = datetime.datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, datetime.datetime):
        aware = cell if cell.tzinfo is not None else cell.replace(tzinfo=datetime.UTC)
        return float(aware.timestamp())
    if isinstance(cell, Real | Decimal) and not isinstance(cell, bool):
        return number(cell)
    raise CellError("a date or time is expected", shown(cell))


def parse_moment(text: str) -> float:
    """Return the ISO 8601 date or time that a string holds (slashes may stand for dashes), NaN if none."""
    text = text.strip()
    if not _DATE.fullmatch(text):
        return math.nan
    try:
        return moment(datetime.datetime.fromisoformat(text.replace("/", "-")))
    except ValueError:
        return math.nan


def category(cell: Any) -> str:
    """Return the name of a category; whole numbers have no decimals, so that 3.0 and 3 are one.

    >>> category(True), category(3.0), category("3")
    ('True', '3', '3')

    Raises:
        CellError: the cell holds a list, bytes or the like.
    """
    if isinstance(cell, str):
        return clean(cell)
    if isinstance(cell, bool | np.bool_):
        return str(bool(cell))
    if not isinstance(cell, float) and isinstance(cell, Integral):
        return str(int(cell))
    if isinstance(cell, float | Real | Decimal):
        value = number(cell)
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta | np.datetime64 | np.timedelta64):
        return str(cell)
    raise CellError("one word or number is expected", shown(cell))


def text(cell: Any) -> str:
    """Return text.

    Raises:
        CellError: the cell holds a list, bytes or the like.
    """
    try:
        return category(cell)
    except CellError as error:
        raise CellError("text is expected", shown(cell)) from error


def embedding(cell: Any, size: int | None = None) -> NDArray[np.float32]:
    """Return a vector (size,) of finite numbers, from any sequence of them or a JSON list of them.

    Raises:
        CellError: the cell holds something else, or a vector of another length than `size`.
    """
    if isinstance(cell, str):
        cell = json_list(cell)
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(cell, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise CellError("a list of numbers is expected", shown(cell)) from error
    if vector.ndim != 1:
        raise CellError("a list of numbers is expected", f"an array of shape {vector.shape}")
    if size is not None and len(vector) != size:
        raise CellError(f"an embedding of {size} numbers is expected", f"one of {len(vector)}")
    if not np.isfinite(vector).all():
        raise CellError("an embedding holds numbers that are not finite")
    return vector


def json_list(cell: str) -> list[Any] | None:
    """Return the list that a string holds as JSON, None if none."""
    if not cell.lstrip().startswith("["):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None
