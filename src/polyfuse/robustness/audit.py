"""The budget audit: every adversarial value is measured again against its threat model."""

from __future__ import annotations

from collections.abc import Sequence

from polyfuse.attacks.threat import Sample, Threat, Value
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import PolyfuseError


def audit(
    threat: Threat, encoder: Encoder, clean: Sequence[Value | None], found: Sequence[Value | None], modality: str
) -> float:
    """Return the largest share of its budget that a value uses; 0 where none was changed.

    What is measured is what a file would hold: values, and what the encoder prepares from them anew.

    Raises:
        PolyfuseError: a value lies beyond its budget.
    """
    changed = [
        row
        for row, (before, after) in enumerate(zip(clean, found, strict=True))
        if before is not None and after is not before
    ]
    if not changed:
        return 0.0
    pairs = [
        _samples(encoder, [value for row in changed if (value := values[row]) is not None]) for values in (clean, found)
    ]
    excesses = [threat.excess(before, after) for before, after in zip(*pairs, strict=True)]
    worst = max(excesses)
    if worst > 0:
        row = changed[excesses.index(worst)]
        raise PolyfuseError(
            f"attack on {modality!r}: row {row} was changed by {1 + worst:.4f} of what {type(threat).__name__}"
            f" {threat.options()} allows: nothing of this attack can be reported; please report it as a defect"
        )
    return 1 + worst


def _samples(encoder: Encoder, values: Sequence[Value]) -> list[Sample]:
    if not encoder.continuous:
        return [Sample(value) for value in values]
    (seam,) = encoder.continuous
    return [Sample(value, tensor) for value, tensor in zip(values, encoder.prepare(values)[seam].numpy(), strict=True)]
