"""One cell: whether it is missing, and what it holds as a value of a column's type. As polyfuse reads it."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_DATE = re.compile(r"\d{4}([-/])\d{2}\1\d{2}([T ]\d{2}:?\d{2}\S*)?")
_NOTHING = ("NAType", "NaTType")  # of pandas, which need not be there


class CellError(ValueError):
    """A cell does not hold what its column's type says."""


def shown(cell: Any) -> str:
    """Return a cell for a message, shortened."""
    if isinstance(cell, str):
        return repr(clean(cell[:60]) + ("…" if len(cell) > 60 else ""))
    return str(cell)[:60] if isinstance(cell, Real | Decimal | datetime.date) else f"a {type(cell).__name__}"


def is_missing(cell: Any) -> bool:
    """Tell whether a cell holds nothing: None, NaN, blank text, an empty list, a mapping of nothing.

    >>> [is_missing(cell) for cell in (None, float("nan"), " ", [], 0, "x")]
    [True, True, True, True, False, False]
    """
    if cell is None or type(cell).__name__ in _NOTHING:
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
    return isinstance(cell, list | tuple) and all(is_missing(part) for part in cell)


def clean(text: str) -> str:
    """Return text that UTF-8 can hold: lone surrogates become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def number(cell: Any) -> float:
    """Return a number, NaN where a string holds none. Durations are in seconds.

    >>> number("1,234.5"), number("n/a")
    (1234.5, nan)

    Raises:
        CellError: the cell holds something else.
    """
    if isinstance(cell, str):
        return _parse_number(cell.strip())
    if isinstance(cell, np.bool_):
        return float(cell)
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, np.timedelta64):
        try:
            return float(cell / np.timedelta64(1, "s"))
        except TypeError:
            raise CellError(f"a duration of a fixed length is expected: {shown(cell)}") from None
    if isinstance(cell, Real | Decimal):
        try:
            return float(cell)
        except OverflowError:
            return math.copysign(math.inf, int(cell))  # type: ignore[arg-type]
    raise CellError(f"a number is expected: {shown(cell)}")


def moment(cell: Any) -> float:
    """Return a point in time in seconds since 1970, UTC where no zone is given; NaN where a string holds none.

    >>> moment("1970-01-02"), moment("1970-01-01T01:00:00+01:00")
    (86400.0, 0.0)

    Raises:
        CellError: the cell holds something else.
    """
    if isinstance(cell, str):
        text = cell.strip()
        try:
            found = datetime.datetime.fromisoformat(text.replace("/", "-")) if _DATE.fullmatch(text) else None
        except ValueError:
            found = None
        return math.nan if found is None else moment(found)
    if isinstance(cell, np.datetime64):
        return float((cell - np.datetime64(0, "s")) / np.timedelta64(1, "s"))
    if isinstance(cell, datetime.date) and not isinstance(cell, datetime.datetime):
        cell = datetime.datetime(cell.year, cell.month, cell.day)
    if isinstance(cell, datetime.datetime):
        return float((cell if cell.tzinfo is not None else cell.replace(tzinfo=datetime.UTC)).timestamp())
    if isinstance(cell, Real | Decimal) and not isinstance(cell, bool):
        return number(cell)
    raise CellError(f"a date or time is expected: {shown(cell)}")


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
    if isinstance(cell, Integral):
        return str(int(cell))
    if isinstance(cell, Real | Decimal):
        value = number(cell)
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(cell, datetime.date):
        return cell.isoformat()
    if isinstance(cell, datetime.timedelta | np.datetime64 | np.timedelta64):
        return str(cell)
    raise CellError(f"one word or number is expected: {shown(cell)}")


def embedding(cell: Any, size: int) -> NDArray[np.float32]:
    """Return a vector (size,) of finite numbers, from any sequence of them or a JSON list of them.

    Raises:
        CellError: the cell holds something else, or a vector of another length.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell) if cell.lstrip().startswith("[") else None
        except (ValueError, RecursionError):
            cell = None
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(cell, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise CellError(f"a list of numbers is expected: {shown(cell)}") from error
    if vector.shape != (size,):
        raise CellError(f"an embedding of {size} numbers is expected: one of shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise CellError("an embedding holds numbers that are not finite")
    return vector


#: How a cell of one word or number is read; NaN where a string holds no number, or no date.
SCALARS: Mapping[str, Callable[[Any], Any]] = {
    "text": category,
    "category": category,
    "number": number,
    "datetime": moment,
}


def _parse_number(text: str) -> float:
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan
