"""Corruptions: harmless, realistic damage to values, by which robustness is measured (Hendrycks & Dietterich 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyfuse.core.registry import Registry
from polyfuse.data.choosing import readers
from polyfuse.data.corruption.contract import Corruption
from polyfuse.data.schema import Column

CORRUPTIONS: Registry[Corruption[Any]] = Registry(
    "corruptions",
    {
        "gaussian_noise": "polyfuse.data.corruption.image_noise:GaussianNoiseCorruption",
        "shot_noise": "polyfuse.data.corruption.image_noise:ShotNoiseCorruption",
        "impulse_noise": "polyfuse.data.corruption.image_noise:ImpulseNoiseCorruption",
        "defocus_blur": "polyfuse.data.corruption.image_blur:DefocusBlurCorruption",
        "motion_blur": "polyfuse.data.corruption.image_blur:MotionBlurCorruption",
        "zoom_blur": "polyfuse.data.corruption.image_blur:ZoomBlurCorruption",
        "glass_blur": "polyfuse.data.corruption.image_blur:GlassBlurCorruption",
        "snow": "polyfuse.data.corruption.image_weather:SnowCorruption",
        "fog": "polyfuse.data.corruption.image_weather:FogCorruption",
        "frost": "polyfuse.data.corruption.image_weather:FrostCorruption",
        "brightness": "polyfuse.data.corruption.image_digital:BrightnessCorruption",
        "contrast": "polyfuse.data.corruption.image_digital:ContrastCorruption",
        "saturate": "polyfuse.data.corruption.image_digital:SaturateCorruption",
        "pixelate": "polyfuse.data.corruption.image_digital:PixelateCorruption",
        "jpeg": "polyfuse.data.corruption.image_digital:JpegCorruption",
        "elastic": "polyfuse.data.corruption.image_digital:ElasticCorruption",
        "white_noise": "polyfuse.data.corruption.audio:WhiteNoiseCorruption",
        "pink_noise": "polyfuse.data.corruption.audio:PinkNoiseCorruption",
        "hum": "polyfuse.data.corruption.audio:HumCorruption",
        "babble": "polyfuse.data.corruption.audio:BabbleCorruption",
        "clipping": "polyfuse.data.corruption.audio:ClippingCorruption",
        "lowpass": "polyfuse.data.corruption.audio:LowpassCorruption",
        "reverb": "polyfuse.data.corruption.audio:ReverbCorruption",
        "dropouts": "polyfuse.data.corruption.audio:DropoutsCorruption",
        "speed": "polyfuse.data.corruption.audio:SpeedCorruption",
        "quantisation": "polyfuse.data.corruption.audio:QuantisationCorruption",
        "gain_down": "polyfuse.data.corruption.audio:GainDownCorruption",
        "keyboard": "polyfuse.data.corruption.text:KeyboardCorruption",
        "ocr": "polyfuse.data.corruption.text:OcrCorruption",
        "missing_letters": "polyfuse.data.corruption.text:MissingLettersCorruption",
        "repeated_letters": "polyfuse.data.corruption.text:RepeatedLettersCorruption",
        "swapped_letters": "polyfuse.data.corruption.text:SwappedLettersCorruption",
        "no_punctuation": "polyfuse.data.corruption.text:NoPunctuationCorruption",
        "no_spaces": "polyfuse.data.corruption.text:NoSpacesCorruption",
        "word_drop": "polyfuse.data.corruption.text:WordDropCorruption",
        "word_shuffle": "polyfuse.data.corruption.text:WordShuffleCorruption",
        "casing": "polyfuse.data.corruption.text:CasingCorruption",
        "truncation": "polyfuse.data.corruption.text:TruncationCorruption",
        "stray_signs": "polyfuse.data.corruption.text:StraySignsCorruption",
        "point_jitter": "polyfuse.data.corruption.points:PointJitterCorruption",
        "point_scale": "polyfuse.data.corruption.points:PointScaleCorruption",
        "point_turn": "polyfuse.data.corruption.points:PointTurnCorruption",
        "point_drop": "polyfuse.data.corruption.points:PointDropCorruption",
        "region_drop": "polyfuse.data.corruption.points:RegionDropCorruption",
        "point_outliers": "polyfuse.data.corruption.points:PointOutliersCorruption",
        "number_noise": "polyfuse.data.corruption.table:NumberNoiseCorruption",
        "rounding": "polyfuse.data.corruption.table:RoundingCorruption",
        "unit_error": "polyfuse.data.corruption.table:UnitErrorCorruption",
        "outliers": "polyfuse.data.corruption.table:OutliersCorruption",
        "sign_flip": "polyfuse.data.corruption.table:SignFlipCorruption",
        "datetime_shift": "polyfuse.data.corruption.table:DatetimeShiftCorruption",
        "missing_cells": "polyfuse.data.corruption.table:MissingCellsCorruption",
        "swapped_cells": "polyfuse.data.corruption.table:SwappedCellsCorruption",
        "wrong_category": "polyfuse.data.corruption.table:WrongCategoryCorruption",
    },
)


def corruptions_for(columns: Sequence[Column]) -> list[str]:
    """Return the names of the corruptions that can change some of the columns.

    >>> corruptions_for([Column(name="sold", type="datetime")])
    ['datetime_shift', 'missing_cells', 'swapped_cells']
    """
    return readers(CORRUPTIONS, columns)
