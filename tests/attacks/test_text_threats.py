"""Threats to texts: all that is named lies within the budget, and what lies beyond it is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyfuse.attacks.edits import Word, distance, fewest, spans, tokens_of
from polyfuse.attacks.lexicon import FUNCTION_WORDS, Lexicon
from polyfuse.attacks.text import CharactersThreat, WordsThreat, _misspelt
from polyfuse.attacks.threat import Sample, Threat, Value
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features
from polyfuse.data.schema import Column
from polyfuse.encoders.embedding import EmbeddingEncoder
from polyfuse.encoders.transformer import TransformerEncoder

TITLE, REVIEW = Column(name="title", type="text"), Column(name="review", type="text")
WORD = st.sampled_from(
    ["hello", "bass", "basss", "s", "he", "hehe", "café", "naïve", "2nd", '"Quoted,"', "don't", "ABC"]
)
ODD = st.text(st.characters(exclude_categories=[]), max_size=12)
TEXT = st.lists(WORD | ODD, max_size=8).flatmap(
    lambda words: st.sampled_from([" ", "  ", "\n"]).map(lambda b: b.join(words))
)
CELLS = st.tuples(st.none() | TEXT, TEXT)


def excess(threat: Threat, clean: Value, found: Value) -> float:
    return threat.excess(Sample(clean), Sample(found))


def chain(threat: Threat, clean: Value, seed: int, length: int) -> list[Value]:
    """Return values that follow from each other by random edits."""
    random, found = np.random.default_rng(seed), [clean]
    for _ in range(length):
        near = threat.neighbours(found[-1], clean, random)
        if not near:
            break
        found.append(near[random.integers(len(near))])
    return found


@settings(max_examples=150)
@given(clean=CELLS, seed=st.integers(0, 99), share=st.sampled_from([0.1, 0.5, 1.0]), edits=st.integers(1, 3))
def test_chains_of_edited_letters_stay_within_the_budget(clean: Value, seed: int, share: float, edits: int) -> None:
    threat = CharactersThreat([TITLE, REVIEW], share=share, edits_per_word=edits)
    random = np.random.default_rng(seed)
    assert excess(threat, clean, clean) == -1
    for value in chain(threat, clean, seed, 5):
        for near in threat.neighbours(value, clean, random)[:40]:
            assert near != value
            assert excess(threat, clean, near) <= 0
            assert (near[0] is None) == (clean[0] is None)
            assert threat.mended(near, clean) == near


def test_every_kind_of_edit_is_named() -> None:
    threat = CharactersThreat([REVIEW], share=1.0)
    near = {value[0] for value in threat.neighbours(("paint it",), ("paint it",), np.random.default_rng(0))}
    for wanted in ("paont it", "pant it", "paaint it", "piant it", "pаint it", "p1int it", "pa int it"):
        assert (wanted in near) == (wanted != "p1int it"), wanted
    assert not any(not text.startswith("p") or not text.endswith("t it") for text in near)
    joined = CharactersThreat([REVIEW], share=1.0).neighbours(("red paint",), ("red paint",), np.random.default_rng(0))
    assert ("redpaint",) in joined
    few = CharactersThreat([REVIEW], share=0.5).neighbours(("red paint",), ("red paint",), np.random.default_rng(0))
    assert ("redpaint",) not in few, "two words are touched"


def test_edited_texts_can_be_edited_on() -> None:
    threat, clean = CharactersThreat([REVIEW], share=1.0), ("large green garden paths wind away",)
    for seed in range(20):
        found = chain(threat, clean, seed, 3)
        assert len(found) == 4, "words stay apart, wherever blanks come or go"
    assert threat.neighbours(("smell green garden paths wind away",), clean, np.random.default_rng(0)) == []


def test_of_several_texts_the_budget_is_one() -> None:
    threat = CharactersThreat([TITLE, REVIEW], share=0.5)
    clean = ("large house", "green garden")
    assert threat.limit(clean) == 2
    assert excess(threat, clean, ("lage house", "grren garden")) == 0
    assert excess(threat, clean, ("lage hose", "grren garden")) == 0.5
    assert (
        excess(CharactersThreat([TITLE, REVIEW], share=0.5, immutable=["title"]), clean, ("lage house", clean[1])) > 0
    )


CLEAN = "The quick brown foxes, 1234 of us, jumped 99times over dogs"


@pytest.mark.parametrize(
    ("found", "count"),
    [
        (CLEAN, 0),
        (CLEAN.replace("quick", "qiuck"), 1),
        (CLEAN.replace("quick", "quicck"), 1),
        (CLEAN.replace("quick", "quіck"), 1),
        (CLEAN.replace("quick", "qu ick"), 1),
        (CLEAN.replace("quick brown", "quickbrown"), 2),
        (CLEAN.replace("quick", "qick").replace("jumped", "jum ped"), 2),
        (CLEAN.replace("quick", "qick").replace("brown", "bro wn"), 2),
        (CLEAN.replace("quick", "uqick"), np.inf),  # the first letter
        (CLEAN.replace("quick", "quicl"), np.inf),  # the last letter
        (CLEAN.replace("quick", "qck"), np.inf),  # two edits
        (CLEAN.replace("1234", "1243"), np.inf),  # a number
        (CLEAN.replace("99times", "99tmes"), np.inf),
        (CLEAN.replace("of", "off"), np.inf),  # a short word
        (CLEAN.replace("foxes,", "foxes"), np.inf),  # a sign
        (CLEAN.replace("quick ", ""), np.inf),
        (CLEAN + " dogs", np.inf),
        (CLEAN.replace(" quick", "  quick"), np.inf),
        (CLEAN + "\n", np.inf),
        (CLEAN.replace("quick", "qu  ick"), np.inf),
        (CLEAN.replace("us, jumped", "us,jumped"), np.inf),
    ],
)
def test_words_that_were_touched_are_counted(found: str, count: float) -> None:
    threat = CharactersThreat([REVIEW], share=1.0)
    assert (excess(threat, (CLEAN,), (found,)) + 1) * threat.limit((CLEAN,)) == pytest.approx(count)
    assert (excess(CharactersThreat([REVIEW], share=0.01), (CLEAN,), (found,)) > 0) == (count > 1)


def test_missing_cells_stay_missing() -> None:
    threat = CharactersThreat([TITLE, REVIEW])
    assert excess(threat, (None, "quick"), ("", "quick")) == np.inf
    assert excess(threat, (None, "quick"), (None, None)) == np.inf


@given(one=st.text("abc", max_size=6), other=st.text("abc", max_size=6))
def test_distance_is_that_of_the_definition(one: str, other: str) -> None:
    def plain(i: int, j: int) -> int:
        """The recursion of optimal string alignment."""
        if min(i, j) == 0:
            return max(i, j)
        ways = [plain(i - 1, j) + 1, plain(i, j - 1) + 1, plain(i - 1, j - 1) + (one[i - 1] != other[j - 1])]
        if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
            ways.append(plain(i - 2, j - 2) + 1)
        return min(ways)

    if len(one) + len(other) <= 8:
        for most in (0, 1, 2, 8):
            assert distance(one, other, most) == min(plain(len(one), len(other)), most + 1)


@given(text=TEXT)
def test_words_make_up_the_text(text: str) -> None:
    words, tail = tokens_of(text)
    assert "".join(blanks + word for blanks, word in words) + tail == text
    assert [word for _, word in words] == text.split()
    assert all("".join(Word.of(word)) == word for _, word in words)
    assert spans(words, words) == [(i, i + 1) for i in range(len(words))]
    assert fewest(words, words, lambda *_: False, lambda _: False) == 0


def test_one_edit_of_a_word_is_one_edit() -> None:
    for word in ("paint", '"Café"', "naïve", "e\u0301te\u0301s", "straße"):
        assert {distance(word, other, 9) for other in _misspelt(word, word)} <= {1, 2}
        assert word not in _misspelt(word, word)


class Tokens:
    def __init__(self, *words: str) -> None:
        self.words = {word: i for i, word in enumerate(words)}

    def get_vocab(self) -> dict[str, int]:
        return self.words


class Backbone(nn.Module):
    def __init__(self, embeddings: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(torch.tensor(embeddings), freeze=False)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.table


class Bag(Encoder):
    """The mean of the embeddings of words that stand between blanks."""

    dim = 2

    def __init__(self, words: dict[str, list[float]]) -> None:
        super().__init__()
        self.companion = Tokens(*words)
        self.backbone = Backbone(list(words.values()))

    def prepare(self, values: Any) -> dict[str, Tensor]:
        known = self.companion.words
        rows = [
            [known.get(word.strip(',."').lower(), 0) for cell in value if cell for word in cell.split()]
            for value in values
        ]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        return {"ids": ids, "mask": torch.arange(longest) < torch.tensor([[len(row)] for row in rows])}

    def forward(self, ids: Tensor, mask: Tensor) -> Features:
        assert isinstance(self.backbone, Backbone)
        return Features.of_tokens(self.backbone.table(ids), mask)


def angle(degrees: float) -> list[float]:
    return [float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees)))]


BAG = Bag(
    {
        "[UNK]": angle(270),
        "good": angle(0),
        "great": angle(10),
        "not": angle(1),
        "##ood": angle(2),
        "seven": angle(3),
        "fine": angle(20),
        "decent": angle(40),
        "bad": angle(120),
        "film": angle(60),
        "movie": angle(65),
    }
)


def words_threat(**options: Any) -> WordsThreat:
    return WordsThreat([TITLE, REVIEW], **{"share": 1.0, "sentence": -1.0, **options}).bound(BAG)


def texts(threat: Threat, value: Value, clean: Value) -> set[str]:
    return {near[1] for near in threat.neighbours(value, clean, np.random.default_rng(0))}


def test_words_are_replaced_by_near_ones_in_their_case() -> None:
    clean = (None, 'A "Good" film, not 7 GOOD.')
    found = texts(words_threat(share=0.2), clean, clean)
    assert found == {
        *(clean[1].replace("Good", word) for word in ("Great", "Fine", "Decent")),
        *(clean[1].replace("GOOD", word) for word in ("GREAT", "FINE", "DECENT")),
        *(clean[1].replace("film", word) for word in ("movie", "decent", "fine", "great")),
    }
    assert len(texts(words_threat(candidates=1), clean, clean)) == 3
    assert texts(words_threat(similarity=0.999), clean, clean) == set()
    assert texts(words_threat(immutable=["review"]), clean, clean) == set()


def test_words_that_would_not_come_back_in_their_case_are_left_out() -> None:
    bag = Bag({"good": angle(0), "straße": angle(1), "一二": angle(2)})
    threat = WordsThreat([REVIEW], share=1, sentence=-1).bound(bag)
    for word, others in (("good", [("straße",)]), ("GOOD", [])):
        assert threat.neighbours((word,), (word,), np.random.default_rng(0)) == others


@settings(max_examples=100)
@given(
    words=st.lists(
        st.sampled_from(["good", "Bad,", "FILM", "not", "7", "straße", "ǆ", "一二"]) | ODD, min_size=1, max_size=8
    ),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.1, 0.5, 1.0]),
)
def test_chains_of_replaced_words_stay_within_the_budget(words: list[str], seed: int, share: float) -> None:
    threat, clean = words_threat(share=share), (None, " ".join(words))
    for value in chain(threat, clean, seed, 5):
        for near in threat.neighbours(value, clean, np.random.default_rng(seed)):
            assert near != value
            assert excess(threat, clean, near) <= 0


@pytest.mark.parametrize(
    "found",
    [
        "a bad film not seven",  # not near
        "a not film not seven",  # a negation comes
        "a good film good seven",  # a negation goes
        "a good film not great",  # a number goes
        "a xyz film not seven",  # unknown
        "a Great film not seven",  # case
        "a great, film not seven",  # signs
        "a good  film not seven",
        "a good film not",
        "a good film not seven ",
    ],
)
def test_what_may_not_become_of_a_text(found: str) -> None:
    clean = (None, "a good film not seven")
    assert excess(words_threat(), clean, (None, "a great movie not seven")) <= 0
    assert excess(words_threat(), clean, (None, found)) > 0
    assert excess(words_threat(share=0.2), clean, (None, "a great movie not seven")) == 1


def test_the_whole_text_stays_near() -> None:
    clean, near, far = (None, "good film"), (None, "great film"), (None, "decent film")
    threat = words_threat(sentence=0.99)
    cosine = {value: np.cos(np.radians(30 - mean)) for value, mean in ((near, 35), (far, 50))}
    assert (
        threat.admissible([near, far], [clean, clean]) == [cosine[near] >= 0.99, cosine[far] >= 0.99] == [True, False]
    )
    assert excess(threat, clean, near) <= 0 < excess(threat, clean, far)
    assert words_threat().admissible([far], [clean]) == [True]


def test_marks_of_tokenizers() -> None:
    kinds = {
        "wordpiece": ["good", "##good", "fine", "[CLS]"],
        "byte-level": ["Ġgood", "good", "Ġfine", "fine", "ĠÃ©"],
        "sentencepiece": ["▁good", "good", "▁fine", "fine", "<s>"],
        "clip": ["good</w>", "good", "fine</w>", "fine"],
    }
    for kind, tokens in kinds.items():
        encoder = Bag({token: angle(10 * i) for i, token in enumerate(tokens)})
        threat = WordsThreat([REVIEW], sentence=-1, similarity=0).bound(encoder)
        assert threat.neighbours(("good",), ("good",), np.random.default_rng(0)) == [("fine",)], kind
        assert Lexicon.of(encoder).similarity("good", "fine") == pytest.approx(np.cos(np.radians(20))), kind


def test_nearest_words_are_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    names = ["".join(random.choice(list("bcdfg"), 6)) for _ in range(60)]
    encoder = Bag({name: random.normal(size=2).tolist() for name in names})
    whole = Lexicon.of(encoder).near(names, 5, 0.0)
    monkeypatch.setattr("polyfuse.attacks.lexicon._CHUNK", 7)
    assert Lexicon.of(encoder).near(names, 5, 0.0) == whole
    vectors = {name: encoder.backbone.table.weight[encoder.companion.words[name]].detach().double() for name in names}  # type: ignore[union-attr]
    for name in whole:
        cosines = {other: float(torch.cosine_similarity(vectors[name], vectors[other], 0)) for other in vectors}
        ranked = sorted((other for other in cosines if other != name), key=cosines.__getitem__, reverse=True)
        assert whole[name] == [other for other in ranked if cosines[other] >= 0][:5]


def test_a_real_encoder(tiny_model: Callable[[str], str]) -> None:
    for kind in ("bert", "gpt2", "clip", "t5"):
        encoder = TransformerEncoder([REVIEW], checkpoint=tiny_model(kind))
        threat = WordsThreat([REVIEW], similarity=-1, sentence=-1, share=0.5).bound(encoder)
        clean = ("one Cat on two mats",)
        assert threat.neighbours(clean, clean, np.random.default_rng(0)) == [("one Dog on two mats",)]
        clean, found = ("one cat on two mats",), ("one dog on two mats",)
        one, other = encoder.eval()(**encoder.prepare([clean, found])).pooled.detach()
        near = float(torch.cosine_similarity(one, other, 0))
        for sentence in (near - 0.01, near + 0.01):
            strict = WordsThreat([REVIEW], similarity=-1, sentence=sentence, share=0.5).bound(encoder.train())
            assert strict.admissible([found], [clean]) == [sentence < near]
            assert (excess(strict, clean, found) <= 0) == (sentence < near)
            assert encoder.training


def test_without_words_there_is_one_clear_error() -> None:
    column = Column(name="vector", type="embedding", size=3)
    with pytest.raises(InputError, match=r"EmbeddingEncoder.*choose 'characters'"):
        WordsThreat([column]).bound(EmbeddingEncoder([column]))
    with pytest.raises(InputError, match="bound"):
        WordsThreat([REVIEW]).neighbours(("good",), ("good",), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"immutable=\['titel'\].*did you mean 'title'"):
        CharactersThreat([TITLE], immutable=["titel"])


def test_scaled_threats_know_their_words_and_options() -> None:
    threat = words_threat(share=0.4, immutable=["title"])
    assert threat.scaled(0.5).options() == {**threat.options(), "share": 0.2}
    assert threat.scaled(9).share == 1
    assert texts(threat.scaled(0.5), (None, "good"), (None, "good"))
    assert threat.unchanged() == ["title"]


def test_parts_are_the_words_that_may_be_touched() -> None:
    clean = ("good 7", "not a film, good")
    assert words_threat().omissions(clean) == [(" 7", clean[1]), (clean[0], "not a good"), (clean[0], "not a film,")]
    only = words_threat().neighbours(clean, clean, np.random.default_rng(0), among=[2])
    assert {value[1] for value in only} == {f"not a film, {word}" for word in ("great", "fine", "decent")}
    letters = CharactersThreat([TITLE, REVIEW])
    assert len(letters.omissions(clean)) == 4
    assert {value[0] for value in letters.neighbours(clean, clean, np.random.default_rng(0), among=[1])} == {"good 7"}


def test_stop_words_are_in_lower_case() -> None:
    assert {word.lower() for word in FUNCTION_WORDS} == FUNCTION_WORDS
    assert {"not", "never", "no", "without", "seven"} <= FUNCTION_WORDS
