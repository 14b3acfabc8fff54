"""Two samples side by side: all questions are asked of the same dealings, and answered together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from polyfuse.data.schema import Column, Schema, Target
from polyfuse.drift import statistics as st
from polyfuse.drift.answers import decided, drawn, losses, sureness, truths
from polyfuse.drift.deciding import corrected, shares_beyond
from polyfuse.drift.measures import level_code
from polyfuse.drift.report import Bars, Kind, Shift
from polyfuse.drift.sample import LEAST, Sample
from polyfuse.drift.spreads import Spread, mark_bars, number_bars, number_note
from polyfuse.drift.vectors import TABULAR, table_vectors
from polyfuse.metrics.metric import Array, Floats
from polyfuse.metrics.several import Part


@dataclass(frozen=True, eq=False)
class Question:
    """One comparison, before it is known what the others say.

    Attributes:
        kind: as of a Shift, and so on to `unit`.
        statistics: of each dealing (dealings,), the true one first.
    """

    kind: Kind
    name: str
    what: str
    test: str
    effect: float
    unit: str
    statistics: Floats
    note: str = ""
    bars: Bars | None = None


class Comparison:
    """Asks how new rows differ from a reference.

    Args:
        reference: calibrated, as the new rows are.
        new: rows.
        schema: of the model.
        parts: where each target stands in truth and scores.
        ignore: columns that are not compared, nor a modality that has no others.
        count: of random dealings.
        seed: of them.
    """

    def __init__(
        self,
        reference: Sample,
        new: Sample,
        schema: Schema,
        parts: Sequence[Part],
        *,
        ignore: Collection[str] = (),
        count: int = 999,
        seed: int = 0,
    ) -> None:
        self.old, self.new, self.schema, self.parts = reference, new, schema, list(parts)
        self.ignore, self.seed = frozenset(ignore), seed
        self.labels = st.dealings(len(reference), len(new), count, seed)
        self.left_out: dict[str, str] = {}

    def shifts(self, alpha: float, advance: Callable[[], None] = lambda: None) -> list[Shift]:
        """Return every difference, the rarest by chance first.

        Args:
            alpha: at which one is found.
            advance: is called for each of the columns, modalities and targets.
        """
        questions: list[Question] = []
        for ask in self.asked:
            questions += ask()
            advance()
        # What is the same in every dealing is the same in both samples.
        questions = [question for question in questions if np.ptp(question.statistics) > 0]
        if not questions:
            return []
        every = np.stack([question.statistics for question in questions])
        alone, together = shares_beyond(every), corrected(every)
        found = [
            _shift(question, float(p), float(adjusted), alpha)
            for question, p, adjusted in zip(questions, alone, together, strict=True)
        ]
        return sorted(found, key=lambda shift: (shift.adjusted, shift.p))

    @cached_property
    def asked(self) -> list[Callable[[], list[Question]]]:
        """What asks about each column, modality and target."""
        schema = self.schema
        columns = [partial(self._of_column, column) for column in schema.columns if column.name not in self.ignore]
        names = [name for name, some in schema.modalities.items() if not self.ignore.issuperset(some)]
        targets = zip(self.parts, schema.target.each(), strict=True)
        return [
            *columns,
            *(partial(self._of_modality, name) for name in names),
            *(partial(self._of_target, part, target) for part, target in targets),
        ]

    def _of_column(self, column: Column) -> list[Question]:
        name = column.name
        old, new = self.old.missing[name], self.new.missing[name]
        found = []
        flags = np.concatenate([old, new])
        if flags.any():
            note = f"{old.mean():.1%} → {new.mean():.1%}"
            statistics = st.shares(flags, self.labels)
            found.append(
                Question("column", name, "missing", "χ²", new.mean() - old.mean(), "of rows", statistics, note)
            )
        if column.type == "datetime":
            self.left_out[name] = "dates move on by themselves; only whether they are missing is compared"
            return found
        if self._too_few(name, ~old, ~new):
            return found
        for (of, what), before in self.old.numbers.items():
            if of == name:
                found.append(self._numbers("column", name, what, before, self.new.numbers[of, what]))
        if column.type == "category":
            before, after = self.old.codes[name], self.new.codes[name]
            known = {level_code(level): level for level in column.levels}
            unknown = dict.fromkeys(self.new.levels.get(name, {}).keys() - known.keys() - set(before.tolist()), "")
            found.append(self._levels("column", name, "levels", before, after, {**unknown, **known}))
        return found

    def _of_modality(self, name: str) -> list[Question]:
        columns = [column for column in self.schema.of(name) if column.name not in self.ignore]
        old, new = self.old.present[name], self.new.present[name]
        if name in self.old.vectors:
            if len(columns) < len(self.schema.modalities[name]):
                self.left_out[f"features of {name}"] = "they are also of columns that are to be ignored"
                return []
            vectors = np.concatenate([self.old.vectors[name], self.new.vectors[name]]).astype(np.float32)
        elif all(column.type in TABULAR for column in columns):
            vectors = table_vectors(columns, self.old, self.new)
            if vectors.shape[1] < 2:  # one number, that was compared before
                return []
        else:
            self.left_out[f"features of {name}"] = "the model reads its words, and has no encoder for it"
            return []
        if self._too_few(f"features of {name}", old, new):
            return []
        there = np.concatenate([old, new])
        vectors, labels = vectors[there], self.labels[:, there]
        apart, area = st.discrepancy(vectors, labels), st.told_apart(vectors, labels, self.seed)
        return [
            Question("modality", name, "features", "MMD", max(apart[0], 0.0) ** 0.5, "MMD", apart),
            Question("modality", name, "told apart", "classifier", area[0], "AUC", area),
        ]

    def _of_target(self, part: Part, target: Target) -> list[Question]:
        before, after = (part.scores(sample.scores) for sample in (self.old, self.new))
        if self.old.by_folds:
            random, errors = np.random.default_rng(self.seed), self._errors(part)
            given = [drawn(part, some, errors, random) for some in (before, after)]
            self.left_out[f"confidence in {target.name}"] = (
                "the model has learned from the reference since its answers were kept, and is a little surer for that"
                " alone; answers are compared as they may turn out.  fit_reference  with other rows compares both"
            )
        else:
            given = [decided(part, some) for some in (before, after)]
        found = [self._answers("prediction", target, "answers", *given)]
        if part.task != "regression" and not self.old.by_folds:
            sure = [sureness(part, some) for some in (before, after)]
            found.append(self._numbers("prediction", target.name, "confidence", *sure))
        if min(part.known(sample.truth).sum() for sample in (self.old, self.new)) < LEAST:
            return found
        found.append(self._answers("answer", target, "truth", *(truths(part, some) for some in (self.old, self.new))))
        old, new = (losses(part, sample) for sample in (self.old, self.new))
        statistics = st.rise(np.concatenate([old, new]), self.labels)
        note = f"{np.nanmean(old):.4g} → {np.nanmean(new):.4g}"
        unit = "mean absolute error" if part.task == "regression" else "share of errors"
        return [*found, Question("answer", target.name, "error", "rise", statistics[0], unit, statistics, note)]

    def _errors(self, part: Part) -> Array:
        """Return by how much a regression was off on the reference (n,); nothing of another task."""
        if part.task != "regression":
            return np.empty(0)
        true, score = part.only(self.old.truth, self.old.scores)
        return true - score

    def _answers(self, kind: Kind, target: Target, what: str, before: Array, after: Array) -> Question:
        """Ask about answers: numbers (rows,), codes of labels (rows,), or which labels a row has (rows, labels)."""
        if target.task == "regression":
            return self._numbers(kind, target.name, what, before, after)
        names = dict(enumerate(map(str, target.levels)))
        if target.task == "classification":
            return self._levels(kind, target.name, what, before.astype(np.int64), after.astype(np.int64), names)
        flags = np.concatenate([before, after]) > 0
        shares = [some.mean(axis=0) for some in (before > 0, after > 0)]
        most = float(np.abs(shares[1] - shares[0]).max())
        statistics = st.marks(flags, self.labels)
        bars = mark_bars(list(names.values()), *shares)
        return Question(kind, target.name, what, "χ²", most, "largest change of a share", statistics, "", bars)

    def _numbers(self, kind: Kind, name: str, what: str, before: Array, after: Array) -> Question:
        statistics = st.kolmogorov(np.concatenate([before, after]), self.labels)
        n, m = (np.count_nonzero(~np.isnan(some)) for some in (before, after))
        effect = statistics[0] / np.sqrt(n * m / (n + m))
        note, bars = number_note(before, after), number_bars(before, after)
        return Question(kind, name, what, "KS", effect, "KS distance", statistics, note, bars)

    def _levels(
        self, kind: Kind, name: str, what: str, before: Array, after: Array, names: Mapping[int, str]
    ) -> Question:
        statistics = st.homogeneity(np.concatenate([before, after]), self.labels)
        spread = Spread.of(before, after, names)
        return Question(
            kind, name, what, "χ²", spread.variation, "total variation", statistics, spread.note, spread.bars
        )

    def _too_few(self, name: str, old: Any, new: Any) -> bool:
        few = min(old.sum(), new.sum()) < LEAST
        if few:
            self.left_out[name] = f"fewer than {LEAST} rows have it, in the reference or among the new ones"
        return bool(few)


def _shift(asked: Question, p: float, adjusted: float, alpha: float) -> Shift:
    return Shift(
        kind=asked.kind,
        name=asked.name,
        what=asked.what,
        test=asked.test,
        effect=float(asked.effect),
        unit=asked.unit,
        p=p,
        adjusted=adjusted,
        found=adjusted <= alpha,
        note=asked.note,
        bars=asked.bars,
    )
