"""Several models on the same Features: the weighted mean of what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from polyfuse.core.compute import Precision
from polyfuse.core.contract import Encoder, Head, Tuning
from polyfuse.core.types import Features, Inputs, Tensors
from polyfuse.encoders.table import TableEncoder
from polyfuse.learners.learner import Array, Cells, Design, Learner
from polyfuse.learners.words import WordStatistics
from polyfuse.model import FusionModel, Model, Texts


@dataclass(frozen=True)
class Member:
    """One model of an ensemble.

    Attributes:
        name: as comparisons call it.
        weight: share in the mean; those of all members sum to 1.
        model: what answers.
        modalities: that it reads, in the ensemble's order.
        parts: of a learner, what it reads of them: "features", "words".
        own: of a fusion model, the modalities that it encodes with an encoder of its own, each with its tuning.
    """

    name: str
    weight: float
    model: FusionModel | Learner
    modalities: tuple[str, ...]
    parts: tuple[str, ...] = ("features", "words")
    own: Mapping[str, Tuning] = field(default_factory=dict)


class Ensemble(Model):
    """scores = Σ_m w_m scores_m: each encoder runs once for all members.

    Args:
        encoders: by modality, shared by all members; of a table it only prepares.
        head: of the task: reads answers and writes them.
        members: with weights that sum to 1.
        words: statistics of the texts, by modality.
        precision: of the pretrained backbones.
    """

    #: What the names of weights begin with that are kept with the members, or mean nothing.
    ELSEWHERE = ("_parts.", "head.")

    def __init__(
        self,
        encoders: Mapping[str, Encoder],
        head: Head,
        members: Sequence[Member],
        words: Mapping[str, WordStatistics],
        *,
        precision: Precision = "float32",
    ) -> None:
        super().__init__(encoders, head, precision=precision)
        self.members, self.words = list(members), dict(words)
        self.fusion_models = [member.model for member in members if isinstance(member.model, FusionModel)]
        self._parts = torch.nn.ModuleList(self.fusion_models)  # so that they move and turn with the whole
        if members:  # without, it is there to encode all
            some = [member for member in members if _wants_features(member)]
            self.reads = frozenset(name for member in some for name in member.modalities)
        wanted = {name for member in members if _wants_words(member) for name in member.modalities}
        self.reads_text = frozenset(wanted & set(words))

    def scores(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return the mean of the members' scores (batch, …), weighted."""
        total = torch.zeros((), device=present.device)
        for member, said in self._said(inputs, present, texts):
            scores = member.model.head.scores(said) if isinstance(member.model, FusionModel) else said
            total = total + member.weight * scores
        return total

    def outputs(self, inputs: Inputs, present: Tensor, texts: Texts) -> Tensor:
        """Return raw outputs (batch, …) with these scores; what learners say is a constant in them."""
        pairs = list(self._said(inputs, present, texts))
        raw = [
            said if isinstance(member.model, FusionModel) else self.head.unscored(said).float()
            for member, said in pairs
        ]
        return self.head.mixed(raw, [member.weight for member, _ in pairs])

    def _said(self, inputs: Inputs, present: Tensor, texts: Texts) -> Iterator[tuple[Member, Tensor]]:
        """Yield what each member says: of a fusion model the raw output, of a learner the scores."""
        shared = {name: self.encode_one(name, inputs[name], present) for name in self._encoded()}
        design = None
        for member in self.members:
            if isinstance(member.model, FusionModel):
                own = {name: inputs[name] for name in member.modalities}
                some = {name: own[name] if name in member.own else shared.get(name, own[name]) for name in own}
                yield member, member.model(some, self.present_of(member.modalities, present))
            else:
                design = design or self.design({**inputs, **shared}, present, texts)
                found = member.model.scores(design.only(member.modalities, parts=member.parts))
                yield member, torch.from_numpy(np.ascontiguousarray(found)).to(present.device)

    def present_of(self, modalities: Sequence[str], present: Tensor) -> Tensor:
        """Return which of some modalities each row has. present: (batch, modalities) bool, of all."""
        return present[:, [self.modalities.index(name) for name in modalities]]

    def design(self, inputs: Inputs, present: Tensor, texts: Texts) -> Design:
        """Return the rows as learners read them. inputs: of those modalities that are wanted."""
        vectors, cells = {}, {}
        for i, name in enumerate(self.modalities):
            if name not in inputs:
                continue
            encoder = self.encoder(name)
            if isinstance(encoder, TableEncoder):
                cells[name] = _cells(encoder, inputs[name], present[:, i])
            else:
                pooled = self.encode_one(name, inputs[name], present).pooled
                absent = ~present[:, i, None]
                vectors[name] = pooled.detach().masked_fill(absent, torch.nan).cpu().numpy()
        # In the order of the modalities: that of `texts` may be another in each process.
        known = {name: self.words[name] for name in self.modalities if name in texts and len(self.words[name])}
        words = {name: statistics.transform(texts[name]) for name, statistics in known.items()}
        return Design(vectors, cells, words)

    def _encoded(self) -> list[str]:
        """Name the modalities whose Features some member reads, from the shared encoder."""
        some = [member for member in self.members if _wants_features(member)]
        readers = {name for member in some for name in set(member.modalities) - set(member.own)}
        return [name for name in self.modalities if name in readers and not is_table(self.encoder(name))]


def is_table(encoder: Encoder) -> bool:
    """Tell whether an encoder reads columns that need no encoder to be learned from."""
    return isinstance(encoder, TableEncoder)


def shared_features(model: Model) -> set[str]:
    """Return the modalities of which Features will do in place of prepared tensors."""
    if isinstance(model, FusionModel):
        return set(model.modalities)
    assert isinstance(model, Ensemble)
    own = {name for member in model.members for name in member.own}
    return {name for name in model.reads if name not in own and not is_table(model.encoder(name))}


def _wants_features(member: Member) -> bool:
    return isinstance(member.model, FusionModel) or "features" in member.parts


def _wants_words(member: Member) -> bool:
    return isinstance(member.model, Learner) and "words" in member.parts


def _cells(encoder: TableEncoder, value: Features | Tensors, present: Tensor) -> Cells:
    # Features stand here only for a modality that was taken away.
    tensors = encoder.prepare([None] * len(present)) if isinstance(value, Features) else value
    missing = tensors["missing"] | ~present[:, None].to(tensors["missing"].device)
    numbers: Array = tensors["numbers"].detach().masked_fill(missing, torch.nan).cpu().numpy()
    codes = torch.where(present[:, None].to(tensors["codes"].device), tensors["codes"], 0).cpu().numpy()
    return Cells(numbers, codes, tuple(encoder.levels))
