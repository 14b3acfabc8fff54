"""Adversarial training: the model learns from inputs that an attack on it has just found."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from polyfuse.attacks.goals import Apart, Goal, goal_of
from polyfuse.attacks.gradient import PGDAttack
from polyfuse.attacks.problem import Point, Problem
from polyfuse.attacks.regions import Ball, Region
from polyfuse.attacks.threat import Seam, Threat
from polyfuse.core.types import Batch, Features, Inputs, Tensors
from polyfuse.model import FusionModel
from polyfuse.training.settings import AGREEING, ONE_STEP, AdversarialSettings

_SIZES: dict[str, float] = {"fgsm_rs": 1.25, "freelb": 0.5}
_NEAR = 0.01  # of the radius: where vat asks for its direction; at the clean input it has none
_WATCHED = PGDAttack(steps=10)
_COLLAPSE = 0.2  # fall of the robust metric, from one epoch's best, that is taken for catastrophic overfitting
_TURNS = 3  # of the trial that tells what a step costs
_AFTERWARDS = 3  # steps of PGD with which training goes on then


@dataclass(eq=False)
class Adversary:
    """Changes batches as the method says.

    Args:
        model: that is trained; attacked as it is at each moment, in evaluation mode.
        threats: continuous threats to some modalities.
        settings: the method.
        seed: of all random numbers.
    """

    model: FusionModel
    threats: Mapping[str, Threat]
    settings: AdversarialSettings
    seed: int
    _carried: Point = field(default_factory=dict)
    _leaves: Point = field(default_factory=dict)
    _problem: Problem | None = None

    def attacked(self, batch: Batch, number: int, batches: int) -> Inputs:
        """Return the batch's inputs as the adversary leaves them.

        Args:
            batch: on the model's device.
            number: of the batch, from which the random numbers follow.
            batches: of the whole training.
        """
        problem = self.problem(batch, self._grown(number, batches))
        method = self.settings.method
        if method == "free" or (method == "freelb" and number % self.settings.replays):
            x = self._carry(problem)
        else:
            random = torch.Generator().manual_seed((self.seed * 1_000_003 + number) % 2**63)
            with _still(self.model):
                x = self._found(problem, random)
        if method in ("free", "freelb"):
            self._problem = problem
            x = self._leaves = {name: value.requires_grad_() for name, value in x.items()}
        return with_seams(self.model, batch.inputs, x)

    @contextmanager
    def worsened(self, batch: Batch, attacked: Inputs, number: int, batches: int) -> Iterator[None]:
        """Let each matrix of weights be where the loss is higher, as long as the block runs: awp.

        v = γ ‖w‖ ∇L(w) / ‖∇L(w)‖, with γ growing as the radii do.

        Args:
            batch: on the model's device.
            attacked: its inputs as `attacked` leaves them.
            number: of the batch.
            batches: of the whole training.
        """
        gamma = self.settings.awp * self._grown(number, batches)
        matrices = [weight for weight in self.model.parameters() if weight.requires_grad and weight.ndim > 1]
        if not gamma or not matrices:
            yield
            return
        assert batch.target is not None
        with _still(self.model):
            loss = adversarial_loss(self.model, batch.inputs, attacked, batch.present, batch.target, self.settings)
            gradients = torch.autograd.grad(loss, matrices, allow_unused=True)
        before = [weight.detach().clone() for weight in matrices]
        with torch.no_grad():
            for weight, gradient in zip(matrices, gradients, strict=True):
                if gradient is not None:
                    weight.add_(gradient, alpha=float(gamma * weight.norm() / (gradient.norm() + 1e-12)))
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(matrices, before, strict=True):
                    weight.copy_(value)

    def learned(self) -> None:
        """Take note that the gradient of the loss on the attacked inputs is known: free and freelb climb along it."""
        if not self._leaves or self._problem is None:
            return
        gradient = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in self._leaves.items()}
        size = torch.full((len(self._problem),), self._size, device=self._problem.numbers.device)
        x = self._problem.ascend({name: x.detach() for name, x in self._leaves.items()}, gradient, size)
        self._carried = {name: x[name] - clean for name, clean in self._problem.clean.items()}
        self._leaves = {}

    @property
    def kind(self) -> str:
        """What the watch tells of: "robust" where inputs are attacked, "feature_robust" where Features alone are."""
        return "robust" if self.threats else "feature_robust"

    def problem(self, batch: Batch, factor: float = 1.0, *, features: bool = True) -> Problem:
        """Return the batch as an attack sees it.

        Args:
            batch: on the model's device.
            factor: on all radii.
            features: whether those of encoders at rest are shifted too.
        """
        assert batch.target is not None
        model = self.model
        regions: dict[str, Region] = {}
        for name, threat in self.threats.items():
            tensors = batch.inputs[name]
            assert not isinstance(tensors, Features)
            scaled = threat if factor == 1 else threat.scaled(factor)
            regions[name] = scaled.region(Seam.of(model.encoder(name), tensors, []))
        for name, share in ((features and self.settings.features) or {}).items():
            some = batch.inputs[name]
            assert isinstance(some, Features)
            here = batch.present[:, model.modalities.index(name), None].expand_as(some.pooled)
            end = some.pooled.new_tensor(torch.inf)
            radius = factor * share * some.pooled.norm(dim=1)
            regions[name] = Ball(some.pooled, here, -end, end, 0, radius)
        if self.settings.regularises:
            regions |= self._around_embeddings(batch, factor)

        @cache
        def known() -> Mapping[str, Features | Tensors]:
            with torch.no_grad():
                others = set(model.modalities) - set(regions)
                found = {name: model.encode_one(name, batch.inputs[name], batch.present) for name in others}
            return {**batch.inputs, **found}

        def outputs(x: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            some = {name: _rows(value, numbers) for name, value in known().items()}
            output: Tensor = model(with_seams(model, some, x), batch.present[numbers])
            return output

        numbers = torch.arange(len(batch.present), device=batch.present.device)
        return Problem(outputs, regions, goal_of(model.head.task, batch.target), numbers)

    def watched(self, batch: Batch) -> Inputs:
        """Return inputs as a plain attack leaves them, by which robustness is watched."""
        self.model.eval()
        problem = self.problem(batch, features=not self.threats)
        return with_seams(self.model, batch.inputs, _WATCHED(problem, seed=self.seed).inputs)

    def collapsed(self, robust: float, best: float) -> bool:
        """Tell whether one-step training has overfitted to its own step."""
        return self.settings.method in ONE_STEP and robust < best - _COLLAPSE

    def take_several_steps(self) -> None:
        """Go on with several steps: what one-step training does that has collapsed."""
        self.settings = self.settings.model_copy(update={"method": "pgd", "steps": _AFTERWARDS, "size": None})

    def _grown(self, number: int, batches: int) -> float:
        """Return how far the radii have grown at a batch, from 0 to 1."""
        return min(1.0, (number + 1) / (batches * self.settings.ramp)) if self.settings.ramp else 1.0

    @property
    def _size(self) -> float:
        """How long a step is, in radii."""
        return self.settings.size or _SIZES.get(self.settings.method, 1.0)

    def _around_embeddings(self, batch: Batch, factor: float) -> dict[str, Region]:
        """Return how far shifts of embeddings go, by modality: in a ball around none."""
        regions: dict[str, Region] = {}
        for name, share in (self.settings.embeddings or {}).items():
            tensors = batch.inputs[name]
            assert not isinstance(tensors, Features)
            with _still(self.model), torch.no_grad():
                found = self.model.encoder(name).embedded(tensors)
            assert found is not None
            there = tensors["mask"] & batch.present[:, self.model.modalities.index(name), None]
            free = there[:, :, None].expand_as(found)
            end = found.new_tensor(torch.inf)
            radius = factor * share * (found * free).flatten(1).norm(dim=1)
            regions[name] = Ball(torch.zeros_like(found), free, -end, end, 0, radius)
        return regions

    def _found(self, problem: Problem, random: torch.Generator) -> Point:
        """Search as the method does."""
        method, size = self.settings.method, self.settings.size
        if method == "freelb":
            return problem.start(random)
        if method in ("pgd", "trades", "mart"):
            goal: Goal = Apart(problem.at_clean) if method == "trades" else problem.goal
            attack = PGDAttack(steps=self.settings.steps, size=size)
            return attack.climb(replace(problem, goal=goal), problem.start(random))
        full = torch.ones(len(problem), device=problem.numbers.device)
        if method == "fgsm_rs":
            x = problem.start(random)
            gradient, _, _ = problem.gradient(x)
            return problem.ascend(x, gradient, full * self._size)
        if method == "vat":
            drawn = problem.start(random)
            near = {name: x.lerp(drawn[name], _NEAR) for name, x in problem.clean.items()}
            gradient, _, _ = replace(problem, goal=Apart(problem.at_clean)).gradient(near)
            return problem.ascend(problem.clean, gradient, full * self._size)
        # N-FGSM: noise of twice the radius, and neither it nor the step is brought back into the region.
        free = problem.map(lambda region: replace(region, low=region.low - torch.inf, high=region.high + torch.inf))
        noisy = {name: 2 * x - problem.regions[name].clean for name, x in free.start(random).items()}
        gradient, _, _ = problem.gradient(noisy)
        return {
            name: region.ascend(noisy[name], gradient[name], full * self._size)
            for name, region in problem.regions.items()
        }

    def _carry(self, problem: Problem) -> Point:
        """Return the inputs with what was added to the batch before, as far as rows go."""
        x = {}
        for name, clean in problem.clean.items():
            x[name] = clean.clone()
            before = self._carried.get(name)
            if before is not None and before.shape[1:] == clean.shape[1:]:
                rows = min(len(before), len(clean))
                x[name][:rows] += before[:rows]
        return problem.project(x)


def adversarial_loss(
    model: FusionModel, inputs: Inputs, attacked: Inputs, present: Tensor, target: Tensor, settings: AdversarialSettings
) -> Tensor:
    """Return the loss of a batch in adversarial training, a scalar.

    With p and p' the probabilities at clean and changed inputs: trades and vat L(z) + β KL(p ‖ p'); mart
    -log p'_y - log(1 - max_{k≠y} p'_k) + β (1 - p_y) KL(p ‖ p'); the others (1 - w) L(z) + w L(z').

    Args:
        model: in training.
        inputs: of each modality.
        attacked: the same, as an adversary leaves them.
        present: (batch, modalities) bool.
        target: (batch, …).
        settings: the method, and the weight.
    """
    trade = settings.trade
    if settings.method not in AGREEING:
        loss = model.loss(attacked, present, target)
        return loss if trade >= 1 else trade * loss + (1 - trade) * model.loss(inputs, present, target)
    clean, changed = model(inputs, present), model(attacked, present)
    apart = Apart(clean).loss(changed)
    if settings.method != "mart":
        return model.head.loss(clean, target) + trade * apart.mean()
    log = changed.log_softmax(1)
    rival = log.masked_fill(F.one_hot(target, log.shape[1]).bool(), -torch.inf).amax(1)
    boosted = -log.gather(1, target[:, None]).squeeze(1) - torch.log1p(-rival.exp().clamp(max=1 - 1e-6))
    unsure = 1 - clean.softmax(1).gather(1, target[:, None]).squeeze(1)
    total: Tensor = (boosted + trade * unsure * apart).mean()
    return total


def cost_of_step(adversary: Adversary, batch: Batch) -> float:
    """Return how often a plain step would fit into the time of an adversarial one, all replays included that make it.

    By a short trial.

    Args:
        adversary: is not changed.
        batch: on the model's device.
    """
    assert batch.target is not None
    model, settings, target = adversary.model, adversary.settings, batch.target
    trial = Adversary(model, adversary.threats, settings, adversary.seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(1 + _TURNS):
        for attacks, taken in enumerate(seconds):
            begun = _now(target.device)
            if attacks:
                attacked = trial.attacked(batch, 0, 1)
                with trial.worsened(batch, attacked, 0, 1), _still(model):
                    loss = adversarial_loss(model, batch.inputs, attacked, batch.present, target, settings)
                    torch.autograd.grad(loss, weights, allow_unused=True)
            else:
                with _still(model):
                    loss = model.loss(batch.inputs, batch.present, target)
                    torch.autograd.grad(loss, weights, allow_unused=True)
            taken.append(_now(target.device) - begun)
    plain, whole = (statistics.median(taken[1:]) for taken in seconds)  # the first of each compiles kernels
    return whole / plain * (settings.replays if settings.gathers else 1)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def _still(model: FusionModel) -> Iterator[None]:
    """Let a model in training answer without chance, and learn nothing from being asked, as long as the block runs.

    Batch normalisation goes on to use the statistics of the batch, as in the step that follows: the running ones are
    far from them while a model learns fast.
    """
    training = model.training
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
    ]
    model.eval()
    for module in norms:
        module.train()
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in norms:
            module.track_running_stats = True
        model.train(training)


def with_seams(model: FusionModel, inputs: Inputs, x: Mapping[str, Tensor]) -> dict[str, Features | Tensors]:
    """Return inputs with other continuous tensors; Features with another pooled vector, and all tokens as far off."""
    changed: dict[str, Features | Tensors] = dict(inputs)
    for name, tensor in x.items():
        prepared = inputs[name]
        if isinstance(prepared, Features):
            tokens = prepared.tokens + (tensor - prepared.pooled)[:, None]
            changed[name] = Features(tokens, prepared.mask, tensor)
        else:
            (seam,) = model.encoder(name).continuous or ("shift",)
            changed[name] = {**prepared, seam: tensor}
    return changed


def _rows(value: Features | Tensors, numbers: Tensor) -> Features | Tensors:
    return value.rows(numbers) if isinstance(value, Features) else {key: some[numbers] for key, some in value.items()}
