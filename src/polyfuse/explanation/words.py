"""Words of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polyfuse.attacks.edits import tokens_of
from polyfuse.core.types import Tensors
from polyfuse.encoders.transformer import TransformerEncoder
from polyfuse.explanation.methods import Floats
from polyfuse.explanation.parts import Kind, TextPart
from polyfuse.explanation.question import Changed, Question, runs_alone
from polyfuse.explanation.rollout import attentions_of, rollout
from polyfuse.explanation.subject import Place, Subject, evenly

_PIECES = 64  # groups of neighbouring words, where there are more
_NOTHING = "_"  # in the place of a word where the tokenizer has no token that says nothing


class WordsSubject(Subject):
    """Words between blanks, of all columns; a word that is masked is replaced by the tokenizer's mask token."""

    kind: ClassVar[Kind] = "text"
    baselines = ("masked words", "removed words")

    def __init__(self, question: Question, name: str, seed: int) -> None:
        super().__init__(question, name, seed)
        self._cells = list(question.values[name] or ())
        self._split = [([], "") if cell is None else tokens_of(cell) for cell in self._cells]
        columns = [column.name for column in question.schema.of(name)]
        self.words = [word for tokens, _ in self._split for _, word in tokens]
        self.columns = [columns[i] for i, (tokens, _) in enumerate(self._split) for _ in tokens]
        self.tokenizer: Any = getattr(self.encoder, "companion", None)
        self.piece_of = evenly(len(self.words), _PIECES)
        self._mask_id, self._mask = self._saying_nothing()

    def changed(self, kept: Tensor, baseline: str) -> Changed:
        """Return the inputs of texts without some words."""
        masked = baseline == self.baselines[0]
        some = kept[:, torch.from_numpy(self.piece_of)].tolist()
        return self.question.changed(self.name, [self._text(row, masked) for row in some])

    def place(self, baseline: str) -> Place | None:
        """Return the embeddings of the tokens; of the baseline, with the mask's in the place of each word's."""
        spans = self._spans()
        if spans is None or baseline != self.baselines[0] or not runs_alone(self.question.model, self.name):
            return None
        tensors = self.question.prepared(self.name, [self.question.values[self.name]])
        module = self._embeddings(tensors)
        if module is None or self._mask_id is None:
            return None
        ids = tensors["ids"].clone()
        ids[0, [i for i, word in enumerate(spans) if word >= 0]] = self._mask_id
        return self.at_modules(tensors, [module], {**tensors, "ids": ids})

    def cells(self, found: Sequence[Tensor]) -> Floats:
        """Return weights of words: the sum over entries of their tokens' embeddings."""
        return self._of_tokens(found[0][0].double().sum(-1))

    def rolled(self) -> Floats | None:
        """Return how much of each word's tokens reaches the pooled vector."""
        spans = self._spans()
        tensors = self.question.prepared(self.name, [self.question.values[self.name]])
        found = None if spans is None else attentions_of(self.encoder, tensors)
        if found is None:
            return None
        whole = rollout(found)[0]
        pooling = getattr(self.encoder, "pooling", "mean")
        seen = whole.mean(0) if pooling == "mean" else whole[-1 if pooling == "last" else 0]
        return self._of_tokens(seen)

    def part(self, weights: Floats, **common: Any) -> TextPart:
        """Return words and weights."""
        return TextPart(**common, words=self.words, columns=self.columns, weights=weights.tolist())

    def _embeddings(self, tensors: Tensors) -> nn.Module | None:
        """Return the module that embeds the tokens: of those as large as the one that is named, the one that runs.

        Some models name a module that shares its weight with the one that is used.
        """
        named = getattr(self.encoder.backbone, "get_input_embeddings", lambda: None)()
        if not isinstance(named, nn.Embedding):
            return None
        size, run = named.weight.shape, list[nn.Module]()
        alike = [m for m in self.encoder.modules() if isinstance(m, nn.Embedding) and m.weight.shape == size]
        hooks = [module.register_forward_hook(lambda module, *_: run.append(module)) for module in alike]
        try:
            with torch.no_grad():
                self.encoder(**tensors)
        finally:
            for hook in hooks:
                hook.remove()
        return named if named in run else next(iter(run), None)

    def _saying_nothing(self) -> tuple[int | None, str]:
        """Return the token that says least, as its number and as it is written."""
        for kind in ("mask", "unk", "pad", "eos"):
            token = getattr(self.tokenizer, f"{kind}_token", None)
            if token is not None:
                return getattr(self.tokenizer, f"{kind}_token_id"), str(token)
        return None, _NOTHING

    def _text(self, kept: Sequence[bool], masked: bool) -> tuple[str | None, ...]:
        at, cells = iter(kept), []
        for cell, (tokens, tail) in zip(self._cells, self._split, strict=True):
            parts = []
            for blanks, word in tokens:
                here = next(at)
                if here or masked:
                    parts.append(blanks + (word if here else self._mask))
            cells.append(None if cell is None else "".join(parts) + tail)
        return tuple(cells)

    def _spans(self) -> list[int] | None:
        """Return of each token the number of its word, -1 of none; None where the tokenizer does not tell.

        Columns are joined by newlines, as the encoder joins them.
        """
        if not isinstance(self.encoder, TransformerEncoder) or not getattr(self.tokenizer, "is_fast", False):
            return None
        starts, ends, offset = [], [], 0
        for cell, (tokens, _) in zip(self._cells, self._split, strict=True):
            if cell is None:
                continue
            at = offset
            for blanks, word in tokens:
                starts.append(at + len(blanks))
                at = starts[-1] + len(word)
                ends.append(at)
            offset += len(cell) + 1
        # Lone surrogates are replaced sign by sign, so that no place moves.
        whole = "\n".join(cell for cell in self._cells if cell is not None).encode("utf-8", "replace").decode()
        read = self.tokenizer(whole, truncation=True, max_length=self.encoder.max_tokens, return_offsets_mapping=True)
        found = []
        for first, last in read["offset_mapping"]:
            shared = np.minimum(ends, last) - np.maximum(starts, first)
            best = int(shared.argmax()) if len(shared) else -1
            found.append(best if last > first and best >= 0 and shared[best] > 0 else -1)
        return found

    def _of_tokens(self, tokens: Tensor) -> Floats:
        """Return the sums over the tokens of each word. tokens: (tokens,)."""
        spans, weights = self._spans() or [], np.zeros(len(self.words))
        for word, weight in zip(spans, tokens.double().cpu().tolist(), strict=True):
            if word >= 0:
                weights[word] += weight
        return weights
