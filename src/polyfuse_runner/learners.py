"""What was learned from Features without gradients: linear models, boosted trees, and statistics of words."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

_TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
_WORD = re.compile(r"\w+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LONGEST = 20_000  # characters of a text that are read
_ZERO = 1e-35  # LightGBM takes for 0 what lies within


@dataclass
class Read:
    """Rows as learners read them, each part by modality.

    Attributes:
        rows: how many there are.
        vectors: pooled Features (rows, dim), nan where the modality is absent.
        cells: of a table: numbers (rows, n), nan where missing, codes (rows, m), and how many each category has.
        words: of each row the places of its words, and their weights.
    """

    rows: int
    vectors: dict[str, Array] = field(default_factory=dict)
    cells: dict[str, tuple[Array, Array, Sequence[int]]] = field(default_factory=dict)
    words: dict[str, list[tuple[Array, Array]]] = field(default_factory=dict)

    def only(self, modalities: Sequence[str], parts: Sequence[str]) -> Read:
        """Return what some modalities say; parts: their "features" (and columns), the statistics of their "words"."""
        features, words = (modalities if part in parts else () for part in ("features", "words"))
        return Read(
            self.rows,
            {name: part for name, part in self.vectors.items() if name in features},
            {name: part for name, part in self.cells.items() if name in features},
            {name: part for name, part in self.words.items() if name in words},
        )


class Words:
    """TF-IDF of words and pairs of neighbours, each row of length 1."""

    def __init__(self, path: Path) -> None:
        found = json.loads(path.read_text(encoding="utf-8"))
        self.places = {word: place for place, word in enumerate(found["words"])}
        self.idf = np.asarray(found["idf"], dtype=np.float64)

    def read(self, text: str | None) -> tuple[Array, Array]:
        """Return the places of a text's words, and (1 + log tf)·idf, normalised."""
        found = Counter(self.places[word] for word in _words(text) if word in self.places)
        some = sorted(found)
        weighed = np.array([(1 + math.log(found[place])) * self.idf[place] for place in some])
        return np.array(some, dtype=np.int64), weighed / max(float(np.linalg.norm(weighed)), 1e-12)


class Linear:
    """η = w_0 + Σ_b X_b w_b over blocks: Features, columns and words of each modality."""

    def __init__(self, folder: Path, target: Mapping[str, Any]) -> None:
        self.target, self.blocks = target, dict[str, dict[str, Array]]()
        for key, tensor in tensors(folder / "linear.safetensors").items():
            kind, _, name = key.partition("/")
            self.blocks.setdefault(name, {})[kind] = tensor.astype(np.float64)
        self.intercept = self.blocks.pop("")["intercept"]

    def scores(self, read: Read) -> Array:
        """Return probabilities (rows, labels), or values (rows, 1)."""
        eta = sum((self._block(name, read) for name in self.blocks), start=self.intercept)
        return decided(self.target, eta)

    def _block(self, name: str, read: Read) -> Array:
        kind, _, modality = name.partition("/")
        block = self.blocks[name]
        weights = block["coefficients"]
        if kind == "words":
            rows = [values @ weights[places] for places, values in read.words[modality]]
            return np.stack(rows)
        if kind == "cells":
            numbers, codes, levels = read.cells[modality]
            missing = np.isnan(numbers)
            parts = [np.where(missing, 0.0, numbers), missing.astype(np.float64)]
            parts += [np.eye(count)[codes[:, i]] for i, count in enumerate(levels)]
            plain = np.hstack(parts)
        else:
            vectors = read.vectors[modality]
            absent = np.isnan(vectors).any(axis=1, keepdims=True)
            # Where the modality is absent, its block is 0.
            plain = np.hstack([np.where(absent, block["centre"][:-1], vectors), absent])
        scaled: Array = (plain - block["centre"]) / block["width"]
        return scaled @ weights


class Trees:
    """Boosted trees over one table of all modalities: columns, Features, words on a few axes."""

    def __init__(self, folder: Path, target: Mapping[str, Any]) -> None:
        self.target = target
        self.projections = tensors(folder / "words.safetensors")
        labels = len(target["levels"]) if target["task"] == "multilabel" else 1
        self.forests = [Forest((folder / f"trees-{i}.txt").read_text(encoding="utf-8")) for i in range(labels)]

    def scores(self, read: Read) -> Array:
        """Return probabilities (rows, labels), or values (rows, 1)."""
        parts: list[Array] = []
        for numbers, codes, _ in read.cells.values():
            parts += [numbers, codes]
        parts += read.vectors.values()
        for name, rows in read.words.items():
            axes = self.projections[name]
            # Summed one after the other, as a sparse product is: about 0 a tree's step turns on the last digit.
            parts.append(np.stack([(values.astype(np.float32)[:, None] * axes[at]).sum(axis=0) for at, values in rows]))
        table = np.hstack(parts).astype(np.float32).astype(np.float64)
        raw = np.hstack([forest.raw(table) for forest in self.forests])
        if self.target["task"] == "regression":
            return raw
        if self.target["task"] == "multilabel" or raw.shape[1] == 1:
            return _both(self.target, _sigmoid(raw))
        return _softmax(raw)


class Forest:
    """A LightGBM model: all its trees walked at once. Attributes by node, the trees one after the other.

    Args:
        text: the model in LightGBM's own format.
    """

    def __init__(self, text: str) -> None:
        head, *trees = text.partition("end of trees")[0].split("\nTree=")
        self.each = int(_fields(head).get("num_tree_per_iteration", "1"))
        kinds: dict[str, list[Array]] = {}
        nodes = leaves = words = sets = 0
        roots = []
        for tree in trees:
            told = _fields(tree)
            count = int(told["num_leaves"])
            roots.append(nodes if count > 1 else ~leaves)
            one = {name: _numbers(told.get(name, ""), kind) for name, kind in _NODES.items()}
            for side in ("left_child", "right_child"):
                if (one[side] >= len(one[side])).any() or (one[side] <= np.arange(len(one[side])))[
                    one[side] >= 0
                ].any():
                    raise ValueError("a tree is damaged: what stands below a node comes after it")
                one[side] = np.where(one[side] >= 0, one[side] + nodes, one[side] - leaves)
            # A category's threshold is the number of its set.
            chosen = one["decision_type"] & 1 > 0
            one["threshold"] = np.where(chosen, one["threshold"] + sets, one["threshold"])
            one["leaf_value"] = _numbers(told["leaf_value"], np.float64)[:count]
            one["set"] = _numbers(told.get("cat_threshold", ""), np.int64)
            # A set more at the end, which no node asks for, keeps the next tree's first one in its place.
            one["edge"] = _numbers(told.get("cat_boundaries", "0"), np.int64) + words
            for name, found in one.items():
                kinds.setdefault(name, []).append(found)
            nodes, leaves, words = nodes + len(one["left_child"]), leaves + count, words + len(one["set"])
            sets += len(one["edge"])
        self.roots = np.array(roots, dtype=np.int64)
        self.of = {name: np.concatenate(found) for name, found in kinds.items()}

    def raw(self, table: Array) -> Array:
        """Return the sum of the leaves (rows, labels). table: (rows, columns) float64, nan where missing."""
        at = np.tile(self.roots, (len(table), 1))
        while (inside := at >= 0).any():
            rows = np.nonzero(inside)[0]
            nodes = at[inside]
            left = self._left(table[rows, self.of["split_feature"][nodes]], nodes)
            at[inside] = np.where(left, self.of["left_child"][nodes], self.of["right_child"][nodes])
        found: Array = self.of["leaf_value"][~at].reshape(len(table), -1, self.each).sum(axis=1)
        return found

    def _left(self, values: Array, nodes: Array) -> Array:
        """Tell which values go left. values, nodes: (n,)."""
        kind, threshold = self.of["decision_type"][nodes], self.of["threshold"][nodes]
        missing, default = kind >> 2 & 3, kind & 2 > 0  # of missing: 0 none, 1 what is zero, 2 what is nan
        nan = np.isnan(values)
        filled = np.where(nan & (missing != 2), 0.0, values)
        lost = ((missing == 1) & (np.abs(filled) <= _ZERO)) | ((missing == 2) & nan)
        with np.errstate(invalid="ignore"):
            left: Array = np.where(lost, default, filled <= threshold)
        chosen = np.flatnonzero(kind & 1)
        if len(chosen):
            left[chosen] = self._in_set(values[chosen], threshold[chosen].astype(np.int64))
        return left

    def _in_set(self, values: Array, sets: Array) -> Array:
        """Tell which categories stand in their node's set, a row of bits in words of 32."""
        there = np.isfinite(values) & (values > -1)
        codes = np.where(there, values, 0).clip(0, 2**31).astype(np.int64)
        words = self.of["edge"][sets] + codes // 32
        there &= words < self.of["edge"][sets + 1]
        bits = self.of["set"][np.where(there, words, 0)] >> codes % 32 & 1
        return there & (bits > 0)


LEARNERS: dict[str, Any] = {"linear": Linear, "boosting": Trees}

_NODES = {
    "split_feature": np.int64,
    "threshold": np.float64,
    "decision_type": np.int64,
    "left_child": np.int64,
    "right_child": np.int64,
}


def tensors(path: Path) -> dict[str, Array]:
    """Return the tensors of a safetensors file.

    Raises:
        ValueError: it is damaged.
    """
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    about = json.loads(data[8:begin])
    about.pop("__metadata__", None)
    found = {}
    for name, one in about.items():
        low, high = (begin + end for end in one["data_offsets"])
        if not begin <= low <= high <= len(data):
            raise ValueError(f"{path} is damaged: {name} does not lie inside it")
        found[name] = np.frombuffer(data[low:high], dtype=_TYPES[one["dtype"]]).reshape(one["shape"])
    return found


def decided(target: Mapping[str, Any], eta: Array) -> Array:
    """Return the scores (rows, labels) that a row's η stands for."""
    if target["task"] == "regression":
        return np.asarray(eta * target["std"] + target["mean"])
    if target["task"] == "multilabel" or eta.shape[1] == 1:
        return _both(target, _sigmoid(eta))
    return _softmax(eta)


def _both(target: Mapping[str, Any], second: Array) -> Array:
    """Return the probabilities of both labels from that of the second one; of a multilabel target as they are."""
    return second if target["task"] == "multilabel" else np.hstack([1 - second, second])


def _sigmoid(eta: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(eta / 2)))


def _softmax(eta: Array) -> Array:
    powers = np.exp(eta - eta.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _words(text: str | None) -> Iterator[str]:
    """Yield words and pairs of neighbouring words."""
    before = None
    for word in _WORD.findall(_CJK.sub(r" \g<0> ", (text or "")[:_LONGEST].lower())):
        yield word
        if before is not None:
            yield f"{before} {word}"
        before = word


def _fields(text: str) -> dict[str, str]:
    """Return what stands as name=value, a line each."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _numbers(text: str, kind: Any) -> Array:
    return np.array(text.split(), dtype=kind)
