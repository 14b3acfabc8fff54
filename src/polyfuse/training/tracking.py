"""Curves of a run, through accelerate's trackers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from polyfuse.core.errors import import_extra
from polyfuse.training.loop import Log
from polyfuse.training.settings import Tracker

_EXTRAS = {"wandb": "wandb", "mlflow": "mlflow"}


def make_accelerator(
    device: torch.device, trackers: tuple[Tracker, ...] = (), folder: Path | None = None
) -> Accelerator:
    """Return the accelerator of a run; it tracks where a folder is given.

    Raises:
        MissingExtra: a tracker is not installed.
    """
    chosen = list(trackers) if folder is not None else []
    for name in chosen:
        if name in _EXTRAS:
            import_extra(name, _EXTRAS[name], f"training.trackers: {name}")
    # Said outright: without `cpu`, two processes on CPUs would each train a model of their own, unsynchronised.
    return Accelerator(cpu=device.type == "cpu", log_with=chosen or None, project_dir=folder)


@contextmanager
def tracking(
    accelerator: Accelerator, folder: Path | None, name: str, config: Mapping[str, Any]
) -> Iterator[Log | None]:
    """Begin tracking and give the function that takes figures; None where nothing is tracked.

    Args:
        accelerator: made by `make_accelerator` with the same folder.
        folder: where trackers write.
        name: of the run.
        config: the recipe, flat.
    """
    if folder is None or not accelerator.log_with:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"wandb": {"dir": str(folder)}, "mlflow": {"logging_dir": f"sqlite:///{folder.resolve()}/mlflow.db"}}
    accelerator.init_trackers(name, init_kwargs=settings)
    for tracker in accelerator.trackers:
        # TensorBoard would show the settings as a second, empty run.
        if tracker.name != "tensorboard":
            tracker.store_init_configuration(dict(config))
    try:
        yield lambda figures, step: accelerator.log(figures, step=step)
    finally:
        accelerator.end_training()
        accelerator.trackers.clear()
