"""Pictures and texts, and what is made of them by small changes."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

WORDS = [f"w{i}{'abcdefghij'[i % 10] * (i % 4 + 1)}" for i in range(400)]


def picture(seed: int, side: int = 64) -> Image.Image:
    """Draw a picture with shapes: as photographs are, smooth in most places."""
    drawn = np.random.default_rng(seed)
    coarse = Image.fromarray(drawn.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 60) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(io.BytesIO(written.getvalue())).convert("RGB")


def brighter(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image, dtype=float) * 0.8 + 30).clip(0, 255).astype(np.uint8))


def text(seed: int, words: int = 30) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))
