"""The contract checks find what is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Target
from polyfuse.fusion.concat import ConcatFusion
from polyfuse.heads.regression import RegressionHead
from polyfuse.testing import check_encoder, check_fusion, check_head

VALUES = [([1.0, 2.0],), ([3.0],), ([4.0, 0.5, 1.0],)]


class Sound(Encoder):
    """A correct encoder of lists of numbers, to be broken."""

    reads = frozenset({"number"})
    continuous: Mapping[str, tuple[float, float]] = {"x": (-5.0, 5.0)}  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.layer = 4, nn.Linear(1, 4)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        rows = [value[0] if value else [0.0] for value in values]
        longest = max(map(len, rows))
        x = torch.tensor([row + [0.0] * (longest - len(row)) for row in rows])
        return {"x": x, "mask": torch.arange(longest) < torch.tensor([[len(row)] for row in rows])}

    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        return Features.of_tokens(torch.tanh(self.layer(x.unsqueeze(-1))), mask)

    def alterable(self, tensors: Tensors) -> Tensor:
        return tensors["mask"]

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        rows = zip(tensors["x"], tensors["mask"], values, strict=True)
        return [None if value is None else (x[mask].tolist(),) for x, mask, value in rows]


class ReadsTheBatch(Sound):
    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        return super().forward(x=x - x.mean(), mask=mask)


class ReadsThePadding(Sound):
    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        found = super().forward(x=x, mask=mask)
        return Features(found.tokens, mask, found.tokens.mean(1))


class HasAnIdleWeight(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.zeros(2))


class HidesState(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = torch.randn(4)

    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        found = super().forward(x=x, mask=mask)
        return Features.of_tokens(found.tokens + self.hidden, mask)


class LeavesItsBounds(Sound):
    continuous = {"x": (0.0, 1.0)}  # noqa: RUF012


class RestoresWhatItWas(Sound):
    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        return list(values)


class CutsTheGradient(Sound):
    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        return super().forward(x=x.detach(), mask=mask)


class IsRandom(Sound):
    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        return super().forward(x=x + torch.randn_like(x), mask=mask)


class IsWrongAboutItsWidth(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 5


class HasNoToken(Sound):
    def forward(self, *, x: Tensor, mask: Tensor) -> Features:
        return super().forward(x=x, mask=mask & (x > 3))


def test_a_correct_encoder_passes() -> None:
    check_encoder(Sound, VALUES)
    check_encoder(Sound(), VALUES)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (ReadsTheBatch, "encoded alone"),
        (ReadsThePadding, "encoded alone"),
        (HasAnIdleWeight, "'idle' gets no gradient"),
        (HidesState, "the first one's state"),
        (LeavesItsBounds, "outside its bounds"),
        (RestoresWhatItWas, "restored values"),
        (CutsTheGradient, "gets no gradient"),
        (IsRandom, "encoded twice"),
        (IsWrongAboutItsWidth, "dim=5"),
        (HasNoToken, "has no real token"),
    ],
)
def test_a_broken_encoder_is_told_what_is_wrong(broken: type[Encoder], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_encoder(broken, VALUES)


class ReadsTheAbsent(ConcatFusion):
    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        fused = super().forward(features, present)
        return Features.of_pooled(fused.pooled + 0 * sum(each.pooled.sum() for each in features.values()))


class SpoilsTheGradient(ConcatFusion):
    def pooled(self, features: Mapping[str, Features], present: Tensor) -> Tensor:
        columns = []
        for i, name in enumerate(self.names):
            projected = self.projections[i](features[name].pooled)
            columns.append(torch.where(present[:, i, None], projected, self.absent[i]))
        return torch.stack(columns, dim=1)


class MixesRows(ConcatFusion):
    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        fused = super().forward(features, present)
        return Features.of_pooled(fused.pooled - fused.pooled.mean(0))


class DropsWithTorch(ConcatFusion):
    def forward(self, features: Mapping[str, Features], present: Tensor) -> Features:
        fused = super().forward(features, present)
        return Features.of_pooled(nn.functional.dropout(fused.pooled, 0.5, self.training))


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (ReadsTheAbsent, "absent modalities"),
        (SpoilsTheGradient, "gradient"),
        (MixesRows, "alone, in this order"),
        (DropsWithTorch, "torch's own generator"),
    ],
)
def test_a_broken_fusion_is_told_what_is_wrong(broken: type[ConcatFusion], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_fusion(lambda dims: broken(dims, dim=8))


class SumsItsLoss(RegressionHead):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target) ** 2


class ClimbsItsLoss(RegressionHead):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        found = super().loss(output, target)
        return 2 * found.detach() - found


class HasAWidePrior(RegressionHead):
    def prior(self) -> Tensor:
        return torch.zeros(2)


class DecodesWords(RegressionHead):
    def decode(self, scores: Tensor) -> list[Any]:
        return ["much"]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (SumsItsLoss, "not a scalar|shape"),
        (ClimbsItsLoss, "a small step"),
        (HasAWidePrior, "prior is"),
        (DecodesWords, "answers for"),
    ],
)
def test_a_broken_head_is_told_what_is_wrong(broken: type[RegressionHead], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_head(broken(6, Target(name="y", task="regression", mean=3.0, std=2.0)), [1.0, 2.0, 9.0], 6)
