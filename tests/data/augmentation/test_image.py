"""Augmentations of images against their definitions in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from polyfuse.data.augmentation import AUGMENTATIONS
from polyfuse.data.schema import Column

COLUMN = Column(name="photo", type="image")
LUMA = np.array([0.299, 0.587, 0.114])


def augmented(name: str, image: Image.Image, seed: int, **options: Any) -> NDArray[np.float64]:
    built = AUGMENTATIONS.build(name, {"probability": 1.0, **options}, COLUMN)
    (found,) = built([image], np.random.default_rng(seed), lambda: None)
    return np.asarray(found, dtype=np.float64)


def plane(wide: int = 250, high: int = 250) -> Image.Image:
    """Return an image whose red is the column, and whose green is the row, of each pixel."""
    pixels = np.zeros((high, wide, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(wide), np.arange(high)[:, None]
    return Image.fromarray(pixels)


def pastel(wide: int = 30, high: int = 20, seed: int = 0) -> Image.Image:
    """Return an image whose colours do not leave the range under moderate changes."""
    return Image.fromarray(np.random.default_rng(seed).integers(100, 150, (high, wide, 3), dtype=np.uint8))


def boxes(**options: Any) -> NDArray[np.float64]:
    """Return left, top, width and height, in pixels, of the boxes that 400 crops show of a plane."""
    found = []
    for seed in range(400):
        pixels = augmented("crop", plane(), seed, **options)
        red, green = pixels[125, :, 0], pixels[:, 125, 1]
        # Away from the ends, where interpolation leans on the edge; half a pixel lies before the first centre.
        across, down = (red[230] - red[20]) / 210, (green[230] - green[20]) / 210
        found.append((red[20] + 0.5 - 20.5 * across, green[20] + 0.5 - 20.5 * down, 250 * across, 250 * down))
    return np.array(found)


def test_crop_shows_a_share_of_the_area_in_its_range() -> None:
    left, top, width, height = boxes(least=0.4, aspect=1.5).T
    area = width * height / 250**2
    assert area.min() > 0.4 - 0.01
    assert area.max() < 1 + 0.01
    # The share is uniform: its mean within four standard errors, its deciles near those of the uniform law.
    assert area.mean() == pytest.approx(0.7, abs=4 * 0.6 / 12**0.5 / 20)
    assert np.quantile(area, [0.1, 0.5, 0.9]) == pytest.approx([0.46, 0.7, 0.94], abs=0.05)
    proportion = width / height
    assert proportion.max() < 1.5 * 1.02
    assert proportion.min() > 1 / 1.5 / 1.02
    assert np.log(proportion).mean() == pytest.approx(0.0, abs=0.05)
    # Anywhere inside: what lies before the box and what lies after it are alike, and neither is ever negative.
    for before, side in ((left, width), (top, height)):
        after = 250 - before - side
        assert min(before.min(), after.min()) > -1.5
        assert before.mean() == pytest.approx(after.mean(), rel=0.2)
        assert np.corrcoef(before, after)[0, 1] < 0.5


def test_crop_keeps_the_proportion_when_asked() -> None:
    _, _, width, height = boxes(least=0.3, aspect=1.0).T
    assert width / height == pytest.approx(np.ones(400), rel=0.02)


def test_crop_of_the_whole_changes_nothing() -> None:
    assert np.array_equal(augmented("crop", plane(), 0, least=1.0), np.asarray(plane()))


@pytest.mark.parametrize(("size", "shape"), [(512, (40, 90, 3)), (30, (13, 30, 3)), (8, (4, 8, 3))])
def test_crop_bounds_the_longer_side(size: int, shape: tuple[int, ...]) -> None:
    assert augmented("crop", plane(90, 40), 0, size=size).shape == shape


def test_crop_keeps_at_least_a_pixel_of_a_strip() -> None:
    assert augmented("crop", Image.new("RGB", (200, 1), "red"), 0, size=8).shape == (1, 8, 3)


def test_flip_is_a_mirror() -> None:
    assert np.array_equal(augmented("flip", pastel(), 0), np.asarray(pastel())[:, ::-1])


def test_colour_is_brightness_contrast_and_saturation_one_after_the_other() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        random.random()
        bright, contrast, vivid, _ = (1 + 0.2 * random.uniform(-1, 1) for _ in range(4))
        pixels = np.asarray(pastel(), dtype=np.float64) * bright
        pixels = (pixels @ LUMA).mean() + contrast * (pixels - (pixels @ LUMA).mean())
        grey = (pixels @ LUMA)[..., None]
        expected = grey + vivid * (pixels - grey)
        found = augmented("colour", pastel(), seed, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.0)
        assert np.abs(found - expected).max() < 1.1  # rounding, and the rounding of the mean


def test_hue_turns_chroma_and_keeps_luma() -> None:
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    before = np.asarray(pastel(), dtype=np.float64)
    angles = []
    for seed in range(200):
        after = augmented("colour", pastel(), seed, **still, hue=0.1)
        assert np.abs((after - before) @ LUMA).max() < 1
        # The angle between the two in the plane of I and Q, by least squares over all pixels.
        axes = np.array([[0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
        old, new = before @ axes.T @ [1, 1j], after @ axes.T @ [1, 1j]
        turned = np.vdot(old, new) / np.vdot(old, old)
        assert abs(turned) == pytest.approx(1, abs=0.02)
        angles.append(np.angle(turned) / (2 * np.pi))
    assert np.abs(angles).max() < 0.1 + 0.005
    assert np.quantile(np.abs(angles), 0.5) == pytest.approx(0.05, abs=0.015)


def test_grey_stays_grey() -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("RGB")
    for seed in range(20):
        found = augmented("colour", grey, seed, brightness=0.0, contrast=0.0, saturation=0.9, hue=0.5)
        assert np.array_equal(found, np.asarray(grey))


@pytest.mark.parametrize(("option", "spread"), [("brightness", 0.3), ("contrast", 0.3), ("saturation", 0.3)])
def test_strengths_are_uniform_up_to_the_option(option: str, spread: float) -> None:
    options = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, option: spread}
    before = np.asarray(pastel(), dtype=np.float64)

    def strength(pixels: NDArray[np.float64]) -> float:
        luma = pixels @ LUMA
        if option == "brightness":
            return float(luma.mean())
        return float(luma.std() if option == "contrast" else (pixels - luma[..., None]).std())

    factors = np.array([strength(augmented("colour", pastel(), s, **options)) for s in range(300)]) / strength(before)
    assert factors.min() > 1 - spread - 0.03
    assert factors.max() < 1 + spread + 0.03
    assert factors.std() == pytest.approx(2 * spread / 12**0.5, rel=0.15)


def erased(fill: str = "noise", **options: Any) -> NDArray[np.float64]:
    """Return left, top, width, height and share of changed pixels within, of the boxes covered in a black image."""
    found = []
    for seed in range(400):
        changed = augmented("erase", Image.new("RGB", (100, 80)), seed, fill=fill, **options).max(-1) > 0
        down, across = np.flatnonzero(changed.max(1)), np.flatnonzero(changed.max(0))
        left, top, width, height = across[0], down[0], np.ptp(across) + 1, np.ptp(down) + 1
        inside = changed[top : top + height, left : left + width]
        found.append((left, top, width, height, inside.mean()))
    return np.array(found)


def test_erase_covers_one_box_of_an_area_in_its_range() -> None:
    left, top, width, height, filled = erased(least=0.1, most=0.5, aspect=2.0).T
    assert filled.min() == 1.0
    area = width * height / 8000
    assert area.min() > 0.1 - 0.01
    assert area.max() < 0.5 + 0.01
    assert area.mean() == pytest.approx(0.3, abs=0.025)
    proportion = (width / 100) / (height / 80)
    assert 1 / 2.1 < proportion.min() < 0.65
    assert 1.5 < proportion.max() < 2.1
    # Anywhere: every corner is reached.
    assert left.min() == 0
    assert top.min() == 0
    assert (left + width).max() == 100
    assert (top + height).max() == 80


def test_erase_fills_with_noise_or_with_the_mean() -> None:
    image = pastel(60, 60)
    before = np.asarray(image, dtype=np.float64)
    options: dict[str, Any] = {"least": 0.3, "most": 0.3, "aspect": 1.0}
    noise, mean = (
        augmented("erase", image, 3, fill="noise", **options),
        augmented("erase", image, 3, **options, fill="mean"),
    )
    covered = (mean == np.rint(before.mean((0, 1)))).all(-1)
    assert covered.mean() == pytest.approx(0.3, abs=0.02)
    assert noise[covered].std() == pytest.approx(256 / 12**0.5, rel=0.05)
    assert np.array_equal(noise[~covered], before[~covered])
    assert np.array_equal(mean[~covered], before[~covered])


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 3)])
def test_erase_never_covers_all(size: tuple[int, int]) -> None:
    grey = Image.new("RGB", size, (9, 9, 9))
    for seed in range(50):
        assert (augmented("erase", grey, seed, least=0.95, most=0.99) == 9).all(-1).any()


def blob(pixels: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the middle (x, y), the area and the angle of what is bright."""
    grey = pixels[..., 0] / 255
    y, x = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
    area = grey.sum()
    cx, cy = (grey * x).sum() / area, (grey * y).sum() / area
    xx, yy, xy = ((grey * a * b).sum() for a, b in ((x - cx, x - cx), (y - cy, y - cy), (x - cx, y - cy)))
    return cx, cy, area, np.degrees(np.arctan2(2 * xy, xx - yy) / 2)


def bar() -> Image.Image:
    pixels = np.zeros((100, 120, 3), dtype=np.uint8)
    pixels[46:54, 40:80] = 255
    return Image.fromarray(pixels)


STILL = {"degrees": 0.0, "scale": 0.0, "shift": 0.0}


def test_affine_turns_about_the_middle() -> None:
    found = np.array([blob(augmented("affine", bar(), seed, **{**STILL, "degrees": 30.0})) for seed in range(200)])
    x, y, area, angle = found.T
    assert x == pytest.approx(np.full(200, 60), abs=0.1)
    assert y == pytest.approx(np.full(200, 50), abs=0.1)
    assert area == pytest.approx(np.full(200, 320), rel=0.02)
    assert np.abs(angle).max() < 30.5
    assert angle.std() == pytest.approx(60 / 12**0.5, rel=0.15)


def test_affine_zooms() -> None:
    found = np.array([blob(augmented("affine", bar(), seed, **{**STILL, "scale": 0.3})) for seed in range(200)])
    zoom = np.sqrt(found[:, 2] / 320)
    assert zoom.min() > 0.69
    assert zoom.max() < 1.31
    assert zoom.std() == pytest.approx(0.6 / 12**0.5, rel=0.15)


def test_affine_moves_by_a_share_of_each_side() -> None:
    found = np.array([blob(augmented("affine", bar(), seed, **{**STILL, "shift": 0.2})) for seed in range(200)])
    across, down = (found[:, 0] - 60) / 120, (found[:, 1] - 50) / 100
    for moved in (across, down):
        assert np.abs(moved).max() < 0.202
        assert moved.std() == pytest.approx(0.4 / 12**0.5, rel=0.15)
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.3


def test_affine_without_a_change_gives_the_image_back() -> None:
    assert np.array_equal(augmented("affine", pastel(), 0, **STILL), np.asarray(pastel()))


def test_what_comes_into_view_has_the_colour_of_the_border() -> None:
    pixels = np.full((40, 40, 3), (20, 60, 200), dtype=np.uint8)
    pixels[10:30, 10:30] = 255
    for seed in range(10):
        found = augmented("affine", Image.fromarray(pixels), seed, degrees=45.0, scale=0.0, shift=0.2)
        corners = found[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == [20, 60, 200]).all()


def test_the_images_of_a_cell_are_changed_each_by_itself() -> None:
    built = AUGMENTATIONS.build("crop", {}, COLUMN)
    first, second = built([plane(), plane()], np.random.default_rng(0), lambda: None)
    assert first.tobytes() != second.tobytes()
