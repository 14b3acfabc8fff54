"""Statistics of words: what a text says by which words it has, beside what an encoder makes of it."""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from polyfuse.core.errors import ArtifactError
from polyfuse.core.files import whole_file

_WORD = re.compile(r"\w+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")
_LONGEST = 20_000  # characters of a text that are read


class WordStatistics:
    """TF-IDF of words and pairs of neighbours: (1 + log tf)·(log((1 + N) / (1 + df)) + 1), each row of length 1.

    Salton and Buckley 1988. Words are runs of letters and digits, in lower case; in scripts that are written without
    spaces each character is a word. Fitted by counting alone, for `import sklearn` would cost a cold start a second.

    Args:
        least: rows that a word or pair must be in to count.
        most: words and pairs that are kept, those in the most rows.
    """

    def __init__(self, *, least: int = 2, most: int = 50_000) -> None:
        self.least, self.most = least, most
        self._places: dict[str, int] = {}
        self._idf = np.zeros(0)

    def __len__(self) -> int:
        return len(self._places)

    def fit(self, texts: Sequence[str | None]) -> WordStatistics:
        """Count in how many texts each word stands."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(set(_words(text)))
        kept = [(count, word) for word, count in counts.items() if count >= self.least]
        kept.sort(key=lambda item: (-item[0], item[1]))
        kept = kept[: self.most]
        self._places = {word: place for place, (_, word) in enumerate(kept)}
        self._idf = np.array([math.log((1 + len(texts)) / (1 + count)) + 1 for count, _ in kept])
        return self

    def transform(self, texts: Sequence[str | None]) -> Any:
        """Return a sparse matrix (texts, words) float32; a text that is absent, or has no known word, is a row of 0."""
        ends, places, values = [0], array("i"), array("f")
        for text in texts:
            found = Counter(self._places[word] for word in _words(text) if word in self._places)
            some = sorted(found)
            weighed = np.array([(1 + math.log(found[place])) * self._idf[place] for place in some])
            places.extend(some)
            values.extend(weighed / max(float(np.linalg.norm(weighed)), 1e-12))
            ends.append(len(places))
        shape = (len(texts), len(self._places))
        return csr_matrix((np.asarray(values), np.asarray(places), np.array(ends)), shape=shape)

    def save(self, path: Path) -> None:
        """Write words and weights as JSON."""
        with whole_file(path) as temporary:
            words = {"words": list(self._places), "idf": self._idf.tolist()}
            temporary.write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> WordStatistics:
        """Read what `save` wrote.

        Raises:
            ArtifactError: the file is damaged.
        """
        statistics = cls()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            statistics._places = {str(word): place for place, word in enumerate(found["words"])}
            statistics._idf = np.asarray(found["idf"], dtype=np.float64)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is damaged: {error}") from error
        if len(statistics._places) != len(statistics._idf):
            raise ArtifactError(f"{path} is damaged: {len(statistics._idf)} weights for {len(statistics)} words")
        return statistics


def _words(text: str | None) -> Iterator[str]:
    """Yield words and pairs of neighbouring words."""
    if text is None:
        return
    spaced = _CJK.sub(r" \g<0> ", text[:_LONGEST].lower())
    before = None
    for word in _WORD.findall(spaced):
        yield word
        if before is not None:
            yield f"{before} {word}"
        before = word
