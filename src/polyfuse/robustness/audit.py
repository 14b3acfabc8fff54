"""The budget audit: every adversarial value is measured again against its threat model."""

from __future__ import annotations

from collections.abc import Sequence

from polyfuse.attacks.threat import Sample, Threat, Value
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import PolyfuseError


def audit(
    threat: Threat | None,
    encoder: Encoder,
    clean: Sequence[Value | None],
    found: Sequence[Value | None],
    modality: str,
    *,
    absent: bool = False,
) -> float:
    """Return the largest share of its budget that a value uses; 0 where none was changed.

    What is measured is what a file would hold: values, and what the encoder prepares from them anew.

    Args:
        threat: what may change; nothing, where it is None.
        encoder: of the modality.
        clean: values as they are.
        found: the same, as an attack leaves them; None for what it took away.
        modality: its name.
        absent: whether values may be taken away.

    Raises:
        PolyfuseError: a value lies beyond its budget, or was changed or taken away where that is not allowed.
    """
    pairs = list(enumerate(zip(clean, found, strict=True)))
    gone = [row for row, (before, after) in pairs if before is not None and after is None]
    changed = [row for row, (before, after) in pairs if None not in (before, after) and after is not before]
    for rows, allowed, done in ((gone, absent, "taken away"), (changed, threat is not None, "changed")):
        if rows and not allowed:
            raise PolyfuseError(
                f"attack on {modality!r}: row {rows[0]} was {done}, which no budget allows: nothing of this attack can"
                " be reported; please report it as a defect"
            )
    if threat is None:
        return 0.0
    if not changed:
        return 0.0
    samples = [
        _samples(encoder, [value for row in changed if (value := values[row]) is not None]) for values in (clean, found)
    ]
    excesses = [threat.excess(before, after) for before, after in zip(*samples, strict=True)]
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
