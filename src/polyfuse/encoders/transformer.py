"""Text, by a pretrained language model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, Depth
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column
from polyfuse.encoders.pretrained import PretrainedEncoder, digest, load_companion, load_model


class TransformerEncoder(PretrainedEncoder):
    """Any transformers text model: the mean of its last layers' hidden states are the tokens.

    The last layer alone is shaped by what the model was pretrained for; with those below it, a frozen model tells more
    (Devlin et al. 2019, section 5.3). Each is normalised before the mean, for their sizes differ.
    Several columns are joined by a newline. Of an encoder-decoder model the encoder alone is used.
    `prepare` gives `ids` (batch, n) int64 and `mask` (batch, n) bool.

    Args:
        columns: text columns that feed it.
        checkpoint: hub name or local folder.
        max_tokens: longer texts are cut there, and where the model itself ends.
        layers: number of last layers of which the mean is taken; 1 is the last one as it is.
        pooling: the "mean" over tokens (Reimers and Gurevych 2019), the "first" token, the "last" one; "auto" is the
            last one for a decoder, whose other tokens have not seen the whole text, else the mean.

    Raises:
        InputError: the checkpoint cannot be loaded, or is no text model.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"text"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        checkpoint: str = "sentence-transformers/all-MiniLM-L6-v2",
        max_tokens: Count = 160,
        layers: Depth = 4,
        pooling: Literal["auto", "mean", "first", "last"] = "auto",
    ) -> None:
        super().__init__()
        self.companion = load_companion("AutoTokenizer", checkpoint)
        self.backbone, self._prefix = load_model(checkpoint, "text_config")
        config: Any = self.backbone.config
        if self.backbone.main_input_name != "input_ids" or not hasattr(config, "hidden_size"):
            raise InputError(f"checkpoint={checkpoint!r} is {type(self.backbone).__name__}, which reads no text")
        # The pooler is a layer over the first token, for pretraining; the pooling here is another.
        if isinstance(getattr(self.backbone, "pooler", None), torch.nn.Module):
            self.backbone.pooler = None  # type: ignore[assignment]
        self.dim = config.hidden_size
        self.layers = layers
        self.pooling = pooling if pooling != "auto" else ("last" if _is_decoder(config.model_type) else "mean")
        self.max_tokens = min(max_tokens, self.companion.model_max_length, _positions(self.backbone))
        ends = (self.companion.pad_token_id, self.companion.eos_token_id, self.companion.bos_token_id, 0)
        self.pad = next(token for token in ends if token is not None)
        self._tokenizer = _tokenizer_digest(self.companion)

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Tokenize."""
        texts = ["\n".join(_clean(cell) for cell in value or () if cell is not None) for value in values]
        rows = self.companion(texts, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
        lists = [ids or [self.pad] for ids in rows["input_ids"]]
        longest = max(map(len, lists), default=1)
        ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row in lists], dtype=torch.long)
        lengths = torch.tensor([len(row) for row in lists])
        return {"ids": ids.view(len(lists), longest), "mask": torch.arange(longest) < lengths[:, None]}

    def forward(self, ids: Tensor, mask: Tensor, shift: Tensor | None = None) -> Features:
        """ids: (batch, n), mask: (batch, n) bool, shift: (batch, n, width), as `embedded` says."""
        with self._shifted(shift):
            output = self.backbone(input_ids=ids, attention_mask=mask.long(), output_hidden_states=self.layers > 1)
        tokens = output.last_hidden_state
        if self.layers > 1:
            # Without the embedding, which no layer has seen; the last as the final norm leaves it.
            last = [*output.hidden_states[1:-1], tokens][-self.layers :]
            tokens = self._normed(last) / len(last)
        return self._pooled(tokens, mask)

    def forward_lower(self, ids: Tensor, mask: Tensor) -> Features:
        """Return as tokens the hidden states at the cut, and beside them the sum of those that the mean takes below it.

        Args:
            ids: (batch, n).
            mask: (batch, n) bool.
        """
        assert self._cut is not None
        model, inputs = self._cut.lower(self.backbone)
        model(input_ids=ids, attention_mask=mask.long())
        below = inputs[1:][max(0, self._depth() - self.layers) :] if self.layers > 1 else []
        return Features.of_tokens(torch.cat([inputs[-1].float(), *([self._normed(below)] if below else [])], -1), mask)

    def resume(self, hidden: Tensor, mask: Tensor) -> Features:
        """Go on above the cut. hidden: (batch, n, width of `lower`), mask: (batch, n) bool."""
        assert self._cut is not None
        model, outputs = self._cut.upper(self.backbone, hidden[..., : self.dim])
        placeholder = torch.zeros_like(mask, dtype=torch.long)
        tokens = model(input_ids=placeholder, attention_mask=mask.long()).last_hidden_state
        if self.layers > 1:
            total = self._normed([*outputs[:-1], tokens][-self.layers :])
            if hidden.shape[-1] > self.dim:
                total = total + hidden[..., self.dim :]
            tokens = total / min(self.layers, self._depth())
        return self._pooled(tokens, mask)

    def embedded(self, tensors: Tensors) -> Tensor:
        """Return the embeddings of words, before that of their places is added."""
        embeddings: Tensor = self._words()[0](tensors["ids"])
        return embeddings

    def _words(self) -> list[torch.nn.Module]:
        """Return the embedding of words: of some models two modules with one weight, of which the second is called."""
        backbone: Any = self.backbone
        weight = backbone.get_input_embeddings().weight
        every = (module for module in self.backbone.modules() if isinstance(module, torch.nn.Embedding))
        return [module for module in every if module.weight is weight]

    @contextmanager
    def _shifted(self, shift: Tensor | None) -> Iterator[None]:
        """Add something to the embeddings of words, as long as the block runs."""
        if shift is None:
            yield
            return
        # Not every model takes embeddings in the place of ids, and some count places from these.
        hooks = [words.register_forward_hook(lambda _, __, found: found + shift) for words in self._words()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def examples(self) -> list[tuple[Any, ...]]:
        """Return a short text and a longer one."""
        return [("a",), ("one two three four five",)]

    def preparation(self) -> dict[str, Any]:
        """Return tokenizer, length, layers and pooling."""
        return {
            "tokenizer": self._tokenizer,
            "max_tokens": self.max_tokens,
            "layers": self.layers,
            "pooling": self.pooling,
        }

    def _normed(self, states: Sequence[Tensor]) -> Tensor:
        """Return the sum of hidden states (batch, n, dim), each normalised."""
        total = F.layer_norm(states[0].float(), (self.dim,))
        for state in states[1:]:  # one after the other: side by side they would be copied once more
            total = total + F.layer_norm(state.float(), (self.dim,))
        return total

    def _pooled(self, tokens: Tensor, mask: Tensor) -> Features:
        if self.pooling == "mean":
            return Features.of_tokens(tokens, mask)
        at = mask.sum(1) - 1 if self.pooling == "last" else torch.zeros_like(mask[:, 0], dtype=torch.long)
        return Features(tokens, mask, tokens[torch.arange(tokens.shape[0], device=tokens.device), at])

    def _depth(self) -> int:
        assert self._cut is not None
        return len(list(self.backbone.get_submodule(self._cut.stack).children()))


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return digest(tokenizer.get_vocab())
    # Truncation and padding are set anew by each call.
    return digest({**json.loads(backend.to_str()), "truncation": None, "padding": None})


def _clean(text: str) -> str:
    """Replace lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def _is_decoder(kind: str) -> bool:
    from transformers.models.auto import modeling_auto as auto

    return kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _positions(model: Any) -> int:
    """Return how many tokens the model has positions for; RoBERTa's first ones are taken by the padding."""
    limit = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.num_embeddings - module.padding_idx - 1)
    return int(limit)
