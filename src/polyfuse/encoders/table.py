"""Numbers, datetimes and categories as tensors, and embeddings of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Tensors
from polyfuse.data.schema import Column

#: Scaled numbers lie within ± this.
LIMIT = 3.0
MISSING, UNKNOWN = 0, 1
_DAY = 86_400.0
_PERIODS = (365.2425 * _DAY, 7 * _DAY, _DAY)  # year, week, day, in seconds

NumberEmbedding: TypeAlias = Literal["piecewise", "periodic", "linear"]


class TableEncoder(Encoder):
    """What the encoders of a table share: how cells become tensors.

    Each number becomes one scaled value; each datetime one scaled value and sine and cosine of its place in the year,
    the week and the day (UTC); each category a code: 0 missing, 1 unknown or rare, then its levels.
    `prepare` gives `numbers` (batch, n) float in [-3, 3], `missing` (batch, n) bool and `codes` (batch, m) int64.

    Attributes:
        edges: of each of the n numbers, its scaled quantiles in the training rows.
        levels: of each of the m categories, how many codes it has.
        scales: of each number or datetime, by its place among the columns, what it is centred at and divided by.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"number", "category", "datetime"})
    continuous = {"numbers": (-LIMIT, LIMIT)}  # noqa: RUF012

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self._columns = list(columns)
        self.scales: dict[int, tuple[float, float]] = {}
        self._codes: dict[int, dict[str, int]] = {}
        self.edges: list[NDArray[np.float64]] = []
        self.levels: list[int] = []
        for i, column in enumerate(columns):
            if column.type == "category":
                self._codes[i] = {level: code for code, level in enumerate(column.levels, UNKNOWN + 1)}
                self.levels.append(len(column.levels) + UNKNOWN + 1)
                continue
            self.scales[i] = center, width = _robust_scale(column.quantiles)
            self.edges.append(squash(np.asarray(column.quantiles or [0.0]), center, width))
            if column.type == "datetime":
                self.edges += [np.sin(np.linspace(-np.pi / 2, np.pi / 2, 51))] * 2 * len(_PERIODS)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Scale numbers, code categories."""
        rows = [value if value is not None else (None,) * len(self._columns) for value in values]
        numbers: list[NDArray[np.float64]] = []
        codes: list[list[int]] = []
        for i, column in enumerate(self._columns):
            cells = [row[i] for row in rows]
            if column.type == "category":
                known = self._codes[i]
                codes.append([MISSING if cell is None else known.get(cell, UNKNOWN) for cell in cells])
                continue
            given = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
            numbers.append(squash(given, *self.scales[i]))
            if column.type == "datetime":
                for period in _PERIODS:
                    angle = 2 * np.pi * np.mod(given, period) / period
                    numbers += [np.sin(angle), np.cos(angle)]
        table = np.stack(numbers, axis=1) if numbers else np.zeros((len(rows), 0))
        missing = np.isnan(table)
        return {
            "numbers": torch.from_numpy(np.where(missing, 0.0, table).astype(np.float32)),
            "missing": torch.from_numpy(missing),
            "codes": torch.tensor(codes, dtype=torch.long).view(len(codes), len(rows)).T.contiguous(),
        }

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which entries are a number: a datetime's would no longer agree with each other."""
        numbers = [1 if column.type == "number" else 0 for column in self._columns for _ in range(_entries(column))]
        return ~tensors["missing"] & torch.tensor(numbers, dtype=torch.bool, device=tensors["missing"].device)

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return values with these numbers, but for those that are what they were."""
        before = self.prepare(values)["numbers"].numpy()
        after = tensors["numbers"].detach().cpu().numpy()
        made: list[list[Any] | None] = [None if value is None else list(value) for value in values]
        at = 0
        for i, column in enumerate(self._columns):
            if column.type == "number":
                cells = unsquash(after[:, at].astype(np.float64), *self.scales[i])
                for row in np.flatnonzero(after[:, at] != before[:, at]):
                    made[row][i] = float(cells[row])  # type: ignore[index]
            at += _entries(column)
        return [None if value is None else tuple(value) for value in made]

    def preparation(self) -> dict[str, Any]:
        """Return what is known of the columns."""
        return {"columns": [column.model_dump(mode="json", exclude={"name", "missing"}) for column in self._columns]}


def squash(x: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """Return z / sqrt(1 + (z / 3)²) with z = (x - center) / width: robust scaling, smoothly clipped to ±3.

    Holzmüller et al. 2024. A width of 0 gives 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        z = np.clip((x - center) / width, -1e9, 1e9) if width else np.where(np.isnan(x), x, 0.0)
    # z stands once, so that each operation, and hence its rounding, keeps the order.
    with np.errstate(divide="ignore", over="ignore"):
        squashed: NDArray[np.float64] = np.copysign(1 / np.sqrt(np.square(1 / z) + 1 / LIMIT**2), z)
    return squashed


def unsquash(squashed: NDArray[np.float64], center: float, width: float) -> NDArray[np.float64]:
    """Return x from `squash`: center + width z with z = y / sqrt(1 - (y / 3)²); what lies at ±3 is cut off before."""
    y = np.clip(squashed, -LIMIT + 1e-6, LIMIT - 1e-6)
    x: NDArray[np.float64] = center + width * (y / np.sqrt(1 - (y / LIMIT) ** 2))
    return x


def _entries(column: Column) -> int:
    """Return how many entries of `numbers` a column has."""
    return {"category": 0, "datetime": 1 + 2 * len(_PERIODS)}.get(column.type, 1)


def _robust_scale(quantiles: Sequence[float]) -> tuple[float, float]:
    """Return the median and the distance between the quartiles; half the whole range where the quartiles are equal."""
    if not quantiles:
        return 0.0, 0.0
    low, center, high = (float(np.quantile(quantiles, share)) for share in (0.25, 0.5, 0.75))
    return center, high - low or (max(quantiles) - min(quantiles)) / 2


class NumberEmbeddings(nn.Module):
    """An embedding of each number: an encoding of its value, then a linear layer of its own (Gorishniy et al. 2022).

    "piecewise": over quantile bins b_0 < … < b_T, e_t = (x - b_(t-1)) / (b_t - b_(t-1)), cut off at 0 below except in
    the first bin and at 1 above except in the last. "periodic": sin and cos of 2π c_k x, frequencies c_k learned.
    "linear": x itself. A missing number has a learned embedding instead.

    Args:
        edges: of each number, its scaled quantiles.
        dim: width of an embedding.
        kind: of the encoding.
        bins: most bins of a piecewise encoding, and frequencies of a periodic one.
    """

    starts: Tensor
    widths: Tensor
    used: Tensor
    last: Tensor

    def __init__(self, edges: Sequence[NDArray[np.float64]], dim: int, kind: NumberEmbedding, bins: int) -> None:
        super().__init__()
        self.kind, n = kind, len(edges)
        size = {"piecewise": bins, "periodic": 2 * bins, "linear": 1}[kind]
        if kind == "periodic":
            self.frequencies = nn.Parameter(torch.randn(n, bins) * 0.3)
        if kind == "piecewise":
            for name, tensor in _bins(edges, bins).items():
                self.register_buffer(name, tensor, persistent=False)
        bound = size**-0.5
        self.weight = nn.Parameter(torch.empty(n, size, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n, dim).uniform_(-bound, bound))
        self.absent = nn.Parameter(torch.randn(n, dim) * dim**-0.5)

    def forward(self, numbers: Tensor, missing: Tensor) -> Tensor:
        """numbers: (batch, n), missing: (batch, n) bool. Returns (batch, n, dim)."""
        embedded = torch.einsum("bns,nsd->bnd", self.encode(numbers), self.weight) + self.bias
        return torch.where(missing.unsqueeze(-1), self.absent, embedded)

    def encode(self, numbers: Tensor) -> Tensor:
        """Return the encoding (batch, n, size)."""
        x = numbers.unsqueeze(-1)
        if self.kind == "linear":
            return x
        if self.kind == "periodic":
            angle = 2 * torch.pi * self.frequencies * x
            return torch.cat([angle.sin(), angle.cos()], dim=-1)
        e = (x - self.starts) / self.widths
        first = torch.arange(e.shape[-1], device=e.device) == 0
        e = torch.where(first, e, e.clamp(min=0))
        return torch.where(self.used, torch.where(self.last, e, e.clamp(max=1)), 0.0)


def _bins(edges: Sequence[NDArray[np.float64]], most: int) -> Tensors:
    """Return starts, widths, use and place of the bins between some of the quantiles, each (n, most)."""
    n = len(edges)
    starts, widths = torch.zeros(n, most), torch.ones(n, most)
    used, last = torch.zeros(n, most, dtype=torch.bool), torch.zeros(n, most, dtype=torch.bool)
    for i, quantiles in enumerate(edges):
        chosen = quantiles[np.linspace(0, len(quantiles) - 1, most + 1).round().astype(int)]
        # Bins narrower than this, in units of the spread, would turn rounding into jumps.
        distinct = [chosen[0], *(b for a, b in pairwise(chosen) if b - a > 1e-4)]
        distinct = distinct if len(distinct) > 1 else [distinct[0] - 1, distinct[0] + 1]
        count = len(distinct) - 1
        starts[i, :count] = torch.tensor(distinct[:-1])
        widths[i, :count] = torch.tensor(np.diff(distinct))
        used[i, :count] = True
        last[i, count - 1] = True
    return {"starts": starts, "widths": widths, "used": used, "last": last}


class CategoryEmbeddings(nn.Module):
    """An embedding of each category's code, all in one table.

    Args:
        levels: of each category, how many codes it has.
        dim: width of an embedding.
    """

    offsets: Tensor

    def __init__(self, levels: Sequence[int], dim: int) -> None:
        super().__init__()
        offsets = torch.tensor([0, *levels]).cumsum(0)[: len(levels)]
        self.register_buffer("offsets", offsets, persistent=False)
        self.table = nn.Embedding(sum(levels), dim)
        nn.init.normal_(self.table.weight, std=dim**-0.5)

    def forward(self, codes: Tensor) -> Tensor:
        """codes: (batch, m). Returns (batch, m, dim)."""
        out: Tensor = self.table(codes + self.offsets)
        return out
