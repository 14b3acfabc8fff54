"""Regions: the inputs within an adversary's reach of clean ones, and how to move about in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Region(ABC):
    """S(x) for some rows: closed, and clean inputs lie in it.

    Attributes:
        clean: (rows, …).
        free: bool of the same shape: which entries may change.
        low: least value that an input may have: one for all, or (rows, …).
        high: greatest value.
        levels: steps between 0 and 1 of the grid that inputs lie on, 255 for 8 bits; 0 where there is none.
        grows: whether it has a radius: `scaled`, `gauge` and `slope` are for those.
    """

    grows: ClassVar[bool] = False

    clean: Tensor
    free: Tensor
    low: Tensor
    high: Tensor
    levels: int

    @abstractmethod
    def start(self, random: torch.Generator) -> Tensor:
        """Return inputs drawn from the region."""

    @abstractmethod
    def ascend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Go in the steepest direction of the region's norm, maybe out of it.

        Args:
            x: (rows, …).
            gradient: of what is to rise, of the same shape.
            size: (rows,), in radii.
        """

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Return the nearest inputs that lie in the region."""

    @abstractmethod
    def jump(self, x: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Return inputs of which a block, in each row another one, is set anew to what lies far out in the region.

        Args:
            x: (rows, …) in the region.
            share: of the input that the block covers.
            random: draws it.
        """

    def scaled(self, factor: Tensor) -> Self:
        """Return the region with each row's radius multiplied. factor: (rows,)."""
        raise TypeError(f"{type(self).__name__} has no radius")

    def gauge(self, x: Tensor) -> Tensor:
        """Return how far inputs are from the clean ones, in radii (rows,)."""
        raise TypeError(f"{type(self).__name__} has no radius")

    def slope(self, gradient: Tensor) -> Tensor:
        """Return by how much what has this gradient rises along a radius in the steepest direction (rows,)."""
        raise TypeError(f"{type(self).__name__} has no radius")

    def aimed(self, gradient: Tensor) -> Self:
        """Return the region where it is placed best, judged by the gradient at the clean inputs."""
        return self

    def anew(self, random: torch.Generator) -> Self:
        """Return the region placed elsewhere, where it can be."""
        return self

    def rows(self, chosen: Tensor) -> Self:
        """Return that of some rows. chosen: positions (n,), or (rows,) bool."""
        parts: dict[str, Any] = {
            name: value[chosen]
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
            if isinstance(value, Tensor) and value.ndim and len(value) == len(self.clean)
        }
        return replace(self, **parts)

    def finished(self, x: Tensor) -> Tensor:
        """Return inputs that can really be given: in the region, and on the grid of 8 bits where there is one."""
        x = self.project(x)
        if not self.levels:
            return x
        # Towards the clean input, which lies on the grid: away from it would leave the region.
        steps = (x - self.clean) * self.levels
        return ((self.clean * self.levels).round() + (steps + 1e-3 * steps.sign()).trunc()) / self.levels

    def _bounded(self, x: Tensor) -> Tensor:
        return torch.where(self.free, x.clamp(self.low, self.high), self.clean)


@dataclass(frozen=True, eq=False)
class Box(Region):
    """Every entry may move by so much: S(x) = {x' : |x'_i - x_i| ≤ r_i, low ≤ x' ≤ high}; L∞ where all r_i are alike.

    Attributes:
        radius: one for all, or (rows, …).
    """

    radius: Tensor
    grows: ClassVar[bool] = True

    def scaled(self, factor: Tensor) -> Self:
        """Multiply r."""
        return replace(self, radius=spread(factor, self.clean) * self.radius)

    def gauge(self, x: Tensor) -> Tensor:
        """Return max_i |x'_i - x_i| / r_i, over entries that may change."""
        moved = torch.where(self.free, (x - self.clean).abs() / self.radius, 0.0)
        return torch.nan_to_num(moved, nan=0.0).flatten(1).amax(1)

    def slope(self, gradient: Tensor) -> Tensor:
        """Return Σ_i r_i |g_i|."""
        return (self.radius * gradient.abs() * self.free).flatten(1).sum(1)

    def start(self, random: torch.Generator) -> Tensor:
        """Each entry evenly."""
        return self.project(self.clean + self.radius * (2 * uniform(self.clean, random) - 1))

    def ascend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Return x + size r sign(g)."""
        return torch.addcmul(x, spread(size, x) * self.radius, gradient.sign())

    def jump(self, x: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Set a block to clean ± r, with one sign for each channel."""
        inside = block(x, share, random)
        return self.project(torch.where(inside, self.clean + self.radius * signs(x, random), x))

    def project(self, x: Tensor) -> Tensor:
        """Cut off each entry."""
        least, greatest = self._ends
        return x.clamp(least, greatest)

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """How low and how high each entry may go; found once, since each step of an attack asks."""
        return self._bounded(self.clean - self.radius), self._bounded(self.clean + self.radius)


@dataclass(frozen=True, eq=False)
class RadiusRegion(Region):
    """What lies within a radius that each row has of its own.

    Attributes:
        radius: (rows,).
    """

    radius: Tensor
    grows: ClassVar[bool] = True

    def scaled(self, factor: Tensor) -> Self:
        """Multiply r."""
        return replace(self, radius=factor * self.radius)


@dataclass(frozen=True, eq=False)
class Ball(RadiusRegion):
    """All entries together may move by so much: S(x) = {x' : ‖x' - x‖₂ ≤ r, low ≤ x' ≤ high}."""

    def gauge(self, x: Tensor) -> Tensor:
        """Return ‖x' - x‖₂ / r; 0 where nothing moved, whatever r is."""
        moved = (x - self.clean).flatten(1).norm(dim=1)
        return torch.nan_to_num(moved / self.radius, nan=0.0)

    def slope(self, gradient: Tensor) -> Tensor:
        """Return r ‖g‖₂."""
        length: Tensor = (gradient * self.free).flatten(1).norm(dim=1)
        return self.radius * length

    def start(self, random: torch.Generator) -> Tensor:
        """Evenly in the ball over the free entries, then within the bounds."""
        normal = torch.randn(self.clean.shape, generator=random, dtype=self.clean.dtype).to(self.clean.device)
        entries = self.free.flatten(1).sum(1).clamp(min=1)
        length = uniform(entries.to(self.clean.dtype), random) ** (1 / entries)
        return self.project(self.clean + spread(self.radius * length, normal) * _unit(normal * self.free))

    def ascend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Return x + size r g / ‖g‖₂."""
        return x + spread(size * self.radius, x) * _unit(gradient * self.free)

    def jump(self, x: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Add noise of length r in a block, and bring the whole back into the ball."""
        normal = torch.randn(x.shape, generator=random, dtype=x.dtype).to(x.device)
        return self.project(x + spread(self.radius, x) * _unit(normal * block(x, share, random) * self.free))

    def project(self, x: Tensor) -> Tensor:
        """Shorten what is too long; what the bounds cut off shortens it more."""
        moved = torch.where(self.free, x - self.clean, 0.0)
        length = moved.flatten(1).norm(dim=1).clamp(min=1e-12)
        return self._bounded(self.clean + moved * spread((self.radius / length).clamp(max=1), moved))


@dataclass(frozen=True, eq=False)
class Patch(Region):
    """A square of each image may become anything: at most side² of its pixels change, in all channels (L0).

    Attributes:
        side: of the square, in pixels.
        inside: bool as `clean` (rows, images, channels, height, width): where it lies.
    """

    side: int
    inside: Tensor

    def start(self, random: torch.Generator) -> Tensor:
        """Each entry of the square evenly."""
        return self.project(self.low + (self.high - self.low) * uniform(self.clean, random))

    def ascend(self, x: Tensor, gradient: Tensor, size: Tensor) -> Tensor:
        """Return x + size (high - low) / 2 sign(g)."""
        return x + spread(size, x) * (self.high - self.low) / 2 * gradient.sign()

    def jump(self, x: Tensor, share: float, random: torch.Generator) -> Tensor:
        """Set a share of the square's pixels to the least or the greatest value, with one sign for each channel."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        chosen = uniform(x[:, :, :1], random) < share
        return self.project(torch.where(chosen, middle + half * signs(x, random), x))

    def project(self, x: Tensor) -> Tensor:
        """Take back what lies beside the square."""
        return torch.where(self.inside, self._bounded(x), self.clean)

    def aimed(self, gradient: Tensor) -> Self:
        """Return the region with the square where the gradient is largest in sum, |g| over all channels."""
        weight = gradient.abs().sum(2, keepdim=True).flatten(0, 1)
        totals = F.avg_pool2d(weight, self.side, stride=1).flatten(1)
        width = self.clean.shape[-1] - self.side + 1
        best = totals.argmax(1)
        return self._at(best // width, best % width)

    def anew(self, random: torch.Generator) -> Self:
        """Return the region with the square anywhere."""
        images = self.clean.shape[0] * self.clean.shape[1]
        top, left = (
            torch.randint(side - self.side + 1, (images,), generator=random).to(self.clean.device)
            for side in self.clean.shape[-2:]
        )
        return self._at(top, left)

    def _at(self, top: Tensor, left: Tensor) -> Self:
        height, width = self.clean.shape[-2:]
        down = torch.arange(height, device=self.clean.device) - top[:, None]
        across = torch.arange(width, device=self.clean.device) - left[:, None]
        inside = ((down >= 0) & (down < self.side))[:, :, None] & ((across >= 0) & (across < self.side))[:, None]
        return replace(self, inside=inside.view(*self.clean.shape[:2], 1, height, width).expand_as(self.clean))


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Return values (rows,) so that they multiply something of shape (rows, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def uniform(like: Tensor, random: torch.Generator) -> Tensor:
    """Return numbers evenly from [0, 1), the same ones on every device."""
    return torch.rand(like.shape, generator=random, dtype=like.dtype).to(like.device)


def signs(like: Tensor, random: torch.Generator) -> Tensor:
    """Return ±1 for each row, and where there are channels (rows, images, channels, height, width) for each of them."""
    shape = (*like.shape[:-2], 1, 1) if like.ndim > 3 else (len(like), *[1] * (like.ndim - 1))
    return (torch.randint(2, shape, generator=random) * 2 - 1).to(like)


def block(like: Tensor, share: float, random: torch.Generator) -> Tensor:
    """Return where a block lies in each row, bool that broadcasts to `like`: a square of an image, or a stretch.

    Args:
        like: (rows, …, height, width), or (rows, length).
        share: of the entries that it covers; at least one.
        random: draws its place.
    """
    sides = like.shape[-2:] if like.ndim > 3 else like.shape[-1:]
    inside = torch.ones((), dtype=torch.bool)
    for axis, side in enumerate(sides):
        long = min(side, max(1, round(side * share ** (1 / len(sides)))))
        first = torch.randint(side - long + 1, (len(like),), generator=random)[:, None]
        at = torch.arange(side)
        mine = (at >= first) & (at < first + long)
        shape = [len(like), *[1] * (like.ndim - 1)]
        shape[like.ndim - len(sides) + axis] = side
        inside = inside & mine.view(shape)
    return inside.to(like.device)


def _unit(x: Tensor) -> Tensor:
    """Return each row divided by its L2 norm; zeros where that is 0."""
    return x / spread(x.flatten(1).norm(dim=1).clamp(min=1e-12), x)
