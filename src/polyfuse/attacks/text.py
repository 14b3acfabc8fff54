"""Threat models of text that real adversaries write: typing errors and look-alikes, and words for words."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Self, TypeAlias

import numpy as np
from annotated_types import Ge, Le

from polyfuse.attacks.edits import Reading, Token, Word, fewest, letters_apart, reading, tokens_of
from polyfuse.attacks.lexicon import FUNCTION_WORDS, Lexicon, closeness
from polyfuse.attacks.threat import Sample, Threat, Value
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, PositiveShare
from polyfuse.data.letters import clusters, keys_beside
from polyfuse.data.schema import Column

_SHORTEST = 3  # letters of a word that is touched: one between the first and the last
_LOOKALIKES = dict(
    zip(
        "aceijopsxyABCEHIKMNOPTXYZ",
        ["аα@", "с", "е3", "і1", "ј", "оο0", "р", "ѕ5", "х", "у", *"АВСЕНІКМΝОРТХΥΖ"],
        strict=True,
    )
) | {"l": "1ӏ"}
_ROUNDING = 2e-3  # of a cosine: what other neighbours in a batch, and bfloat16, may change

#: A word of a value: number of its cell, number of the word in it.
Place: TypeAlias = tuple[int, int]


class TextThreat(Threat):
    """What threats to texts share: a share of the words of all texts of a value may be touched, at least one.

    Words are what stands between blanks. A part, as `omissions` counts them, is a word that may be touched.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    main: ClassVar[str] = "share"
    discrete: ClassVar[bool] = True

    def __init__(self, columns: Sequence[Column], share: float, immutable: Sequence[str]) -> None:
        super().__init__(columns)
        self.share = share
        self.immutable = self.known("immutable", immutable)

    @abstractmethod
    def editable(self, word: str) -> bool:
        """Tell whether a word may be touched."""

    def limit(self, clean: Value) -> int:
        """Return how many words of a value may be touched."""
        words = sum(len(tokens_of(clean[cell])[0]) for cell in self._cells(clean))
        return max(1, math.floor(self.share * words + 1e-9))

    def omissions(self, clean: Value) -> list[Value]:
        """Return the value without each of the words that may be touched."""
        made = []
        for cell, at in self._places(clean):
            words, tail = tokens_of(clean[cell])
            made.append(_with(clean, cell, [*words[:at], *words[at + 1 :]], tail))
        return made

    def scaled(self, factor: float) -> Self:
        """Return the same threat with its share multiplied, up to all words."""
        other = copy.copy(self)
        other.share = min(1.0, self.share * factor)
        return other

    def _cells(self, clean: Value) -> list[int]:
        return [i for i, column in enumerate(self.columns) if clean[i] is not None and self.changes(column)]

    def _places(self, clean: Value) -> list[Place]:
        return [
            (cell, at)
            for cell in self._cells(clean)
            for at, (_, word) in enumerate(tokens_of(clean[cell])[0])
            if self.editable(word)
        ]

    def _chosen(self, clean: Value, among: Sequence[int] | None) -> dict[int, list[int]]:
        """Return the words that are edited, by cell."""
        places = self._places(clean)
        chosen: dict[int, list[int]] = {}
        for cell, at in places if among is None else [places[part] for part in among]:
            chosen.setdefault(cell, []).append(at)
        return chosen

    def _other_cells_differ(self, clean: Value, found: Value) -> bool:
        mine = self._cells(clean)
        if len(clean) != len(found) or any(found[i] is None for i in mine):
            return True
        return any(found[i] != cell for i, cell in enumerate(clean) if i not in mine)


class CharactersThreat(TextThreat):
    """Some words are mistyped or disguised, and a reader still reads them: touched words ≤ share · words.

    An edit replaces a letter by that of the key beside it or by a look-alike of another script, leaves it out, doubles
    it, or swaps it with the next (Li et al. 2019, TextBugger; Pruthi et al. 2019); or a blank splits a word in two; or
    two words are joined, and both count. First and last letter stay, by which readers know a word (Rawlinson 1976).
    Numbers, and words of fewer than three letters, are not touched.

    Args:
        columns: of the modality.
        share: of the words that may be touched; one always may.
        edits_per_word: letters of a word that may be edited.
        immutable: columns that stay as they are.

    Raises:
        InputError: `immutable` names a column that is not there.
    """

    norm: ClassVar[str] = "words with edited letters"

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        share: PositiveShare = 0.15,
        edits_per_word: Annotated[int, Ge(1), Le(10)] = 1,
        immutable: Sequence[str] = (),
    ) -> None:
        super().__init__(columns, share, immutable)
        self.edits_per_word = edits_per_word

    def editable(self, word: str) -> bool:
        """Tell whether a word is long enough, and of letters alone but for the signs around it."""
        return _readable(word)

    def neighbours(
        self, value: Value, clean: Value, random: np.random.Generator, among: Sequence[int] | None = None
    ) -> list[Value]:
        """Return values with one more edit, or with another one in a word that was touched before."""
        read = {cell: reading(clean[cell], value[cell]) for cell in self._cells(clean)}
        if not all(one.matches(self.edits_per_word) for one in read.values()):
            return []
        left = self.limit(clean) - sum(one.touched for one in read.values())
        made: dict[Value, None] = {}
        for cell, words in self._chosen(clean, among).items():
            one = read[cell]
            for at in words:
                for start, end, others in self._edits(one, at, left):
                    made[_with(value, cell, [*one.found[:start], *others, *one.found[end:]], one.tail)] = None
        made.pop(value, None)
        return list(made)

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return the least number of words that were touched relative to the limit, less 1."""
        if self._other_cells_differ(clean.value, found.value):
            return math.inf
        touched = 0.0
        for cell in self._cells(clean.value):
            (before, tail), (after, end) = tokens_of(clean.value[cell]), tokens_of(found.value[cell])
            touched += fewest(before, after, self._alike, _readable) if tail == end else math.inf
        return touched / self.limit(clean.value) - 1

    def _edits(self, read: Reading, at: int, left: int) -> Iterator[tuple[int, int, list[Token]]]:
        """Yield start and end of what is replaced in the edited text, and by which words."""
        if any(read.spaced(near) for near in (at - 1, at, at + 1)):
            return  # so that words can be told apart later
        (start, end), (blanks, word), (_, now) = read.spans[at], read.clean[at], read.found[read.spans[at][0]]
        untouched = now == word
        if untouched and left < 1:
            return
        for other in _misspelt(word, word):
            yield start, end, [(blanks, other)]
        if not untouched and self.edits_per_word > 1:
            for other in _misspelt(now, word):
                if 0 < letters_apart(word, other, self.edits_per_word) <= self.edits_per_word:
                    yield start, end, [(blanks, other)]
        if not untouched or not read.same(at - 1) or not read.same(at + 1):
            return
        lead, core, trail = Word.of(word)
        letters = clusters(core)
        for cut in range(2, len(letters) - 1):
            yield start, end, [(blanks, lead + "".join(letters[:cut])), (" ", "".join(letters[cut:]) + trail)]
        if left > 1 and at + 1 < len(read.clean) and read.same(at + 2):
            following = read.clean[at + 1][1]
            if _readable(following) and not trail and not Word.of(following).lead:
                yield start, end + 1, [(blanks, word + following)]

    def _alike(self, word: str, other: str) -> bool:
        """Tell whether a word can have become another: first and last letter, and the signs around them, kept."""
        if not _readable(word):
            return False
        lead, core, trail = Word.of(word)
        letters = clusters(core)
        if not other.startswith(lead + letters[0]) or not other.endswith(letters[-1] + trail):
            return False
        return letters_apart(word, other, self.edits_per_word) <= self.edits_per_word


class WordsThreat(TextThreat):
    """Some words become others that the model's own encoder holds for near: touched words ≤ share · words.

    What may stand for a word are its nearest neighbours in the input embeddings of the modality's own encoder, by
    cosine (the search space of Alzantot et al. 2018 and Jin et al. 2020, with another embedding). Words are those that
    are one token; letters' case is kept; stop words, negations and numbers neither go nor come. The whole text must
    stay near too: by the cosine of the pooled Features of the encoder that was given to `bound`, as it is then.
    Opposites stand in like places, so that embeddings hold some for near ("top", "bottom"): a lower `similarity` or
    `sentence` lets more of them through, and what was found is to be looked at before it is called a defect.

    Args:
        columns: of the modality.
        share: of the words that may be touched; one always may.
        candidates: neighbours of a word, at most.
        similarity: least cosine of the embeddings of two words.
        sentence: least cosine of the pooled Features of the clean text and the found one.
        immutable: columns that stay as they are.

    Raises:
        InputError: `immutable` names a column that is not there.
    """

    norm: ClassVar[str] = "replaced words"

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        share: PositiveShare = 0.1,
        candidates: Count = 20,
        similarity: Annotated[float, Ge(-1), Le(1)] = 0.6,
        sentence: Annotated[float, Ge(-1), Le(1)] = 0.85,
        immutable: Sequence[str] = (),
    ) -> None:
        super().__init__(columns, share, immutable)
        self.candidates, self.similarity, self.sentence = candidates, similarity, sentence
        self._words: Lexicon | None = None

    def bound(self, encoder: Encoder) -> Self:
        """Return the threat with the vocabulary of an encoder.

        Raises:
            InputError: the encoder has no tokenizer, or no embedding of its tokens.
        """
        other = copy.copy(self)
        other._words = Lexicon.of(encoder)
        return other

    def editable(self, word: str) -> bool:
        """Tell whether a word is of letters alone but for the signs around it, and no stop word."""
        core, numeric = Word.of(word).core, Word.of(word).numeric()
        return len(core) > 1 and core.isalpha() and not numeric and core.lower() not in FUNCTION_WORDS

    def neighbours(
        self, value: Value, clean: Value, random: np.random.Generator, among: Sequence[int] | None = None
    ) -> list[Value]:
        """Return values with one more word replaced, or with another word for one that was replaced before."""
        read = {cell: (tokens_of(clean[cell]), tokens_of(value[cell])) for cell in self._cells(clean)}
        pairs = [pair for (before, _), (after, _) in read.values() for pair in zip(before, after, strict=True)]
        left = self.limit(clean) - sum(before != after for before, after in pairs)
        chosen = self._chosen(clean, among)
        # Of all words at once, for the whole vocabulary is gone through; the lexicon keeps what it found.
        cores = [Word.of(read[cell][0][0][at][1]).core.lower() for cell, at in self._places(clean)]
        near = self._lexicon.near(cores, self.candidates, self.similarity)
        made: dict[Value, None] = {}
        for cell, words in chosen.items():
            (before, tail), (after, _) = read[cell]
            for at in words:
                if before[at] == after[at] and left < 1:
                    continue
                blanks, word = before[at]
                lead, core, trail = Word.of(word)
                for other in near[core.lower()]:
                    cased = _in_case_of(core, other)
                    if cased.lower() != other:  # letters without capitals of their own
                        continue
                    token = (blanks, lead + cased + trail)
                    made[_with(value, cell, [*after[:at], token, *after[at + 1 :]], tail)] = None
        made.pop(value, None)
        return list(made)

    def admissible(self, values: Sequence[Value], clean: Sequence[Value]) -> list[bool]:
        """Tell which texts are as near as `sentence` asks."""
        if self.sentence <= -1:
            return [True] * len(values)
        return [near >= self.sentence for near in closeness(self._lexicon.encoder, values, clean)]

    def excess(self, clean: Sample, found: Sample) -> float:
        """Return the number of replaced words relative to the limit, less 1; for the whole text, 1 - cosine likewise.

        A word that may not go or come, or is not near enough, is beyond all limits.
        """
        if self._other_cells_differ(clean.value, found.value):
            return math.inf
        touched = 0
        for cell in self._cells(clean.value):
            (before, tail), (after, end) = tokens_of(clean.value[cell]), tokens_of(found.value[cell])
            if len(before) != len(after) or tail != end:
                return math.inf
            changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
            if not all(one[0] == other[0] and self._may_become(one[1], other[1]) for one, other in changed):
                return math.inf
            touched += len(changed)
        beyond = touched / self.limit(clean.value) - 1
        if touched and self.sentence > -1:
            (near,) = closeness(self._lexicon.encoder, [found.value], [clean.value])
            beyond = max(beyond, (self.sentence - _ROUNDING - near) / max(1 - self.sentence, _ROUNDING))
        return beyond

    @property
    def _lexicon(self) -> Lexicon:
        if self._words is None:
            raise InputError("the threat 'words' knows no words yet: give it the encoder of its modality with bound()")
        return self._words

    def _may_become(self, word: str, other: str) -> bool:
        if not self.editable(word) or not self.editable(other):
            return False
        (lead, core, trail), (head, new, end) = Word.of(word), Word.of(other)
        if (lead, trail) != (head, end) or new != _in_case_of(core, new):
            return False
        return self._lexicon.similarity(core.lower(), new.lower()) >= self.similarity - 1e-4


@lru_cache(maxsize=4096)
def _readable(word: str) -> bool:
    """Tell whether a word is of letters alone but for the signs around it, and of enough of them."""
    parts = Word.of(word)
    letters = clusters(parts.core)
    return len(letters) >= _SHORTEST and all(letter[0].isalpha() for letter in letters) and not parts.numeric()


def _misspelt(word: str, clean: str) -> list[str]:
    """Return a word with one edit between its first and its last letter, where the clean word has them."""
    lead, _, trail = Word.of(clean)
    letters = clusters(word[len(lead) : len(word) - len(trail)])
    made: dict[str, None] = {}
    for i in range(1, len(letters) - 1):
        letter, before, after = letters[i], letters[:i], letters[i + 1 :]
        others: Iterable[list[str]] = [[], [letter, letter], *([key] for key in keys_beside(letter))]
        for other in (*others, *([sign] for sign in _LOOKALIKES.get(letter, ""))):
            made["".join([lead, *before, *other, *after, trail])] = None
        if i + 2 < len(letters):
            made["".join([lead, *before, after[0], letter, *after[1:], trail])] = None
    made.pop(word, None)
    return list(made)


def _in_case_of(word: str, other: str) -> str:
    """Return another word in the case of one: all capitals, the first, or none."""
    if len(word) > 1 and word.isupper():
        return other.upper()
    return other[:1].upper() + other[1:].lower() if word[:1].isupper() else other.lower()


def _with(value: Value, cell: int, words: Sequence[Token], tail: str) -> Value:
    text = "".join(blanks + word for blanks, word in words) + tail
    return (*value[:cell], text, *value[cell + 1 :])
