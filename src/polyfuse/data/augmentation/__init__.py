"""Augmentations: what changes a value at random and leaves its answer true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from polyfuse.core.errors import InputError
from polyfuse.core.registry import Registry
from polyfuse.data.augmentation.contract import Augmentation
from polyfuse.data.choosing import checked, unread
from polyfuse.data.schema import Column, ColumnType, Task

AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentations",
    {
        "crop": "polyfuse.data.augmentation.image:CropAugmentation",
        "flip": "polyfuse.data.augmentation.image:FlipAugmentation",
        "colour": "polyfuse.data.augmentation.image:ColourAugmentation",
        "erase": "polyfuse.data.augmentation.image:EraseAugmentation",
        "affine": "polyfuse.data.augmentation.image:AffineAugmentation",
        "word_drop": "polyfuse.data.augmentation.text:WordDropAugmentation",
        "typos": "polyfuse.data.augmentation.text:TyposAugmentation",
        "gain": "polyfuse.data.augmentation.audio:GainAugmentation",
        "noise": "polyfuse.data.augmentation.audio:NoiseAugmentation",
        "shift": "polyfuse.data.augmentation.audio:ShiftAugmentation",
        "spectrum_mask": "polyfuse.data.augmentation.audio:SpectrumMaskAugmentation",
        "point_jitter": "polyfuse.data.augmentation.points:PointJitterAugmentation",
        "point_scale": "polyfuse.data.augmentation.points:PointScaleAugmentation",
        "point_turn": "polyfuse.data.augmentation.points:PointTurnAugmentation",
        "point_drop": "polyfuse.data.augmentation.points:PointDropAugmentation",
        "number_noise": "polyfuse.data.augmentation.table:NumberNoiseAugmentation",
        "swap": "polyfuse.data.augmentation.table:SwapAugmentation",
        "corrupt": "polyfuse.data.augmentation.corrupting:CorruptAugmentation",
    },
)

#: An augmentation by its name, by a mapping of its name and its options, or itself.
Choice: TypeAlias = str | Mapping[str, Any] | Augmentation

_DEFAULTS: dict[ColumnType, tuple[str, ...]] = {
    "image": ("crop", "colour", "erase"),
    "audio": ("gain", "noise", "shift", "spectrum_mask"),
    "text": ("word_drop", "typos"),
    "number": ("number_noise", "swap"),
    "category": ("swap",),
    "datetime": ("swap",),
    "points": ("point_jitter", "point_scale", "point_drop"),
    "embedding": (),
}


def default_augmentations(columns: Sequence[Column], task: Task) -> list[str | dict[str, Any]]:
    """Return the augmentations of a modality when none are chosen: by name, or as a mapping with options.

    Images are not flipped, nor clouds turned: nothing in a table tells whether that means the same. One label is mostly
    of the thing in the middle; what several labels, or a number, say of an image may stand at its edge or lie in its
    size, so that more of it stays in view, and clouds keep their proportions.

    >>> default_augmentations([Column(name="age", type="number"), Column(name="brand", type="category")], "regression")
    ['number_noise', 'swap']
    """
    names = dict.fromkeys(name for column in columns for name in _DEFAULTS[column.type])
    if task == "classification":
        return list(names)
    mild: dict[str, Any] = {"name": "crop", "least": 0.8}
    return [mild if name == "crop" else name for name in names if name != "point_scale"]


def build_augmentations(chosen: Sequence[Choice], columns: Sequence[Column]) -> list[list[Augmentation]]:
    """Make the augmentations of a modality: for each column, in order, those that can change it, in the order chosen.

    Args:
        chosen: names, mappings of a name and options, or augmentations, each for every column that it reads.
        columns: of the modality.

    Raises:
        InputError: a name or an option is unknown, a value does not fit, or an augmentation reads none of the columns,
            or changes none with these options.
    """
    made: list[list[Augmentation]] = [[] for _ in columns]
    for choice in chosen:
        if isinstance(choice, Augmentation):
            name, reads = type(choice).__name__, choice.reads
        else:
            name, options = _read(choice)
            reads = AUGMENTATIONS[name].reads
        fitting = [i for i, column in enumerate(columns) if column.type in reads]
        if not fitting:
            raise InputError(unread(AUGMENTATIONS, name, reads, columns))
        some = [
            choice if isinstance(choice, Augmentation) else AUGMENTATIONS.build(name, options, columns[i])
            for i in fitting
        ]
        if all(one.idle for one in some):
            raise InputError(f"augmentations: {some[0].idle}; name others, or leave it out")
        for i, one in zip(fitting, some, strict=True):
            made[i].append(one)
    return made


def _read(choice: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the checked options of a choice."""
    options = {"name": choice} if isinstance(choice, str) else dict(choice) if isinstance(choice, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"augmentations: {choice!r:.80} given: an augmentation is a name, or a mapping with a name")
    return name, checked(AUGMENTATIONS, name, options, "augmentations")
