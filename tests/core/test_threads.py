"""How threads wait, and how many there are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from polyfuse.core.threads import side_by_side


def counts() -> tuple[int, set[int]]:
    return torch.get_num_threads(), {library["num_threads"] for library in threadpool_info()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_wait_briefly_unless_told_how(given: dict[str, str], expected: str) -> None:
    code = "import os, sys, polyfuse; assert 'torch' not in sys.modules; print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))}
    found = subprocess.run(
        [sys.executable, "-c", code], env={**environment, **given}, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == expected


def test_what_goes_side_by_side_computes_with_one_thread_each() -> None:
    before, switch = counts(), sys.getswitchinterval()
    together = threading.Barrier(3)

    def work(number: int) -> tuple[tuple[int, set[int]], int]:
        together.wait(30)
        return counts(), number

    with side_by_side(3) as workers:
        done = list(workers.map(work, range(3)))
    assert done == [((1, {1}), number) for number in range(3)]
    assert (counts(), sys.getswitchinterval()) == (before, switch)


def test_what_goes_wrong_side_by_side_leaves_the_threads_as_they_were() -> None:
    before, switch = counts(), sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError), side_by_side(2) as workers:
        workers.submit(lambda: 1 // 0).result()
    assert (counts(), sys.getswitchinterval()) == (before, switch)
