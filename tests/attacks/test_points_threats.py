"""Threats to point clouds against their definitions in plain numpy, and searches that find what is planted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

import shapes
from polyfuse.attacks import ATTACKS, build_threat, default_threat
from polyfuse.attacks.goals import Wrong
from polyfuse.attacks.greedy import greedy
from polyfuse.attacks.points import AddThreat, CountedThreat, Displacement, DisplaceThreat, DropThreat
from polyfuse.attacks.problem import Problem
from polyfuse.attacks.threat import Sample, Seam, Threat, Value
from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column
from polyfuse.encoders.pointnet import PointNetEncoder
from polyfuse.robustness.audit import audit

Cloud = NDArray[np.float32]


def column(size: int = 3) -> Column:
    return Column(name="cloud", type="points", size=size, scales=[1.0] * max(0, size - 3))


def some(count: int, size: int = 3, seed: int = 0, far: float = 0.0) -> Cloud:
    return (np.random.default_rng(seed).normal(size=(count, size)) + far).astype(np.float32)


def radius_of(cloud: Cloud) -> float:
    places = cloud[:, : min(3, cloud.shape[1])].astype(np.float64)
    middle = (places.min(0) + places.max(0)) / 2
    return float(max(np.sqrt(((place - middle) ** 2).sum()) for place in places))


def seam_of(clouds: Sequence[Cloud | None], points: int = 1024) -> tuple[PointNetEncoder, Seam]:
    size = next(cloud.shape[1] for cloud in clouds if cloud is not None)
    encoder = PointNetEncoder([column(size)], width=4, points=points)
    values: list[Value | None] = [None if cloud is None else (cloud,) for cloud in clouds]
    return encoder, Seam.of(encoder, encoder.prepare(values), values)


def region_of(clouds: Sequence[Cloud | None], radius: float, points: int = 1024) -> Displacement:
    _, seam = seam_of(clouds, points)
    where = DisplaceThreat([column(seam.clean.shape[2])], radius=radius).region(seam)
    assert isinstance(where, Displacement)
    return where


def assert_inside(where: Displacement, x: Tensor, clouds: Sequence[Cloud], share: float) -> None:
    for row, cloud in enumerate(clouds):
        found = x[row].double().numpy()
        axes = min(3, cloud.shape[1])
        moved = np.sqrt(((found[: len(cloud), :axes] - cloud[:, :axes]) ** 2).sum(1))
        assert moved.max() <= share * radius_of(cloud) * (1 + 1e-5)
        assert np.array_equal(found[: len(cloud), axes:], cloud[:, axes:])
        assert not found[len(cloud) :].any()


@given(
    seed=st.integers(0, 1000),
    size=st.floats(0, 50),
    share=st.floats(0.01, 1),
    wide=st.integers(2, 6),
    far=st.sampled_from([0.0, 100.0, 1e4]),
)
def test_whatever_is_done_ends_inside(seed: int, size: float, share: float, wide: int, far: float) -> None:
    clouds = [some(count, wide, seed + count, far) for count in (12, 1, 7)]
    where = region_of(clouds, 0.1)
    random = torch.Generator().manual_seed(seed)
    x = where.start(random)
    assert_inside(where, x, clouds, 0.1)
    moved = where.ascend(x, torch.randn(x.shape, generator=random), torch.full((3,), size))
    projected = where.project(moved)
    for inside in (projected, where.jump(projected, share, random), where.finished(moved)):
        assert_inside(where, inside, clouds, 0.1)
    assert torch.allclose(where.project(projected), projected, atol=1e-6 * (1 + far))
    assert where.project(where.clean).equal(where.clean)


def test_the_norm_by_its_definition() -> None:
    clouds = [some(9, 5), some(4, 5, 1)]
    where = region_of(clouds, 0.2)
    random = torch.Generator().manual_seed(0)
    x, gradient = where.start(random), torch.randn(where.clean.shape, generator=random)
    moved = (x - where.clean).double().numpy()
    longest = [max(np.linalg.norm(point[:3]) for point in row) for row in moved]
    assert np.allclose(where.gauge(x).numpy(), np.array(longest) / where.radius.numpy(), rtol=1e-5)
    assert where.gauge(where.clean).tolist() == [0, 0]
    slopes = [
        r * sum(np.linalg.norm(point[:3]) for point in row[: len(cloud)])
        for r, row, cloud in zip(where.radius.tolist(), gradient.numpy(), clouds, strict=True)
    ]
    assert np.allclose(where.slope(gradient).numpy(), slopes, rtol=1e-5)
    # The steepest step of one radius gains just that, and no other one more.
    best = where.ascend(where.clean, gradient, torch.ones(2)) - where.clean
    assert np.allclose((best * gradient).flatten(1).sum(1).numpy(), slopes, rtol=1e-4)
    assert torch.allclose(where.gauge(where.clean + best), torch.ones(2), rtol=1e-4)
    for seed in range(20):
        other = where.start(torch.Generator().manual_seed(seed)) - where.clean
        assert bool(((other * gradient).flatten(1).sum(1) <= torch.tensor(slopes) + 1e-4).all())
    halved = where.scaled(torch.tensor([0.5, 2.0]))
    assert torch.allclose(halved.radius, where.radius * torch.tensor([0.5, 2.0]))
    for chosen in (torch.tensor([1, 0]), torch.tensor([False, True])):
        assert where.rows(chosen).project(x[chosen]).equal(where.project(x)[chosen])


def test_a_start_fills_each_ball_evenly() -> None:
    where = region_of([some(40)], 0.3)
    lengths = torch.cat(
        [
            ((where.start(torch.Generator().manual_seed(seed)) - where.clean).norm(dim=2) / where.radius).flatten()
            for seed in range(60)
        ]
    )
    # In three dimensions the cube of the length is even.
    assert abs(float((lengths**3).mean()) - 0.5) < 0.02


def test_a_jump_moves_points_that_lie_together_one_way() -> None:
    cloud = some(50)
    where = region_of([cloud], 0.1)
    x = where.jump(where.clean, 0.2, torch.Generator().manual_seed(3))[0].numpy()
    moved = np.flatnonzero((x != cloud).any(1))
    assert len(moved) == 10
    steps = x[moved] - cloud[moved]
    assert np.allclose(steps, steps[0], atol=1e-5)
    assert np.linalg.norm(steps[0]) == pytest.approx(0.1 * radius_of(cloud), rel=1e-3)
    middles = [point for point in cloud if {*np.argsort(np.linalg.norm(cloud - point, axis=1))[:10]} == {*moved}]
    assert middles


def test_excess_of_a_displacement_is_measured_anew() -> None:
    cloud, threat = some(30, 4), DisplaceThreat([column(4)], radius=0.1)
    reach = 0.1 * radius_of(cloud)

    def excess(after: Cloud, before: Cloud = cloud) -> float:
        return threat.excess(Sample((before,), np.pad(before, ((0, 3), (0, 0)))), Sample((after,), after))

    step = np.zeros_like(cloud)
    step[7, :3] = np.array([0.6, 0.0, 0.8]) * reach
    assert excess(cloud + step) == pytest.approx(0, abs=1e-4)
    assert excess(cloud + step / 2) == pytest.approx(-0.5, abs=1e-4)
    assert excess(cloud + 2 * step) == pytest.approx(1, abs=1e-4)
    # In all points at once: the norm is of each.
    assert excess((cloud + np.float32([0, reach / 2, 0, 0])).astype(np.float32)) == pytest.approx(-0.5, abs=1e-3)
    beside = cloud.copy()
    beside[0, 3] += 1e-3
    assert excess(beside) == excess(cloud[:-1]) == np.inf


def foreign(cloud: Cloud) -> list[Cloud]:
    """Return clouds that neither dropping nor adding makes."""
    moved = cloud.copy()
    moved[0, 0] += 0.01
    return [moved, np.concatenate([cloud, cloud[:1] + 100])]


def test_excess_of_points_that_come_and_go() -> None:
    cloud = some(40, 5)
    drop, add = DropThreat([column(5)], share=0.1), AddThreat([column(5)], share=0.1)

    def excess(threat: Threat, after: Cloud) -> float:
        return threat.excess(Sample((cloud,)), Sample((after,)))

    assert excess(drop, cloud[4:]) == pytest.approx(0)
    assert excess(drop, cloud[::-1][:36]) == pytest.approx(0)
    assert excess(drop, cloud[2:]) == pytest.approx(-0.5)
    assert excess(drop, cloud[5:]) == pytest.approx(0.25)
    middle = ((cloud[:, :3].min(0) + cloud[:, :3].max(0)) / 2).astype(np.float32)
    new = np.concatenate([middle + np.float32([0.1, 0, 0]), [9, 9]]).astype(np.float32)
    assert excess(add, np.concatenate([cloud, [new] * 4]).astype(np.float32)) == pytest.approx(0)
    assert excess(add, np.concatenate([cloud, [new] * 5]).astype(np.float32)) == pytest.approx(0.25)
    assert excess(add, cloud[1:]) == excess(add, np.concatenate([cloud[1:], [new]]).astype(np.float32)) == np.inf
    assert all(excess(threat, other) == np.inf for threat in (drop, add) for other in foreign(cloud))
    assert excess(drop, cloud[:0]) == np.inf


@given(
    kind=st.sampled_from([DropThreat, AddThreat]),
    count=st.integers(1, 60),
    wide=st.integers(2, 6),
    share=st.floats(0.01, 1),
    far=st.sampled_from([0.0, 1e3]),
    seed=st.integers(0, 100),
)
def test_edits_stay_within_the_budget(
    kind: type[CountedThreat], count: int, wide: int, share: float, far: float, seed: int
) -> None:
    cloud, threat = some(count, wide, seed, far), kind([column(wide)], share=share)
    random = np.random.default_rng(seed)
    value: Value = (cloud,)
    limit = int(np.floor(share * count + 1e-9))
    for _ in range(12):
        made = threat.neighbours(value, (cloud,), random)
        if not made:
            break
        for one in made:
            assert one[0].dtype == np.float32
            assert abs(len(one[0]) - count) <= limit
            assert threat.excess(Sample((cloud,)), Sample(one)) <= 0
        value = made[int(random.integers(len(made)))]
    used = min(limit, count - 1) if kind is DropThreat else limit
    assert abs(len(value[0]) - count) == used
    assert threat.excess(Sample((cloud,)), Sample((cloud,))) <= 0


def test_points_are_put_in_together_on_the_sphere_and_within() -> None:
    cloud = some(160)
    made = AddThreat([column()], share=0.1).neighbours((cloud,), (cloud,), np.random.default_rng(0))
    groups = [one[0][160:].astype(np.float64) for one in made]
    assert {len(group) for group in groups} == {2}
    middle = (cloud.min(0) + cloud.max(0)) / 2
    far = np.array([np.linalg.norm(group - middle, axis=1).max() for group in groups]) / radius_of(cloud)
    assert 0.2 < (far > 0.97).mean() < 0.9
    assert far.min() < 0.8
    assert max(np.linalg.norm(group[0] - group[1]) for group in groups) < 0.5 * radius_of(cloud)


def searched(threat: Threat, cloud: Cloud, damage: Any) -> Any:
    def score(values: Sequence[Value], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        found = torch.tensor([float(damage(value[0])) for value in values])
        return found, found > 0

    return greedy(score, threat, [(cloud,)], [(cloud,)], rounds=10, width=32, seed=0, standing=[0])


def test_a_search_finds_the_part_that_matters() -> None:
    """A cloud with a knob of a few points: gone, or put somewhere, the answer turns."""
    knob = np.float32([2, 0, 0]) + 0.05 * some(6, seed=5)
    cloud = np.concatenate([some(94) / 3, knob])
    found = searched(DropThreat([column()], share=0.08), cloud, lambda some: 0.5 - (some[:, 0] > 1.5).sum())
    assert found.reached[0]
    nothing = np.concatenate([shapes.sphere(94, np.random.default_rng(0)), [[2, 0, 0]]]).astype(np.float32)
    corner = lambda some: (np.linalg.norm(some - [0.9, 0.9, 0], axis=1).min() < 0.35) - 0.5  # noqa: E731
    assert searched(AddThreat([column()], share=0.08), nothing, corner).reached[0]


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "noise"])
def test_every_attack_moves_points_of_a_network(name: str) -> None:
    torch.manual_seed(0)
    clouds = [some(count, 3, count) for count in (20, 31, 12, 25)]
    encoder, seam = seam_of(clouds)
    net = nn.Linear(encoder.dim, 3)
    mask = encoder.prepare(seam.values)["mask"]

    def outputs(x: Any, numbers: Tensor) -> Tensor:
        return net(encoder(x["cloud"], mask[numbers]).pooled)

    encoder.eval()
    clean = outputs({"cloud": seam.clean}, torch.arange(4)).detach()
    threat = DisplaceThreat([column()], radius=0.3)
    problem = Problem(outputs, {"cloud": threat.region(seam)}, Wrong(clean.argmax(1)), torch.arange(4))
    options = {"queries": 60} if "queries" in ATTACKS.options(name) else {}
    found = ATTACKS.build(name, options)(problem, seed=1)
    assert bool((found.damage >= problem.goal.damage(clean)).all())
    if name in ("pgd", "apgd", "square", "ensemble"):
        assert float(found.damage.sum()) > float(problem.goal.damage(clean).sum())
    values = encoder.restore({"points": found.inputs["cloud"], "mask": mask}, seam.values)
    assert audit(threat, encoder, list(seam.values), values, "cloud") <= 1


def test_a_cloud_of_more_points_than_are_read_is_audited() -> None:
    encoder, seam = seam_of([some(300), some(9)], points=32)
    threat = DisplaceThreat([column()], radius=0.1)
    where = threat.region(seam)
    x = where.project(where.clean + 1)
    values = encoder.restore({**encoder.prepare(seam.values), "points": x}, seam.values)
    assert [len(value[0]) for value in values if value is not None] == [32, 9]
    assert audit(threat, encoder, list(seam.values), values, "cloud") == pytest.approx(1, abs=1e-3)


def test_names_defaults_and_budgets() -> None:
    columns = [column()]
    assert default_threat(columns) == "displace"
    assert build_threat("displace:0.05", "cloud", columns).options() == {"radius": 0.05}
    assert build_threat("drop:1/8", "cloud", columns).scaled(2).options() == {"share": 0.25}
    assert build_threat({"name": "add", "share": 0.6}, "cloud", columns).scaled(2).options() == {"share": 1.0}
    assert build_threat("displace", "cloud", columns).scaled(2).options() == {"radius": 0.1}
    with pytest.raises(InputError, match=r"'l2' changes .*choose from add, displace, drop"):
        build_threat("l2:0.1", "cloud", columns)
    with pytest.raises(InputError, match=r"drop\.share"):
        build_threat("drop:2", "cloud", columns)
