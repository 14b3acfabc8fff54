"""What a user may set about training."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from polyfuse.core.compute import Compute
from polyfuse.core.errors import InputError
from polyfuse.core.options import Count, Doubled, Rate, Share, Usual
from polyfuse.data.schema import Strict

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Tracker = Literal["tensorboard", "wandb", "mlflow"]
Method = Literal["pgd", "fgsm_rs", "nfgsm", "free", "trades", "mart", "freelb", "vat"]
ONE_STEP = frozenset({"fgsm_rs", "nfgsm", "free"})
REGULARISERS = frozenset({"freelb", "vat"})
#: Let the answers at clean and changed inputs agree.
AGREEING = frozenset({"trades", "mart", "vat"})
SHARE = 0.05  # of the length of a text's embeddings, by which they are shifted when nothing is said
_WEIGHTS: dict[str, float] = {"trades": 6.0, "mart": 5.0, "vat": 1.0}
_FEW = 3  # steps of freelb, each of which is a pass of the whole model


def seconds(value: object) -> object:
    """Turn "90s", "5m", "1.5h" or "2d" into seconds; leave anything else to be checked as a number.

    >>> seconds("1.5h")
    5400.0
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value) if isinstance(value, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else value


Duration = Annotated[float, BeforeValidator(seconds), Field(gt=0)]


def limit_of(value: str | float) -> float:
    """Return a time limit in seconds.

    Raises:
        InputError: it is none.
    """
    try:
        limit: float = TypeAdapter(Duration).validate_python(value)
    except ValidationError as error:
        raise InputError(f"time_limit: {value!r:.80} given: it is a number of seconds, or 90s, 10m, 1h") from error
    return limit


class TrainingSettings(Strict):
    """How the model is trained.

    Attributes:
        epochs: passes over the training rows, at most.
        batch_size: rows of one forward pass, of each process where torchrun starts several.
        accumulate: forward passes of one update.
        optimizer: "adamw": θ ← θ − η m̂/(√v̂+ε) − ηλθ (Loshchilov & Hutter 2019), or "sgd" with momentum 0.9 and the
            same decoupled decay.
        learning_rate: η of all weights that start at random; a tuning has its own for a pretrained backbone.
        weight_decay: λ, of matrices; vectors (biases, norms, absent tokens) do not decay.
        warmup: share of all updates in which the learning rate rises from 0.
        schedule: how it goes on: "cosine" to 0, or "constant".
        clip: the gradient is scaled down to this norm.
        modality_dropout: share of the present modalities hidden in each training row, so that the model learns to do
            without; one always stays (Neverova et al. 2016).
        mixup: α of Beta(α, α), from which each batch draws the share λ in which its fused features and losses are mixed
            with those of the same rows in another order; 0 is off (Zhang et al. 2018, Verma et al. 2019).
        noise: by modality the standard deviation of Gaussian noise on its continuous input in each training step, in
            that input's unit (pixels in [0, 1], samples in [-1, 1]): so a model learns to be smoothed, see `polyfuse
            certify`. Validation rows stay clean. A fusion that is not named is "concat" then.
        metric: what decides which weights are kept, one of the head's metrics; its first one when left out. Of several
            targets `relative_loss`, the mean of their losses as shares of the prior's, or `<target>:<metric>`.
        patience: epochs without a better metric after which training stops.
        precision: of the arithmetic of backbones that are trained, and of fusions that read tokens where they are
            compared: "bf16" is autocast; "auto" takes it where the hardware has it.
        compute: how a pretrained encoder that rests is run, for all or by modality: in bf16, in ONNX Runtime, in
            float32 with less precise products of matrices ("medium"), or in plain float32. "auto" tries them for about
            a second and takes the fastest whose Features have a cosine of at least 0.999 with those of float32.
            Predictions are made in the same way; those of "onnx" in float32, which is the same arithmetic.
        sharding: over the processes that torchrun starts: "full" keeps in each its share only of every weight, gradient
            and state of the optimizer, for models too large for one; "none" keeps all in each.
        seed: of everything random.
        time_limit: seconds, or "90s", "5m", "1h", after which training stops and the best weights so far come out.
            Where frozen encoders would need more than half of it, a sample of the rows is used.
        checkpoint_every: updates between two checkpoints; one is also written after each epoch.
        trackers: where curves go.
    """

    epochs: Count = 12
    batch_size: Annotated[Count, Doubled()] = 64
    accumulate: Count = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Rate = 1e-3
    weight_decay: Annotated[float, Field(ge=0, le=10), Usual(1e-4, 0.3, log=True)] = 0.01
    warmup: Share = 0.1
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: Annotated[float, Field(gt=0)] = 1.0
    modality_dropout: Share = 0.2
    mixup: Annotated[float, Field(ge=0, le=10), Usual(0.0, 1.0)] = 0.0
    noise: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    metric: str | None = None
    patience: Count = 5
    precision: Literal["auto", "bf16", "float32"] = "auto"
    compute: Compute | dict[str, Compute] = "auto"
    sharding: Literal["none", "full"] = "none"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    time_limit: Duration | None = None
    checkpoint_every: Count = 500
    trackers: tuple[Tracker, ...] = ("tensorboard",)


_DEFAULTS = TrainingSettings()
_UPDATES_BATCH = 32  # rows of a step in which pretrained weights move
_TUNED_ROWS = 5_000  # that a tuning sees in all its epochs
_MANY_ROWS = 2_000  # from which a fusion on Features at rest overfits in its last epochs


def on_features(settings: TrainingSettings, rows: int) -> TrainingSettings:
    """Return how a fusion is trained on Features that are known: in fewer, larger steps, where nothing else was set."""
    batch = settings.batch_size
    changed: dict[str, Any] = {}
    if batch == _DEFAULTS.batch_size:
        batch = changed["batch_size"] = 2 ** min(8, max(3, round(math.log2(max(rows, 1) / 16))))
    if settings.learning_rate == _DEFAULTS.learning_rate:
        changed["learning_rate"] = settings.learning_rate * math.sqrt(batch / _DEFAULTS.batch_size)
    if settings.epochs == _DEFAULTS.epochs:
        changed["epochs"] = 8 if rows < _MANY_ROWS else 6
    return settings.model_copy(update=changed)


def on_pretrained(settings: TrainingSettings, rows: int, metric: str) -> TrainingSettings:
    """Return how pretrained encoders are tuned: in few epochs of small steps, where nothing else was set.

    Args:
        settings: as they were given.
        rows: of the table.
        metric: that decides which weights are kept.
    """
    changed: dict[str, Any] = {"metric": settings.metric or metric}
    if settings.batch_size == _DEFAULTS.batch_size:
        changed["batch_size"] = _UPDATES_BATCH
    if settings.epochs == _DEFAULTS.epochs:
        changed["epochs"] = min(_DEFAULTS.epochs, max(2, round(_TUNED_ROWS / max(rows, 1))))
    return settings.model_copy(update=changed)


class AdversarialSettings(Strict):
    """How a model is trained against an adversary who changes its inputs.

    Attributes:
        method: "pgd" (Madry et al. 2018); "fgsm_rs" from a random start (Wong et al. 2020) and "nfgsm" from noise twice
            as wide as the region (de Jorge et al. 2022), both in one step; "free" uses each gradient twice, for the
            weights and for the input, and replays each batch (Shafahi et al. 2019; a resumed run begins with unchanged
            inputs again); "trades" (Zhang et al. 2019) and
            "mart" (Wang et al. 2020) let the answers at clean and changed inputs agree, of a classification. In the
            space of embeddings, where no text is: "freelb" (Zhu et al. 2020), the mean gradient over the steps of an
            ascent, and "vat" (Miyato et al. 2017), answers that agree in the one direction in which they change most,
            of a classification. They regularise; what edits of a text do is another matter.
        budgets: by modality, what the adversary may change: "linf:8/255", or a mapping; the defaults when left out.
        features: by modality whose encoder rests, how far the adversary may shift its Features, as a share of the
            length of the pooled vector. No input does what is done there: a regulariser, not robustness of inputs.
        embeddings: of freelb and vat: by modality whose text encoder is trained, how far the embeddings of all words
            of a text together may be shifted, as a share of their length; 0.05 for each of them when left out.
        steps: of the attack in pgd, trades and mart; replays of a batch in free and freelb; of freelb 3 if left out.
        size: of a step, in radii; what suits the method when left out.
        ramp: share of all updates in which the radii grow from 0: a model that knows nothing yet learns nothing from
            what is changed as far as allowed.
        weight: of robustness against clean accuracy. Of trades, mart and vat β, of the others the share of the loss
            that changed inputs have; 6, 5, 1 and 1 when left out.
        awp: γ of adversarial weight perturbation (Wu, Xia and Wang 2020): the gradient is taken where each matrix of
            weights has gone γ of its own length to where the loss is higher, which flattens what is learned. 0 is off;
            in the paper 0.01, or 0.005 with trades. One more pass forward and back. Of several processes each goes
            where the loss of its own rows is higher.
    """

    method: Method = "nfgsm"
    budgets: dict[str, str | dict[str, Any]] | None = None
    features: dict[str, Annotated[float, Field(gt=0, le=10)]] | None = None
    embeddings: dict[str, Annotated[float, Field(gt=0, le=10)]] | None = None
    steps: Count = 7
    size: Annotated[float, Field(gt=0, le=10)] | None = None
    ramp: Share = 0.2
    weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    awp: Share = 0.0

    @model_validator(mode="before")
    @classmethod
    def _few_steps(cls, given: Any) -> Any:
        return {"steps": _FEW, **given} if isinstance(given, dict) and given.get("method") == "freelb" else given

    @property
    def replays(self) -> int:
        """How often a batch is gone through."""
        return self.steps if self.method in ("free", "freelb") else 1

    @property
    def gathers(self) -> bool:
        """Whether the gradients of all replays of a batch make one update."""
        return self.method == "freelb"

    @property
    def regularises(self) -> bool:
        """Whether nothing resists for it, so that weights are kept by clean rows."""
        return self.method in REGULARISERS

    @property
    def trade(self) -> float:
        """The weight, or what stands for it."""
        return _WEIGHTS.get(self.method, 1.0) if self.weight is None else self.weight
