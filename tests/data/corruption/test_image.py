"""Corruptions of images, measured in the result or derived a second time in plain numpy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from polyfuse.data.corruption import CORRUPTIONS
from polyfuse.data.corruption.image import reach
from polyfuse.data.corruption.image_blur import convolved, disc, line, spread
from polyfuse.data.schema import Column

COLUMN = Column(name="photo", type="image")
SEVERITIES = (1, 3, 5)
Pixels = NDArray[np.float64]


def damaged(name: str, image: Image.Image, severity: int, seed: int = 0) -> tuple[Pixels, Any]:
    """Return what becomes of an image, in [0, 1], and the setting."""
    corruption = CORRUPTIONS.build(name, {"severity": severity}, COLUMN)
    (found,) = corruption([image], np.random.default_rng(seed), lambda: None)
    return np.asarray(found, dtype=np.float64) / 255, corruption.setting


def flat(value: int, side: int = 100) -> Image.Image:
    return Image.new("RGB", (side, side), (value, value, value))


def ramp(side: int = 101) -> Image.Image:
    """Return an image whose red is twice the column, and whose green twice the row, of each pixel."""
    pixels = np.zeros((side, side, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = 2 * np.arange(side), 2 * np.arange(side)[:, None]
    return Image.fromarray(pixels)


def mosaic(wide: int = 60, high: int = 40, low: int = 0, top: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(low, top, (high, wide, 3), dtype=np.uint8))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_its_deviation(severity: int) -> None:
    found, sigma = damaged("gaussian_noise", flat(128), severity)
    added = found - 128 / 255
    # The mean of |z| rather than that of z²: it hardly feels the cut at two deviations, where σ is a quarter.
    assert np.abs(added).mean() / (2 / np.pi) ** 0.5 == pytest.approx(sigma, rel=0.03)
    assert added.mean() == pytest.approx(0, abs=0.01)
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("grey", [20, 128])
def test_shot_noise_has_the_variance_of_counted_photons(severity: int, grey: int) -> None:
    found, photons = damaged("shot_noise", flat(grey), severity)
    assert found.mean() == pytest.approx(grey / 255, rel=0.03)
    # A count has its mean for a variance.
    assert found.var() == pytest.approx(grey / 255 / photons, rel=0.12)


def test_no_light_has_no_shot_noise() -> None:
    assert not damaged("shot_noise", flat(0), 5)[0].any()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_strikes_its_share_of_pixels_white_and_black_alike(severity: int) -> None:
    found, share = damaged("impulse_noise", flat(128, 200), severity)
    white, black = (np.all(found == value, axis=-1).mean() for value in (1, 0))
    assert (white, black) == (pytest.approx(share / 2, rel=0.2), pytest.approx(share / 2, rel=0.2))
    assert np.isclose(found, 128 / 255).all(-1).mean() == pytest.approx(1 - white - black)


@pytest.mark.parametrize("radius", [0.2, 0.7, 3.0, 11.5])
def test_a_disc_spreads_as_a_disc(radius: float) -> None:
    kernel = spread(*disc(radius)).astype(np.float64)
    at = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel == pytest.approx(kernel.T, abs=1e-6)
    assert kernel == pytest.approx(kernel[::-1, ::-1], abs=1e-6)
    # The second moment of a disc is r² / 4; bilinear shares add a sixth, less where all lies within a pixel.
    moment = kernel.sum(0) @ at**2
    assert 0.98 * radius**2 / 4 < moment < 1.02 * radius**2 / 4 + min(0.25, 0.45 * radius)
    assert not kernel[np.add.outer(at**2, at**2) > (radius + 2**0.5) ** 2].any()


@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, 2.5])
@pytest.mark.parametrize("length", [1.0, 6.0, 25.0])
def test_a_line_spreads_as_a_line(length: float, angle: float) -> None:
    kernel = spread(*line(length, angle)).astype(np.float64)
    at = np.arange(len(kernel)) - len(kernel) // 2
    y, x = np.meshgrid(at, at, indexing="ij")
    along, off = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (kernel * along).sum() == pytest.approx(0, abs=1e-5)
    # The second moment of a line of this length is L² / 12 along it, none across it.
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, rel=0.3, abs=0.25)
    assert (kernel * off**2).sum() < 0.26


def test_convolution_is_the_sum_over_neighbours_with_a_mirror_at_the_border() -> None:
    pixels = (np.asarray(mosaic(9, 7)) / 255).astype(np.float32)
    kernel = spread(*line(5.0, 0.7))
    middle = len(kernel) // 2

    def mirrored(i: int, side: int) -> int:
        i %= 2 * side
        return i if i < side else 2 * side - 1 - i

    expected = np.zeros((7, 9, 3))
    for row, column in np.ndindex(7, 9):
        for (down, across), weight in np.ndenumerate(kernel):
            at = mirrored(row + middle - down, 7), mirrored(column + middle - across, 9)
            expected[row, column] += weight * pixels[at]
    assert convolved(pixels, kernel) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur"])
def test_a_point_becomes_a_disc_or_a_line(name: str, severity: int) -> None:
    point = flat(0, 101)
    point.putpixel((50, 50), (255, 255, 255))
    found, share = damaged(name, point, severity)
    weights, at = found[..., 0] / found[..., 0].sum(), np.arange(101) - 50
    moments = np.linalg.eigvalsh(
        [[weights.sum(0) @ at**2, at @ weights @ at], [at @ weights @ at, weights.sum(1) @ at**2]]
    )
    size = share * (101 + 16)
    expected = [size**2 / 4] * 2 if name == "defocus_blur" else [0, size**2 / 12]
    # Bilinear shares add up to a quarter; light below half of 1 / 255 is lost.
    assert moments == pytest.approx(expected, rel=0.15, abs=0.3)


def test_motion_goes_in_all_directions() -> None:
    point, found = flat(0, 61), []
    point.putpixel((30, 30), (255, 255, 255))
    for seed in range(30):
        weights = damaged("motion_blur", point, 5, seed)[0][..., 0]
        at = np.arange(61) - 30
        found.append(0.5 * np.arctan2(2 * at @ weights @ at, weights.sum(0) @ at**2 - weights.sum(1) @ at**2))
    assert np.histogram(found, 3, (-np.pi / 2, np.pi / 2))[0].min() >= 4


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_the_mean_of_enlarged_images(severity: int) -> None:
    found, most = damaged("zoom_blur", ramp(), severity)
    # A plane enlarged z times about its middle has a slope of 1 / z: on average over 1 to 1 + m, log(1 + m) / m.
    slope = (found[50, 80, 0] - found[50, 20, 0]) / 60 * 255 / 2
    assert slope == pytest.approx(np.log(1 + most) / most, rel=0.02)
    assert found[50, 50, :2] * 255 == pytest.approx(100, abs=1)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_glass_scatters_within_its_distance(severity: int) -> None:
    found, share = damaged("glass_blur", ramp(), severity)
    most = share * (101 + 16)
    moved = ((found - np.asarray(ramp()) / 255) * 255 / 2)[15:-15, 15:-15, :2]
    assert np.abs(moved).max() < most + 1
    assert np.abs(moved).max() > 0.3 * most
    assert moved.mean() == pytest.approx(0, abs=0.1 * most)
    # Neighbours go their own ways, but for the little blur.
    assert abs(np.corrcoef(moved[:-4, :, 0].ravel(), moved[4:, :, 0].ravel())[0, 1]) < 0.35


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_covers_its_share_and_haze_the_rest(severity: int) -> None:
    found = [damaged("snow", flat(0, 120), severity, seed)[0] for seed in range(8)]
    cover, haze = damaged("snow", flat(0), severity)[1]
    flakes = (np.array(found)[..., 0] - 0.8 * haze) / (1 - 0.8 * haze)
    assert np.quantile(flakes, 0.02) == pytest.approx(0, abs=0.01), "between the flakes there is haze alone"
    # Flakes shine at 0.8 on average; where they overlap, they are cut off at 1.
    assert flakes.mean() == pytest.approx(0.8 * cover, rel=0.25)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_hides_between_half_and_all_of_its_density(severity: int) -> None:
    black, density = damaged("fog", flat(0), severity)
    thickness = black / 0.9
    assert thickness.min() == pytest.approx(density / 2, abs=0.005)
    assert thickness.max() == pytest.approx(density, abs=0.005)
    assert damaged("fog", flat(255), severity)[0] == pytest.approx(1 - thickness + 0.9 * thickness, abs=0.005)
    # In swathes: neighbours are alike.
    assert np.abs(np.diff(thickness, axis=0)).mean() < 0.05 * density


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_is_whole_at_the_border_and_thin_in_the_middle(severity: int) -> None:
    black, density = damaged("frost", flat(0), severity)
    thickness = black / (0.85, 0.92, 1.0)
    assert np.ptp(thickness, axis=-1).max() < 0.01
    border = np.concatenate([thickness[0], thickness[-1], thickness[:, 0], thickness[:, -1]])
    assert border == pytest.approx(density, abs=0.01)
    middle = thickness[35:65, 35:65]
    assert np.median(middle) < 0.6 * density
    assert middle.max() > 1.5 * np.median(middle), "there are veins"


@pytest.mark.parametrize("severity", SEVERITIES)
def test_light_and_colour_are_their_formulas(severity: int) -> None:
    image = mosaic(low=115, top=136)
    before = np.asarray(image) / 255
    found, more = damaged("brightness", image, severity)
    assert found == pytest.approx(np.minimum(before + more, 1), abs=0.003)
    found, contrast = damaged("contrast", image, severity)
    assert found.mean((0, 1)) == pytest.approx(before.mean((0, 1)), abs=0.003)
    assert found.std((0, 1)) == pytest.approx(contrast * before.std((0, 1)), rel=0.1)
    found, vivid = damaged("saturate", image, severity)
    luma = np.array([0.299, 0.587, 0.114])
    assert found @ luma == pytest.approx(before @ luma, abs=0.003)
    # Differences of colours grow by the factor.
    assert found[..., 0] - found[..., 2] == pytest.approx(vivid * (before[..., 0] - before[..., 2]), abs=0.006)


def test_grey_stays_grey() -> None:
    assert damaged("saturate", flat(77), 5)[0] * 255 == pytest.approx(77)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_shows_means_over_blocks(severity: int) -> None:
    image = mosaic(124, 62)
    found, share = damaged("pixelate", image, severity)
    block = 1 + share * (124 + 16)
    columns, rows = round(124 / block), round(62 / block)
    edges = np.any(found[:, 1:] != found[:, :-1], axis=(0, 2)).sum(), np.any(found[1:] != found[:-1], axis=(1, 2)).sum()
    assert edges == (columns - 1, rows - 1)
    assert found.mean() == pytest.approx(np.asarray(image).mean() / 255, abs=0.01)


def test_blocks_of_whole_pixels_are_exact() -> None:
    # 1 + 0.005 (176 + 16) = 2 pixels a side.
    image = mosaic(184, 92)
    found, _ = damaged("pixelate", image, 2)
    means = np.asarray(image, dtype=float).reshape(46, 2, 92, 2, 3).mean((1, 3)) / 255
    assert found == pytest.approx(means.repeat(2, 0).repeat(2, 1), abs=0.004)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_is_what_a_file_of_this_quality_holds(severity: int) -> None:
    image = mosaic()
    found, quality = damaged("jpeg", image, severity)
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=quality)
    assert np.array_equal(found, np.asarray(Image.open(file)) / 255)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_moves_smoothly_by_its_share(severity: int) -> None:
    moved = []
    for seed in range(12):
        found, share = damaged("elastic", ramp(), severity, seed)
        moved.append(((found - np.asarray(ramp()) / 255) * 255 / 2)[12:-12, 12:-12, :2])
    far = share * (101 + 16)
    # Between the points of the grid the deviation is about three quarters of what it is on them.
    assert np.std(moved) == pytest.approx(0.75 * far, rel=0.25)
    assert np.mean(moved) == pytest.approx(0, abs=0.3 * far)
    # Waves of about two cells, 40 pixels: next to each other, pixels move alike, up to rounding to half a pixel.
    assert np.abs(np.diff(moved, axis=1)).mean() < 0.1 * far + 0.3


def test_lengths_are_shares_of_the_side_and_16_pixels() -> None:
    assert reach(np.zeros((8, 5, 3), dtype=np.float32)) == 24
    assert reach(np.zeros((40, 200, 3), dtype=np.float32)) == 216


def test_each_image_of_a_cell_is_changed_by_itself() -> None:
    corruption = CORRUPTIONS.build("gaussian_noise", {}, COLUMN)
    first, second = corruption([flat(128), flat(128)], np.random.default_rng(0), lambda: None)
    assert first.tobytes() != second.tobytes()
    assert corruption([], np.random.default_rng(0), lambda: None) == []
