"""Which weights of an encoder move."""

from __future__ import annotations

from polyfuse.core.contract import Tuning
from polyfuse.core.errors import InputError, nearest
from polyfuse.core.registry import Registry


class Tunings(Registry[Tuning]):
    """The tunings here; and, by peft's own names, every other method of the peft that is installed."""

    def _place(self, name: str) -> str:
        try:
            return super()._place(name)
        except InputError as error:
            from polyfuse.tuning.methods import method_names

            known = method_names()
            if name.upper() in known:
                return self._places.get(name.lower(), f"polyfuse.tuning.methods:{name.upper()}")
            names = [*self, *(each.lower() for each in known)]
            raise InputError(f"{self.family}: there is no {name!r}; {nearest(name, names)}") from error


TUNINGS: Registry[Tuning] = Tunings(
    "tunings",
    {
        "adalora": "polyfuse.tuning.adalora:AdaloraTuning",
        "adapter": "polyfuse.tuning.adapter:AdapterTuning",
        "bias": "polyfuse.tuning.bias:BiasTuning",
        "frozen": "polyfuse.tuning.whole:FrozenTuning",
        "full": "polyfuse.tuning.whole:FullTuning",
        "ia3": "polyfuse.tuning.ia3:Ia3Tuning",
        "last": "polyfuse.tuning.last:LastTuning",
        "lora": "polyfuse.tuning.lora:LoraTuning",
        "prefix": "polyfuse.tuning.prefix:PrefixTuning",
    },
)
