"""What counts as nearly the same, on values that were changed a little and on others that were not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from altered import brighter, jpeg, picture, text
from polyfuse.core.types import Sound
from polyfuse.quality.looks import Look, look, vectors
from polyfuse.quality.nearness import near_looks, near_texts, near_vectors
from wild import cases


def tone(seed: int, rate: int = 8000, gain: float = 1.0) -> Sound:
    """Make a second of a melody of its own."""
    drawn = np.random.default_rng(seed)
    at = np.arange(rate) / rate
    notes = drawn.uniform(200, 3000, 8)[(at * 8).astype(int)]
    return Sound((gain * 0.5 * np.sin(2 * np.pi * notes * at)).astype(np.float32), rate)


@pytest.mark.parametrize(
    "change",
    [jpeg, brighter, lambda image: image.resize((48, 48), Image.Resampling.BICUBIC)],
    ids=["jpeg", "light", "size"],
)
def test_changed_images_are_near_and_others_are_not(change: Any) -> None:
    images = [picture(seed) for seed in range(60)]
    looks = [look([image]) for image in images] + [look([change(image)]) for image in images[:20]]
    classes = near_looks(looks)
    assert len(set(classes[:60])) == 60
    assert classes[60:] == classes[:20]


def test_several_images_are_near_where_each_is() -> None:
    first, second, third = picture(1), picture(2), picture(3)
    cells = [[first, second], [jpeg(first), brighter(second)], [first, third], [first], [second, first]]
    classes = near_looks([look(cell) for cell in cells])
    assert classes[0] == classes[1]
    assert len(set(classes)) == 4


def test_what_shows_nothing_is_near_only_to_itself() -> None:
    grey = [Image.new("RGB", (20, 20), (shade, shade, shade)) for shade in (0, 1, 100, 255)]
    assert len(set(near_looks([look([image]) for image in grey]))) == 4


def test_a_crowd_of_nearly_equal_images_is_one_class() -> None:
    image = np.asarray(picture(5), dtype=np.int16)
    drawn = np.random.default_rng(0)
    noisy = [(image + drawn.integers(-2, 3, image.shape)).clip(0, 255).astype(np.uint8) for _ in range(200)]
    assert len(set(near_looks([look([Image.fromarray(array)]) for array in noisy]))) == 1


def test_recordings_are_near_where_they_sound_alike_and_last_as_long() -> None:
    quieter = [tone(seed, gain=0.7) for seed in range(5)]
    resampled = Sound(np.interp(np.arange(0, 8000, 0.5), np.arange(8000), tone(0).samples).astype(np.float32), 16_000)
    longer = Sound(np.concatenate([tone(0).samples, tone(0).samples]), 8000)
    heard = [*(tone(seed) for seed in range(30)), *quieter, resampled, longer]
    classes = near_looks([look(sound) for sound in heard])
    assert len(set(classes[:30])) == 30
    assert classes[30:36] == [*classes[:5], classes[0]]
    assert classes[36] not in classes[:36]


def test_texts_are_near_where_most_of_them_is_the_same() -> None:
    texts = [text(seed) for seed in range(200)]
    changed = [f"  {some.upper()} !" for some in texts[:50]] + [
        some.replace(some.split()[7], "x") for some in texts[:50]
    ]
    classes = near_texts(texts + changed).tolist()
    assert classes[:200] == list(range(200))
    assert classes[200:] == [*range(50), *range(50)]


def test_near_texts_have_the_jaccard_similarity_that_is_promised() -> None:
    def shingles(some: str) -> set[str]:
        return {some[i : i + 5] for i in range(len(some) - 4)}

    texts = [text(1, 20)[: 60 + step] + text(2, 20)[: 60 - step] for step in range(0, 60, 3)]
    for i, leader in enumerate(near_texts(texts).tolist()):
        first, second = shingles(texts[i]), shingles(texts[leader])
        assert len(first & second) / len(first | second) >= 0.8
        before = [j for j in range(i) if len(first & shingles(texts[j])) / len(first | shingles(texts[j])) >= 0.8]
        assert leader == i or before


def test_short_texts_are_near_only_to_themselves() -> None:
    assert len(set(near_texts(["", "a", "ab", "abc", "abd", "abcd"]).tolist())) == 6


def test_embeddings_are_near_where_their_direction_is() -> None:
    vector = np.random.default_rng(0).normal(size=32).astype(np.float32)
    keys = near_vectors([vector, vector * 2, vector + 1.0, np.zeros(32, dtype=np.float32)])
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("type", ["image", "audio"])
@settings(max_examples=25)
@given(data=st.data())
def test_whatever_can_be_decoded_can_be_looked_at(type: str, data: st.DataObject) -> None:
    _, cells = data.draw(cases(type))
    looks = [look(cell) for cell in cells]
    assert [len(found) for found in near_looks(looks)] == [len(found.pictures) for found in looks]
    seen = np.array([bool(found.pictures) for found in looks])
    assert (np.isfinite(vectors(looks)).all(1) == seen).all()


def test_vectors_are_nan_where_there_is_nothing() -> None:
    looks: list[Look | None] = [look([picture(0)]), None, look([picture(1), picture(2)])]
    found = vectors(looks)
    assert np.isfinite(found[[0, 2]]).all()
    assert np.isnan(found[1]).all()
