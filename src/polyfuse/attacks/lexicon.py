"""The words that a text encoder knows, and which of them it holds for near."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.attacks.threat import Value
from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.layers.anatomy import resting

_CHUNK = 16_384  # tokens whose embeddings are looked at together
_BATCH = 64  # texts that are encoded together

#: Stop words and negations: another one would say another thing, or nothing.
_FUNCTION_WORDS = (
    "a about above after again all also although always am among an and any are around as at away back be because "
    "been before behind being below between both but by can cannot could did do does doing done down during each "
    "either else ever every few for from further had has have having he hence her here hers herself him himself his "
    "how however i if in into is it its itself just less many may me might mine more most much must my myself near "
    "neither never no nobody none nor not nothing nowhere of off on once only or other our ours out over own per "
    "quite rather same shall she should since so some still such than that the their theirs them then there these "
    "they this those though through thus to too toward towards under unless until up upon us very was we well were "
    "what when where whether which while who whom whose why will with within without would yet you your yours "
    "yourself aren couldn didn doesn don hadn hasn haven isn mustn needn shouldn wasn weren won wouldn hardly barely "
    "scarcely rarely seldom lack lacks zero one two three four five six seven eight nine ten eleven twelve hundred "
    "thousand million billion first second third half twice "
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


class Lexicon:
    """The whole words among the tokens of an encoder, in lower case, with the rows of its input embeddings.

    Args:
        encoder: whose they are.
        tokens: each word to the number of its token.
    """

    def __init__(self, encoder: Encoder, tokens: dict[str, int]) -> None:
        self.encoder = encoder
        self._tokens = tokens
        self._words = list(tokens)
        self._near: dict[tuple[str, int, float], list[str]] = {}

    @classmethod
    def of(cls, encoder: Encoder) -> Lexicon:
        """Return the words of an encoder.

        Raises:
            InputError: it has no tokenizer, no embedding of its tokens, or no words among them.
        """
        vocabulary = getattr(getattr(encoder, "companion", None), "get_vocab", None)
        embedding = getattr(encoder.backbone, "get_input_embeddings", None)
        words = _words(vocabulary()) if vocabulary is not None and embedding is not None else {}
        if not words:
            raise InputError(
                f"the threat 'words' to {type(encoder).__name__}: it replaces words by neighbours in the embedding of"
                " an encoder's tokens, and this one has no such words; choose 'characters'"
            )
        return cls(encoder, words)

    def near(self, words: Iterable[str], most: int, least: float) -> dict[str, list[str]]:
        """Return of each word the nearest others, the nearest first; none of a word that is no token.

        Args:
            words: in lower case.
            most: of them.
            least: cosine.
        """
        words = list(dict.fromkeys(words))
        new = [word for word in words if word in self._tokens and (word, most, least) not in self._near]
        if new:
            for word, others in zip(new, self._nearest(new, most, least), strict=True):
                self._near[word, most, least] = others
        return {word: self._near.get((word, most, least), []) for word in words}

    def similarity(self, word: str, other: str) -> float:
        """Return the cosine of two words in lower case; -∞ where one is no token."""
        if word not in self._tokens or other not in self._tokens:
            return float("-inf")
        one, two = self._weight()[[self._tokens[word], self._tokens[other]]].double()
        return float(one @ two / (one.norm() * two.norm()).clamp(min=1e-12))

    def _nearest(self, words: Sequence[str], most: int, least: float) -> list[list[str]]:
        """Return the nearest words of each: a chunk of the vocabulary at a time, keeping the best of all so far."""
        weight = self._weight()
        asked = F.normalize(weight[[self._tokens[word] for word in words]].float(), dim=1)
        best = torch.full((len(words), 0), 0.0, device=weight.device)
        at = torch.zeros((len(words), 0), dtype=torch.long, device=weight.device)
        for start in range(0, len(self._words), _CHUNK):
            part = self._words[start : start + _CHUNK]
            chunk = F.normalize(weight[[self._tokens[word] for word in part]].float(), dim=1)
            numbers = torch.arange(start, start + len(part), device=weight.device).expand(len(words), -1)
            best, at = torch.cat([best, asked @ chunk.T], 1), torch.cat([at, numbers], 1)
            # One more, for the word itself.
            best, order = best.topk(min(most + 1, best.shape[1]), dim=1)
            at = at.gather(1, order)
        return [
            [self._words[i] for i, near in zip(row, nears, strict=True) if near >= least and self._words[i] != word][
                :most
            ]
            for word, row, nears in zip(words, at.tolist(), best.tolist(), strict=True)
        ]

    def _weight(self) -> Tensor:
        backbone: Any = self.encoder.backbone
        weight: Tensor = backbone.get_input_embeddings().weight
        return weight.detach()


def _words(vocabulary: dict[str, int]) -> dict[str, int]:
    """Return the whole words of a vocabulary in lower case, whose token is in lower case where there is one.

    A word begins with Ġ in byte-level BPE and with ▁ in SentencePiece, ends with </w> in CLIP's BPE, and does not
    begin with ## in WordPiece.
    """
    marks = {mark: sum(token.startswith(mark) for token in vocabulary) for mark in ("Ġ", "▁")}
    begin = next((mark for mark, count in marks.items() if count > 1), "")
    end = "</w>" if any(token.endswith("</w>") for token in vocabulary) else ""
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        if not token.startswith(begin) or not token.endswith(end):
            continue
        word = token[len(begin) : len(token) - len(end)]
        # Bytes beyond ASCII are written as other letters by byte-level BPE.
        legible = word.isalpha() and (word.isascii() or begin != "Ġ") and len(word) > 1
        legible = legible and not any(sign.isnumeric() for sign in word)
        lower = word.lower()
        if legible and lower not in FUNCTION_WORDS and (word == lower or lower not in found):
            found[lower] = number
    return found


def closeness(encoder: Encoder, values: Sequence[Value], others: Sequence[Value]) -> list[float]:
    """Return the cosine of the pooled Features of values and of others, pair by pair."""
    device = next(encoder.parameters()).device
    made: list[float] = []
    with torch.no_grad(), resting(encoder):
        for start in range(0, len(values), _BATCH):
            pairs = [*values[start : start + _BATCH], *others[start : start + _BATCH]]
            tensors = {name: tensor.to(device) for name, tensor in encoder.prepare(pairs).items()}
            one, two = encoder(**tensors).pooled.float().chunk(2)
            made += torch.cosine_similarity(one, two).tolist()
    return made
