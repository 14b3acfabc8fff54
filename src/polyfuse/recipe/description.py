"""What a recipe says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field

from polyfuse.attacks.goals import GOALS
from polyfuse.calibration.scaling import Choice
from polyfuse.core.errors import InputError, RecipeError, nearest
from polyfuse.data.augmentation import build_augmentations
from polyfuse.data.schema import ColumnTask, Schema, Strict, Target
from polyfuse.encoders import ENCODERS, default_encoder
from polyfuse.fusion import FUSIONS
from polyfuse.heads import HEADS
from polyfuse.heads.several import check_weights, part_heads
from polyfuse.recipe.component import Component
from polyfuse.training.fairness import FairnessSettings
from polyfuse.training.settings import AGREEING, AdversarialSettings, TrainingSettings
from polyfuse.tuning import TUNINGS

# What an encoder reads alike from any column; of numbers and categories each column has its own statistics.
_MEDIA = frozenset({"text", "image", "audio"})

Preset = Literal["fast", "balanced", "best"]
#: What `auto` compares with the preset "fast": what costs least.
FAST = {"candidates": ["alone", "words", "linear", "boosting", "concat"], "folds": 3}
ColumnChoice = Literal["text", "image", "audio", "points", "number", "category", "datetime", "embedding", "ignore"]


def _names(value: object) -> object:
    """Check the names of targets; a single one stands for itself."""
    names = list(value) if isinstance(value, list | tuple) else [value]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError("a target is the name of a column, or a list of names")
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(f"the target {twice[0]!r} is named twice; leave one of them out")
    return names[0] if len(names) == 1 else names


def _tasks(value: object) -> object:
    """Check a task, or the tasks of some targets."""
    known = get_args(ColumnTask)
    for task in value.values() if isinstance(value, Mapping) else [value]:
        if value is not None and task not in known:
            raise ValueError(f"a task is {', '.join(known)}; of several targets also a mapping from each to its task")
    return None if value == {} else value


def _screen(value: object) -> object:
    """Take true for a screen as it usually is, false for none."""
    return ({} if value else None) if isinstance(value, bool) else value


def _keep(value: object) -> object:
    """Take "none" for no rows at all."""
    return {"rows": 0} if value == "none" else value


class Modality(Strict):
    """One input of the model.

    Attributes:
        columns: that feed it.
        encoder: F_i; the default for the columns' types when left out.
        share: another modality whose encoder, weights and all, reads this one too.
    """

    columns: list[str] = Field(min_length=1)
    encoder: Component | None = None
    share: str | None = None

    def as_data(self) -> dict[str, Any]:
        """Return JSON values, what is not set left out."""
        data: dict[str, Any] = {"columns": self.columns}
        if self.encoder is not None:
            data["encoder"] = self.encoder.as_data()
        if self.share is not None:
            data["share"] = self.share
        return data


class DataSettings(Strict):
    """How the table is read and split.

    Attributes:
        validation_share: share of the training rows kept aside to decide which weights are kept.
        group: a column whose values are never on both sides of a split, e.g. a patient; it feeds no modality.
        on_bad_row: what happens to a row with something unreadable: "raise" reports all of them, "skip" leaves the
            rows out, "absent" takes the cells for missing.
        media_root: the folder that relative paths in cells start from; the table's own folder when left out.
    """

    validation_share: float = Field(0.15, gt=0, lt=1)
    group: str | None = None
    on_bad_row: Literal["raise", "skip", "absent"] = "raise"
    media_root: str | None = None


class ScreenSettings(Strict):
    """How suspicious rows are told from ordinary ones.

    Attributes:
        rate: share of ordinary rows that may be flagged.
        neighbours: which nearest neighbour among the training rows a row's distance is taken to.
    """

    rate: float = Field(0.05, gt=0, lt=0.5)
    neighbours: int = Field(10, ge=1, le=1_000)


class KeepSettings(Strict):
    """What is kept of the training rows for `polyfuse refit`.

    Attributes:
        rows: at most so many, a third of them to measure on; 0 keeps none, and says where they are by a hash alone.
        megabytes: that they take at most, about (2^20 bytes each).
    """

    rows: int = Field(2_000, ge=0, le=1_000_000)
    megabytes: float = Field(64.0, gt=0, le=1024)


class Recipe(Strict):
    """The whole description of a model and its training.

    Attributes:
        target: the column that is asked for, or a list of several.
        task: what is asked of it; inferred when left out, as everything below. Of several, of all or by target.
        columns: type of a column, where the inferred one is not wanted; "ignore" leaves it out.
        modalities: inputs of the model, by name.
        preset: how much is tried, where nothing else is said: "fast" compares few ways to combine, "balanced" (as when
            it is left out) all of them, "best" tunes the pretrained encoders too.
        fusion: M_O: a fusion, a learner, an ensemble, or "auto", which finds the best of them.
        head: the task's head with its options, or another head; of several targets `several`, which holds one for each.
        tuning: which weights of an encoder move, by modality; or one for all.
        augmentation: by modality, what changes its values at random in training, where its encoder moves; "auto" trains
            once without and once with what suits the columns, and keeps what is better on rows kept aside. "none" is
            off, as with the preset "fast", and where a fusion is named.
        adversarial: who changes inputs in training, and how, so that the model learns to resist; a fusion that is not
            named is "concat" then.
        robust: the same with its defaults.
        fairness: a column whose groups are to be answered alike, and in what sense; a fusion that is not named is
            "concat" then. The column is no input of the model, unless a modality names it.
        screen: fit a screen, which tells rows that are damaged or made by an adversary from ordinary ones: true, or a
            mapping with `rate` and `neighbours`. Rows are kept apart for it, from which the model does not learn.
        calibration: what makes probabilities mean what they say, fitted on the validation rows: "temperature", which
            never changes an answer, "vector", a weight and a bias for each label, which may, or "none"; "auto" takes
            what is better on rows that it was not fitted on, with `fairness` a temperature. Attacks, stress and screens
            act on the scores before it.
        reference: what new rows are later compared with by `drift`: "rows" keeps, of at most 2,000 validation rows, the
            numbers, hashes of the categories, measures of the media, Features and scores; "none" keeps nothing.
        keep: rows that the artifact keeps as they are, for `polyfuse refit`: a mapping with `rows` and `megabytes`, or
            "none", where they are not to be passed on.
        data: how the table is read and split.
        training: how the model is trained.
    """

    target: Annotated[str | list[str], BeforeValidator(_names)]
    task: Annotated[ColumnTask | dict[str, ColumnTask] | None, BeforeValidator(_tasks)] = None
    columns: dict[str, ColumnChoice] = Field(default_factory=dict)
    modalities: dict[str, Modality] | None = Field(None, min_length=1)
    preset: Preset | None = None
    fusion: Component = Component(name="auto")
    head: Component | None = None
    tuning: Component | dict[str, Component] = Field(default_factory=dict)
    augmentation: dict[str, list[Component]] | Literal["auto", "none"] | None = None
    adversarial: AdversarialSettings | None = None
    robust: bool = False
    fairness: FairnessSettings | None = None
    screen: Annotated[ScreenSettings | None, BeforeValidator(_screen)] = None
    calibration: Choice = "auto"
    reference: Literal["rows", "none"] = "rows"
    keep: Annotated[KeepSettings, BeforeValidator(_keep)] = KeepSettings()
    data: DataSettings = DataSettings()
    training: TrainingSettings = TrainingSettings()

    def as_data(self) -> dict[str, Any]:
        """Return JSON values, components in their shortest form, what is not set left out."""
        given: dict[str, Any] = {
            "target": self.target,
            "task": self.task,
            "columns": dict(self.columns),
            "modalities": {name: modality.as_data() for name, modality in (self.modalities or {}).items()},
            "preset": self.preset,
            "fusion": self.fusion.as_data(),
            "head": self.head.as_data() if self.head else None,
            "tuning": _tuning_data(self.tuning),
            "augmentation": _augmentation_data(self.augmentation),
            "adversarial": self.adversarial.model_dump(mode="json", exclude_none=True) if self.adversarial else None,
            "robust": self.robust or None,
            "fairness": self.fairness.model_dump(mode="json", exclude_none=True) if self.fairness else None,
            "screen": self.screen.model_dump(mode="json") if self.screen else None,
            "calibration": self.calibration,
            "reference": self.reference,
            "keep": self.keep.model_dump(mode="json") if self.keep != KeepSettings() else None,
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "training": self.training.model_dump(mode="json", exclude_none=True),
        }
        return {key: value for key, value in given.items() if value not in (None, {})}

    def to_yaml(self) -> str:
        """Return YAML to edit."""
        return yaml.safe_dump(self.as_data(), sort_keys=False, allow_unicode=True, width=110)

    def completed(self, schema: Schema) -> Recipe:
        """Return the recipe with everything filled in that follows from a table's schema.

        Raises:
            RecipeError: an encoder cannot read its columns, or the recipe names a modality that is not there.
        """
        given = self.modalities or {}
        modalities = {}
        for name, columns in schema.modalities.items():
            known = given.get(name) or Modality(columns=columns)
            encoder = known.encoder
            if encoder is None and known.share is None:
                encoder = Component(name=default_encoder({column.type for column in schema.of(name)}))
            modalities[name] = Modality(columns=columns, encoder=encoder, share=known.share)
        encoders = {name: encoder_of(name, modalities) for name in modalities}
        for name, encoder in encoders.items():
            _check_reads(name, encoder, schema)
        own = {name: encoder for name, encoder in encoders.items() if not modalities[name].share}
        for name in self.tuning if isinstance(self.tuning, dict) else {}:
            if name not in own:
                raise RecipeError(f"tuning.{name}: there is no such modality with an encoder; {nearest(name, own)}")
        adversarial = self.adversarial or (AdversarialSettings() if self.robust else None)
        by_gradients = adversarial is not None or bool(self.training.noise) or self.fairness is not None
        fusion = Component(name="concat") if by_gradients and self.fusion.name == "auto" else self.fusion
        if self.training.noise and fusion.name not in FUSIONS:
            raise RecipeError(
                f"training.noise: {fusion.name!r} is not trained by gradients; name a fusion, e.g. concat"
            )
        if self.screen is not None and schema.target.parts:
            raise RecipeError(
                f"screen: the model answers several targets ({', '.join(schema.target.names)}), and a screen belongs to"
                " a model of one; leave it out, or fit a model of one target"
            )
        if adversarial is not None:
            _check_adversarial(adversarial, fusion, target=schema.target, training=self.training)
        if self.fairness is not None:
            _check_fairness(self.fairness, fusion, adversarial, target=schema.target, training=self.training)
        if fusion.name == "auto" and self.preset == "fast":
            fusion = Component.model_validate({"name": "auto", **FAST, **fusion.options})
        target = schema.target
        tuning = {name: self._tuning_of(name, encoder) for name, encoder in own.items()}
        filled: dict[str, Any] = {
            "task": {part.name: part.task for part in target.parts} or target.task,
            "modalities": modalities,
            "tuning": tuning,
            "head": _head_of(self.head, target),
            "fusion": fusion,
            "adversarial": adversarial,
            # A vector moves where labels are told apart, and with it the gap that was narrowed.
            "calibration": "temperature" if self.fairness and self.calibration == "auto" else self.calibration,
        }
        searching = fusion.name == "auto" and self.preset != "fast"
        filled["augmentation"] = self._augmentation(tuning, modalities, schema, searching=searching)
        return self.model_copy(update=filled)

    def _augmentation(
        self, tuning: Mapping[str, Component], modalities: Mapping[str, Modality], schema: Schema, *, searching: bool
    ) -> dict[str, list[Component]] | Literal["auto", "none"]:
        if not isinstance(self.augmentation, dict):
            return self.augmentation or ("auto" if searching else "none")
        for name, some in self.augmentation.items():
            if name not in modalities:
                raise RecipeError(f"augmentation.{name}: there is no such modality; {nearest(name, modalities)}")
            if TUNINGS[tuning[modalities[name].share or name].name].frozen:
                raise RecipeError(
                    f"augmentation.{name}: its encoder is frozen, and what a frozen encoder says of a value is computed"
                    " once; tune it, or leave the augmentation out"
                )
            build_augmentations([component.as_data() for component in some], schema.of(name))
        return self.augmentation

    def _tuning_of(self, modality: str, encoder: Component) -> Component:
        if isinstance(self.tuning, Component):
            return self.tuning
        if modality in self.tuning:
            return self.tuning[modality]
        if "checkpoint" not in ENCODERS.options(encoder.name):
            return Component(name="full")
        return Component(name="last" if self.preset == "best" else "frozen")


def _check_adversarial(
    adversarial: AdversarialSettings, fusion: Component, *, target: Target, training: TrainingSettings
) -> None:
    """Check that training can be adversarial.

    Raises:
        RecipeError: with what is in the way.
    """
    if fusion.name not in FUSIONS:
        raise RecipeError(f"adversarial: {fusion.name!r} is not trained by gradients; name a fusion, e.g. concat")
    if target.task not in GOALS:
        raise RecipeError(f"adversarial: attacks know {', '.join(GOALS)}, and the task is {target.task}; leave it out")
    if adversarial.method in AGREEING and target.task != "classification":
        instead = "freelb" if adversarial.regularises else "pgd or nfgsm"
        raise RecipeError(f"adversarial.method: {adversarial.method!r} is of a classification; take {instead}")
    if adversarial.method not in AGREEING and adversarial.trade > 1:
        raise RecipeError(
            f"adversarial.weight: {adversarial.trade:g} given: with {adversarial.method!r} it is a share, from 0 to 1"
        )
    spaces = ("budgets", "features") if adversarial.regularises else ("embeddings",)
    for name in spaces:
        if getattr(adversarial, name) is not None:
            told = "shifts embeddings alone" if adversarial.regularises else "shifts none; freelb and vat do"
            raise RecipeError(f"adversarial.{name}: {adversarial.method!r} {told}; leave it out")
    for name, wanted in (("mixup", 0.0), ("noise", None), ("sharding", "none")):
        if getattr(training, name) != wanted:
            raise RecipeError(f"training.{name}: it does not go with adversarial training; leave it out")


def _check_fairness(
    fairness: FairnessSettings,
    fusion: Component,
    adversarial: AdversarialSettings | None,
    *,
    target: Target,
    training: TrainingSettings,
) -> None:
    """Check that training can be fair.

    Raises:
        RecipeError: with what is in the way.
    """
    if fusion.name not in FUSIONS:
        raise RecipeError(f"fairness: {fusion.name!r} is not trained by gradients; name a fusion, e.g. concat")
    if target.parts:
        raise RecipeError(
            f"fairness: the model answers several targets ({', '.join(target.names)}), and groups are compared in one;"
            " leave it out, or fit a model of one target"
        )
    if fairness.criterion == "equalized_odds" and target.task != "classification":
        raise RecipeError(
            f"fairness.criterion: 'equalized_odds' compares rows of the same label, and the task is {target.task}; take"
            " demographic_parity or worst_group"
        )
    if adversarial is not None:
        raise RecipeError("fairness: it does not go with adversarial training; leave one of them out")
    for name, wanted in (("mixup", 0.0), ("sharding", "none")):
        if getattr(training, name) != wanted:
            raise RecipeError(f"training.{name}: it does not go with fairness; leave it out")


def _head_of(head: Component | None, target: Target) -> Component:
    """Return the head of a target; of several, with the head of each.

    Raises:
        RecipeError: it answers another task.
    """
    head = head or Component(name=target.task)
    answered = HEADS[head.name].task
    if answered != target.task and target.parts:
        raise RecipeError(
            f"head: {head.name!r} answers one target, and there are several ({', '.join(target.names)}); say"
            f" head: {{name: several, heads: {{{target.names[0]}: …}}}}, or leave head out"
        )
    if answered != target.task:
        raise RecipeError(
            f"head: {head.name!r} answers {answered}, and the task is {target.task}; leave head out, or set task"
        )
    if not target.parts or "heads" not in HEADS.options(head.name):
        return head
    try:
        check_weights(target.names, head.options.get("weights"))
        each = part_heads(target, head.options.get("heads") or {})
    except InputError as error:
        raise RecipeError(str(error)) from error
    named = [Component.model_validate({"name": name, **options}).as_data() for name, options in each]
    heads = dict(zip(target.names, named, strict=True))
    return Component.model_validate({"name": head.name, **head.options, "heads": heads})


def encoder_of(name: str, modalities: Mapping[str, Modality]) -> Component:
    """Return a modality's own encoder, or the one it shares.

    Raises:
        RecipeError: it shares with a modality that has none of its own.
    """
    modality = modalities[name]
    if modality.share is None:
        assert modality.encoder is not None
        return modality.encoder
    owner = modalities.get(modality.share)
    if owner is not None and owner.encoder is not None and not ENCODERS[owner.encoder.name].reads <= _MEDIA:
        raise RecipeError(
            f"modalities.{name}.share: the encoder {owner.encoder.name!r} is made for the columns of {modality.share!r}"
            " and reads no others; give this modality an encoder of its own"
        )
    if owner is None or owner.encoder is None:
        hint = nearest(modality.share, [other for other, known in modalities.items() if known.encoder])
        raise RecipeError(
            f"modalities.{name}.share: {modality.share!r} is no modality with an encoder of its own; {hint}"
        )
    return owner.encoder


def _augmentation_data(augmentation: Any) -> Any:
    if isinstance(augmentation, dict):
        return {name: [component.as_data() for component in some] for name, some in augmentation.items()}
    return augmentation


def _tuning_data(tuning: Component | Mapping[str, Component]) -> Any:
    if isinstance(tuning, Component):
        return tuning.as_data()
    # A modality that is called `name` must not read like the name of one tuning for all.
    return {
        name: {"name": component.name, **component.options} if name == "name" else component.as_data()
        for name, component in tuning.items()
    }


def _check_reads(name: str, encoder: Component, schema: Schema) -> None:
    reads = ENCODERS[encoder.name].reads
    wrong = [f"{column.name} ({column.type})" for column in schema.of(name) if column.type not in reads]
    if wrong:
        raise RecipeError(
            f"modalities.{name}: the encoder {encoder.name!r} reads {', '.join(sorted(reads))}, not {', '.join(wrong)};"
            " choose another encoder, or set the column's type under columns"
        )
