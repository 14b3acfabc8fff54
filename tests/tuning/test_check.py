"""The public check of tunings finds what is wrong with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.data.schema import Column
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.testing import check_tuning
from polyfuse.tuning.adapter import AdapterTuning
from polyfuse.tuning.bias import BiasTuning
from polyfuse.tuning.last import LastTuning
from polyfuse.tuning.lora import LoraTuning
from polyfuse.tuning.whole import FrozenTuning, FullTuning

Find = Callable[[str], str]
VALUES = [("one cat",), ("two dogs a b c",)]


class Sleeping(FullTuning):
    def apply(self, encoder: Encoder) -> None:
        encoder.requires_grad_(False)


class Waking(FrozenTuning):
    def apply(self, encoder: Encoder) -> None:
        encoder.requires_grad_(True)


class Strange(FullTuning):
    def rates(self, encoder: Encoder) -> dict[nn.Parameter, float]:
        return {nn.Parameter(torch.zeros(1)): 0.1}


class Still(FullTuning):
    def rates(self, encoder: Encoder) -> dict[nn.Parameter, float]:
        return dict.fromkeys(encoder.parameters(), 0.0)


class Jumping(AdapterTuning):
    def apply(self, encoder: Encoder) -> None:
        super().apply(encoder)
        with torch.no_grad():
            for parameter in encoder.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter))


class Unread(FullTuning):
    def apply(self, encoder: Encoder) -> None:
        super().apply(encoder)
        encoder.register_parameter("unread", nn.Parameter(torch.zeros(2)))


class Leaking(BiasTuning):
    def updated(self, encoder: Encoder, update: int) -> None:
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if "LayerNorm.weight" in name:
                    parameter.add_(0.1)


class Renaming(AdapterTuning):
    def begin(self, encoder: Encoder, updates: int) -> None:
        backbone: Any = encoder.backbone
        backbone.encoder.more = nn.Linear(2, 2).requires_grad_(False)


class Forgetful(LoraTuning):
    def restore(self, encoder: Encoder, folder: Path) -> None:
        self.apply(encoder)


class Pickling(LoraTuning):
    def save(self, encoder: Encoder, folder: Path) -> bool:
        (folder / "adapter.bin").write_bytes(b"")
        return super().save(encoder, folder)


class Frozen(LoraTuning):
    def restore(self, encoder: Encoder, folder: Path) -> None:
        super().restore(encoder, folder)
        encoder.requires_grad_(False)


class Boasting(LoraTuning):
    def merge(self, encoder: Encoder) -> bool:
        return True


class Losing(LoraTuning):
    def merge(self, encoder: Encoder) -> bool:
        backbone: Any = encoder.backbone
        encoder.backbone = backbone.unload()
        return True


class HalfWay(AdapterTuning):
    def merge(self, encoder: Encoder) -> bool:
        encoder.register_buffer("folded", torch.zeros(1))
        return False


class Stale(LastTuning):
    def cached(self, encoder: Encoder) -> Encoder | None:
        return self.kept

    def apply(self, encoder: Encoder) -> None:
        super().apply(encoder)
        self.kept = TransformerEncoder([Column(name="x", type="text")], checkpoint=encoder.companion.name_or_path)  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in self.kept.parameters():
                parameter.mul_(1.5)
        self.kept.part(1)
        lower = self.kept.lower()
        assert lower is not None
        self.kept = lower  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("tuning", "expected"),
    [
        (Sleeping, "frozen=False, and 0 parameters"),
        (Waking, "frozen=True, and"),
        (Strange, "rates: a parameter is not the encoder's"),
        (Still, "rates: 0.0 is no learning rate"),
        (Jumping, "the encoder, as it is tuned"),
        (Unread, "'unread' gets no gradient"),
        (Leaking, r"LayerNorm.weight' is not trained and has changed"),
        (Renaming, "the backbone's own weights have changed"),
        (Forgetful, "restored from what save wrote"),
        (Pickling, r"save writes \['adapter.bin'\]"),
        (Frozen, "restored, other parameters are trained"),
        (Boasting, "weights' names are not the plain model's"),
        (Losing, "after merge, which returned True"),
        (HalfWay, "merge returned False, and weights have changed"),
        (Stale, "from what is computed once"),
    ],
)
def test_what_is_wrong_is_found(tuning: type[Tuning], expected: str, tiny_model: Find) -> None:
    def encoder() -> Encoder:
        return TransformerEncoder([Column(name="x", type="text")], checkpoint=tiny_model("bert"), max_tokens=12)

    def make() -> Tuning:
        torch.manual_seed(0)
        return tuning(layers=1) if tuning is Stale else tuning()  # type: ignore[call-arg]

    with pytest.raises(AssertionError, match=expected):
        check_tuning(make, encoder, VALUES)
