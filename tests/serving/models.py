"""Small tables and models for servers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import soundfile
from PIL import Image

import polyfuse as pf
from shapes import npy

QUICK = {"epochs": 2, "batch_size": 32}


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wav(samples: np.ndarray, rate: int = 8000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def mixed(rows: int = 120, seed: int = 0) -> pd.DataFrame:
    """A table with an image, a recording, a text, a number, a category, a date, a vector, a cloud: each a little."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    words = np.array([["bad", "poor"], ["good", "fine"]])
    moments = pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), unit="D")
    return pd.DataFrame(
        {
            "photo": [png(np.clip(rng.normal(90 + 60 * i, 40, (10, 10)), 0, 255).astype(np.uint8)) for i in y],
            "sound": [wav(np.clip(rng.normal(0, 0.1 + 0.2 * i, 800), -1, 1)) for i in y],
            "note": [f"a {rng.choice(words[i])} day number {rng.integers(999)}" for i in y],
            "size in cm": rng.normal(y, 1.0),
            "shop": rng.choice(["north", "south"], rows),
            "day": [moment.isoformat() for moment in moments],
            "vector": [rng.normal(i, 1.0, 3).astype(np.float32).tolist() for i in y],
            "scan": [npy(rng.normal(0, 1.0 + 0.5 * i, (12, 3)).astype(np.float32)) for i in y],
            "label": np.array(["no", "yes"])[y],
            "price": rng.normal(10 + 5 * y, 1.0),
        }
    )


def recipe(checkpoint: str, target: str | list[str]) -> dict[str, Any]:
    return {
        "target": target,
        "modalities": {
            "image": {"columns": ["photo"], "encoder": {"name": "convnet", "width": 8}},
            "audio": {"columns": ["sound"], "encoder": {"name": "mel_convnet", "width": 8}},
            "text": {"columns": ["note"], "encoder": {"name": "transformer", "checkpoint": checkpoint}},
            "table": {"columns": ["size in cm", "shop", "day"]},
            "vector": {"columns": ["vector"], "encoder": {"name": "embedding"}},
            "points": {"columns": ["scan"], "encoder": {"name": "pointnet", "width": 8, "sized": True}},
        },
        "fusion": "concat",
        "training": QUICK,
    }


def records(table: pd.DataFrame, predictor: pf.Predictor) -> list[dict[str, Any]]:
    """Return rows as a request holds them once it is read."""
    return table[[column.name for column in predictor.schema.columns]].to_dict("records")
