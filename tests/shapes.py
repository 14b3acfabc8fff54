"""Surfaces of simple solids as point clouds, and files of clouds written by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Cloud = NDArray[np.float32]
LABELS = ["cone", "cube", "cylinder", "sphere"]


def sphere(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    drawn = random.normal(size=(count, 3))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def cube(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    drawn = random.uniform(-1, 1, (count, 3))
    drawn[np.arange(count), random.integers(3, size=count)] = random.choice([-1.0, 1.0], count)
    return drawn


def cylinder(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    angle, height = random.uniform(0, 2 * np.pi, count), random.uniform(-1, 1, count)
    return np.stack([np.cos(angle), np.sin(angle), height], 1)


def cone(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    angle, down = random.uniform(0, 2 * np.pi, count), np.sqrt(random.uniform(0, 1, count))
    return np.stack([down * np.cos(angle), down * np.sin(angle), 1 - 2 * down], 1)


SOLIDS: dict[str, Callable[[int, np.random.Generator], NDArray[np.float64]]] = {
    "cone": cone,
    "cube": cube,
    "cylinder": cylinder,
    "sphere": sphere,
}


def solids(rows: int, seed: int = 0, noise: float = 0.02) -> pd.DataFrame:
    """Return a table of clouds of different lengths, turned about their axis, beside a number that says a little."""
    random = np.random.default_rng(seed)
    clouds, labels, weights = [], [], []
    for row in range(rows):
        label = LABELS[row % len(LABELS)]
        cloud = SOLIDS[label](int(random.integers(48, 80)), random)
        angle = random.uniform(0, 2 * np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        moved = random.uniform(0.5, 3) * cloud @ turn.T + random.normal(scale=5, size=3)
        clouds.append((moved + random.normal(scale=noise, size=moved.shape)).astype(np.float32))
        labels.append(label)
        weights.append(float(LABELS.index(label) + random.normal(scale=2)))
    return pd.DataFrame({"cloud": pd.Series(clouds, dtype=object), "weight": weights, "solid": labels})


def ply(cloud: Cloud, names: str, *, text: bool = False, big: bool = False, colours: bool = False) -> bytes:
    """Return a PLY file as its description (Turk 1994) says; the last three numbers are colours where there are some.

    A face stands behind the vertices.
    """
    properties = names.split()
    kinds = ["uchar" if colours and i >= len(properties) - 3 else "float" for i in range(len(properties))]
    form = "ascii" if text else f"binary_{'big' if big else 'little'}_endian"
    lines = ["ply", f"format {form} 1.0", "comment by hand", f"element vertex {len(cloud)}"]
    lines += [f"property {kind} {name}" for kind, name in zip(kinds, properties, strict=True)]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header"]
    head = ("\n".join(lines) + "\n").encode()
    rows = [[int(x) if kind == "uchar" else float(x) for x, kind in zip(row, kinds, strict=True)] for row in cloud]
    if text:
        return head + "".join(" ".join(map(repr, row)) + "\n" for row in rows).encode() + b"3 0 1 2\n"
    order = ">" if big else "<"
    pack = struct.Struct(order + "".join("B" if kind == "uchar" else "f" for kind in kinds))
    return head + b"".join(pack.pack(*row) for row in rows) + struct.pack(order + "B3i", 3, 0, 1, 2)


def npy(cloud: Cloud) -> bytes:
    """Return an NPY file as its description says (NEP 1): magic, version, length of the header, header, data."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {cloud.shape}, }}"
    head += " " * (-(len(head) + 11) % 64) + "\n"
    data = b"".join(struct.pack("<f", float(x)) for x in cloud.ravel())
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def xyz(cloud: Cloud, *, counted: bool = False) -> bytes:
    """Return text, a point a line; with the number of points before it as some scanners write it."""
    lines = [" ".join(repr(float(x)) for x in point) for point in cloud]
    return ("\n".join([*([str(len(cloud))] if counted else []), *lines]) + "\n").encode()
