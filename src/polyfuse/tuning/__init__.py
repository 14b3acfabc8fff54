"""Which weights of an encoder move."""

from __future__ import annotations

from polyfuse.core.contract import Tuning
from polyfuse.core.registry import Registry

TUNINGS: Registry[Tuning] = Registry(
    "tunings",
    {
        "frozen": "polyfuse.tuning.whole:FrozenTuning",
        "full": "polyfuse.tuning.whole:FullTuning",
        "lora": "polyfuse.tuning.lora:LoraTuning",
    },
)
