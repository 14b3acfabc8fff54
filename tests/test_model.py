from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Target
from polyfuse.fusion.attention import AttentionFusion
from polyfuse.fusion.concat import ConcatFusion
from polyfuse.heads.classification import ClassificationHead
from polyfuse.model import FusionModel

TARGET = Target(name="y", task="classification", levels=["a", "b"], frequencies=[0.5, 0.5])
PRESENT = torch.tensor([[True, True], [True, False], [False, True], [False, False]])


class Counting(Encoder):
    """Repeats each number as two tokens, and remembers how many rows it was given."""

    reads = frozenset({"number"})

    def __init__(self, dim: int = 4) -> None:
        super().__init__()
        self.dim, self.rows = dim, 0
        self.layer = nn.Linear(1, dim)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        return {"x": torch.tensor([[value[0] if value else 0.0] for value in values])}

    def forward(self, *, x: Tensor) -> Features:
        self.rows += len(x)
        tokens = self.layer(x).unsqueeze(1).expand(-1, 2, -1)
        return Features.of_tokens(tokens, torch.ones(len(x), 2, dtype=torch.bool))


def model(fusion: type[Any] = ConcatFusion) -> FusionModel:
    torch.manual_seed(0)
    encoders = {"one": Counting(4), "two": Counting(6)}
    fused = fusion({"one": 4, "two": 6}, dim=8)
    return FusionModel(encoders, fused, ClassificationHead(8, TARGET)).eval()


def inputs(fill: float = 0.0) -> dict[str, Tensors]:
    x = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    return {name: {"x": torch.where(PRESENT[:, i, None], x, fill)} for i, name in enumerate(("one", "two"))}


def test_only_present_rows_are_encoded() -> None:
    made = model()
    made(inputs(), PRESENT)
    assert [made.encoder(name).rows for name in ("one", "two")] == [2, 2]  # type: ignore[union-attr]


@pytest.mark.parametrize("fusion", [ConcatFusion, AttentionFusion])
def test_what_stands_in_an_absent_slot_means_nothing(fusion: type[Any]) -> None:
    made = model(fusion)
    expected = made(inputs(), PRESENT)
    for garbage in (float("nan"), float("inf"), 1e30):
        assert made(inputs(garbage), PRESENT).equal(expected)


@pytest.mark.parametrize("fusion", [ConcatFusion, AttentionFusion])
def test_features_known_already_answer_like_their_inputs(fusion: type[Any]) -> None:
    made = model(fusion)
    known = made.encode(inputs(), PRESENT)
    torch.testing.assert_close(made(known, PRESENT), made(inputs(), PRESENT))
    torch.testing.assert_close(made({**inputs(), "two": known["two"]}, PRESENT), made(inputs(), PRESENT))


def test_a_row_does_not_depend_on_the_others() -> None:
    made = model(AttentionFusion)
    together = made(inputs(), PRESENT)
    for row in range(4):
        alone = {name: {"x": tensors["x"][row : row + 1]} for name, tensors in inputs().items()}
        torch.testing.assert_close(made(alone, PRESENT[row : row + 1])[0], together[row])


def test_two_modalities_share_one_encoder() -> None:
    shared = Counting(4)
    made = FusionModel({"a": shared, "b": shared}, ConcatFusion({"a": 4, "b": 4}, dim=8), ClassificationHead(8, TARGET))
    assert len(made.encoders) == 1
    assert made.encoder("a") is made.encoder("b")
    assert len(list(made.parameters())) == len({id(parameter) for parameter in made.parameters()})


def test_modalities_may_bear_any_name() -> None:
    names = ["keys", "forward", "a.b", "", "übung"]
    encoders = {name: Counting() for name in names}
    made = FusionModel(encoders, ConcatFusion(dict.fromkeys(names, 4), dim=8), ClassificationHead(8, TARGET))
    given = {name: {"x": torch.ones(1, 1)} for name in names}
    assert made(given, torch.ones(1, 5, dtype=torch.bool)).shape == (1, 2)


def test_a_frozen_encoder_stays_in_evaluation_mode() -> None:
    made = model()
    made.encoder("one").requires_grad_(False)
    made.train()
    assert [made.encoder(name).training for name in ("one", "two")] == [False, True]


def test_a_backbone_computes_in_the_chosen_precision() -> None:
    class Pretrained(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = self.layer
            self.seen: list[torch.dtype] = []

        def forward(self, *, x: Tensor) -> Features:
            self.seen.append(self.layer(x).dtype)
            return super().forward(x=x)

    encoders = {"one": Pretrained(), "two": Counting()}
    fusion = ConcatFusion({"one": 4, "two": 4}, dim=8)
    made = FusionModel(encoders, fusion, ClassificationHead(8, TARGET), precision="bf16")
    features = made.encode(inputs(), PRESENT)
    assert encoders["one"].seen == [torch.bfloat16]  # type: ignore[union-attr]
    assert {each.pooled.dtype for each in features.values()} == {torch.float32}


@pytest.mark.parametrize("fusion", [ConcatFusion, AttentionFusion])
def test_a_fusion_of_tokens_is_trained_in_the_chosen_precision_and_answers_in_float32(fusion: type[Any]) -> None:
    found = []
    for precision in ("float32", "bf16"):
        made = model(fusion)
        made.fusing = precision  # type: ignore[assignment]
        loss = made.loss(inputs(), PRESENT, torch.tensor([0, 1, 1, 0]))
        loss.backward()
        gradient = torch.cat([part.grad.flatten() for part in made.parameters() if part.grad is not None])
        assert loss.dtype is gradient.dtype is torch.float32
        found.append((loss.detach(), gradient, made(inputs(), PRESENT)))
    plain, other = found
    assert other[2].equal(plain[2])
    assert other[0].equal(plain[0]) is (fusion is ConcatFusion)
    torch.testing.assert_close(other[0], plain[0], rtol=0.02, atol=0.0)
    assert torch.cosine_similarity(other[1], plain[1], dim=0) > 0.999
