"""The keypad table: key presses seen, heard and described, made from a seed. No network, no file."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

#: Samples a second of every recording.
RATE = 8000
#: Tones of the rows and the columns of a telephone keypad in Hz (ITU-T Recommendation Q.23).
ROW_TONES = (697.0, 770.0, 852.0, 941.0)
COLUMN_TONES = (1209.0, 1336.0, 1477.0)
#: Row and column of each digit.
_PLACES = ((3, 1), (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2))
#: Side of an image in pixels.
SIDE = 16

_ABSENT = 0.1
_FADED = 0.4
_TYPING_ERRORS = 0.02

# What a note may say, and the keys for which it is true.
_ONE_KEY = {
    "0": "nothing at all|zip, nada|how many things an empty box holds|the one at the very bottom|love, in tennis",
    "1": "the loneliest number|first place, gold medal|how many horns a unicorn has|how many moons the earth has",
    "2": "a pair|a couple|how many wheels a bicycle has|how many eyes you have|twins|the silver medal place",
    "3": "a trio|how many sides a triangle has|how many wheels a tricycle has|the bronze medal place|a hat trick",
    "4": "how many legs a dog has|the seasons of the year|a quartet|how many corners a square has|suits of cards",
    "5": "the fingers of a hand|the centre of the pad|how many arms a starfish has|half of ten|the olympic rings",
    "6": "half a dozen|how many faces a cube has|how many legs an insect has|strings of a guitar|a hexagon",
    "7": "the days of the week|the colours of the rainbow|snow white's dwarfs|wonders of the world|the deadly sins",
    "8": "how many legs a spider has|arms of an octopus|just above the zero|the bits of a byte|planets of the sun",
    "9": "the lives of a cat|one short of ten|the biggest of the digits|three times three|months of a pregnancy",
}
_TWO_KEYS = {
    "12": "one of the two smallest above zero|a podium place but not bronze",
    "34": "a bit more than two, less than five",
    "56": "between four and seven|a little over four",
    "08": "the middle column, low down|round and even, at the bottom",
    "89": "more than seven|one of the two biggest digits",
    "67": "just over five|half a dozen or one more",
    "49": "a square number above one|two squared or three squared",
    "25": "a prime number in the middle column",
    "17": "the left side, top or bottom",
    "30": "a ring, whole or broken|round on the right side, three or less",
}
_MORE_KEYS = {
    "123": "somewhere in the top row|the upper row of keys",
    "456": "the second row|in the middle row",
    "789": "the third row|the row above the bottom",
    "147": "in the left column|on the left hand side",
    "2580": "in the middle column|in the central line of keys",
    "369": "in the right column|on the right hand side|a multiple of three",
    "02468": "an even digit|you can divide it by two",
    "13579": "an odd digit|not an even number",
    "1379": "a key in one of the corners",
    "2357": "a prime number",
    "0689": "it has a closed loop in it",
    "012": "a very small number|less than three",
    "378": "the word for it has five letters",
    "126": "the word for it has only three letters",
}
_OPENERS = (
    "",
    "",
    "",
    "she pressed ",
    "it was ",
    "i think it is ",
    "he meant ",
    "looks like ",
    "they said ",
    "must be ",
)
_CLOSERS = ("", "", "", "", ", i guess", ", for sure", ", pressed in a hurry", ", she was on the phone", " i believe")

_FINGERS = ("thumb", "index", "middle")


def keypad(rows: int = 1600, seed: int = 0) -> pd.DataFrame:
    """Return a table of key presses.

    No column suffices alone, and about a tenth of the cells of each modality is absent (None or NaN). Columns:

    - `image`: (16, 16) uint8, a handwritten digit, bright on black, a part of it covered in grey. The digits are the
      test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), as it comes with
      scikit-learn.
    - `audio`: (samples, rate), float32 in [-1, 1] at 8 kHz, 0.1 to 0.2 s: the two tones of the key (ITU-T
      Recommendation Q.23) in noise; often one of the two is hardly there.
    - `note`: a few words with typing errors, true of one key or of several.
    - `pressure` (0 to 1), `hold_ms`, `finger`: weak hints on the row and the column of the key.
    - `key`: "0" to "9", the target.

    Args:
        rows: number of key presses.
        seed: of everything; the same seed gives the same table.
    """
    random = np.random.default_rng(seed)
    images, labels = _digits()
    return _table(images, labels, rows, random)


def keypad_split(train_rows: int = 1200, test_rows: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tables as of `keypad`, that share no handwritten digit: three quarters of them are for training."""
    random = np.random.default_rng(seed)
    images, labels = _digits()
    order = random.permutation(len(images))
    cut = 3 * len(images) // 4
    train, test = order[:cut], order[cut:]
    return (
        _table(images[train], labels[train], train_rows, random),
        _table(images[test], labels[test], test_rows, random),
    )


def keypad_moved(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return a table of `keypad` from a world that has moved: what the model of yesterday gets today.

    A new camera shows digits dark on bright, the microphone hisses, keys are held longer, and more people type with the
    thumb. Keys are as frequent as before, and what was true of a key still is. The digits are those of the test table
    of `keypad_split` with the same seed: none is of its training table.
    """
    images, labels = _digits()
    test = np.random.default_rng(seed).permutation(len(images))[3 * len(images) // 4 :]
    random = np.random.default_rng([seed, 1])
    table = _table(images[test], labels[test], rows, random)
    table["image"] = [None if cell is None else 255 - cell for cell in table["image"]]
    sounds = [None if cell is None else (_hissing(cell[0], random), cell[1]) for cell in table["audio"]]
    table["audio"] = pd.Series(sounds, dtype=object)
    table["hold_ms"] = (1.3 * table["hold_ms"]).round(1)
    thumbs = table["finger"].notna() & (random.random(rows) < 0.3)
    table["finger"] = table["finger"].mask(thumbs, "thumb")
    return table


def _hissing(samples: Floats, random: np.random.Generator) -> Floats:
    """Return samples with white noise 16 dB below full scale."""
    noisy: Floats = np.clip(samples + random.normal(0, 0.15, len(samples)), -1, 1).astype(np.float32)
    return noisy


def _digits() -> tuple[Floats, NDArray[np.int64]]:
    """Return images (images, 8, 8) in [0, 1] and the digits that they show (images,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


def _table(images: Floats, labels: NDArray[np.int64], rows: int, random: np.random.Generator) -> pd.DataFrame:
    rounds = 1 + rows // len(images)
    sources = np.concatenate([random.permutation(len(images)) for _ in range(rounds)])[:rows]
    keys = [int(labels[source]) for source in sources]
    absent = random.random((rows, 4)) < _ABSENT
    absent[absent.all(axis=1), random.integers(4)] = False
    hints = [_hints(key, random) for key in keys]
    cells: dict[str, list[Any]] = {
        "image": [_image(images[source], random) for source in sources],
        "audio": [_audio(key, random) for key in keys],
        "note": [_note(key, random) for key in keys],
        "pressure": [hint[0] for hint in hints],
        "hold_ms": [hint[1] for hint in hints],
        "finger": [hint[2] for hint in hints],
    }
    for i, columns in enumerate((("image",), ("audio",), ("note",), ("pressure", "hold_ms", "finger"))):
        for column in columns:
            cells[column] = [None if gone else cell for cell, gone in zip(cells[column], absent[:, i], strict=True)]
    table = pd.DataFrame({name: pd.Series(values, dtype=_DTYPES.get(name, object)) for name, values in cells.items()})
    table["key"] = pd.Series([str(key) for key in keys], dtype="str")
    return table


_DTYPES: dict[str, Any] = {"note": "str", "finger": "str", "pressure": "float64", "hold_ms": "float64"}


def _image(digit: Floats, random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the digit (8, 8) at twice its size, one side or one block of it covered, with some noise."""
    from PIL import Image

    seen = digit + random.normal(0, 0.12, size=digit.shape)
    grey = random.uniform(0.2, 0.8)
    if random.random() < 0.5:
        depth = int(random.integers(3, 5))
        turned = np.rot90(seen, int(random.integers(4)))
        turned[:depth] = grey
    else:
        top, left = random.integers(0, 4, size=2)
        seen[top : top + 5, left : left + 5] = grey
    pixels = np.clip(255 * seen, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _audio(key: int, random: np.random.Generator) -> tuple[Floats, int]:
    """Return the tones of a key in noise."""
    row, column = _PLACES[key]
    time = np.arange(int(random.uniform(0.1, 0.2) * RATE)) / RATE
    amplitudes = random.uniform(0.7, 1.0, size=2)
    if random.random() < _FADED:
        amplitudes[random.integers(2)] *= 0.05
    tones = sum(
        amplitude * np.sin(2 * np.pi * tone * time + random.uniform(0, 2 * np.pi))
        for amplitude, tone in zip(amplitudes, (ROW_TONES[row], COLUMN_TONES[column]), strict=True)
    )
    noise = random.normal(0, random.uniform(0.7, 1.9), size=len(time))
    samples = 0.12 * random.uniform(0.5, 1.0) * (tones + noise)
    return np.clip(samples, -1, 1).astype(np.float32), RATE


def _note(key: int, random: np.random.Generator) -> str:
    """Return a note that is true of the key."""
    digit = str(key)
    choices = [_ONE_KEY, _TWO_KEYS, _MORE_KEYS]
    facts = choices[random.choice(3, p=(0.5, 0.15, 0.35))]
    phrases = [phrase for keys, some in facts.items() if digit in keys for phrase in some.split("|")]
    words = str(random.choice(_OPENERS)) + str(random.choice(phrases)) + str(random.choice(_CLOSERS))
    return _mistype(words, random)


def _mistype(words: str, random: np.random.Generator) -> str:
    """Drop, double or swap some of the letters."""
    typed = list(words)
    for i in np.flatnonzero(random.random(len(typed)) < _TYPING_ERRORS):
        if not typed[i].isalpha():
            continue
        kind = random.integers(3)
        if kind == 2 and i + 1 < len(typed):
            typed[i], typed[i + 1] = typed[i + 1], typed[i]
        else:
            typed[i] = "" if kind == 0 else typed[i] * 2
    return "".join(typed)


def _hints(key: int, random: np.random.Generator) -> tuple[float, float, str]:
    """Return pressure, milliseconds of the press, and the finger."""
    row, column = _PLACES[key]
    pressure = float(np.clip(random.normal(0.3 + 0.12 * row, 0.13), 0.01, 1))
    hold = float(random.lognormal(np.log(90 + 45 * column), 0.3))
    finger = _FINGERS[column] if random.random() < 0.55 else str(random.choice(_FINGERS))
    return round(pressure, 3), round(hold, 1), finger
