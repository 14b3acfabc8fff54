"""Curves of a run, through accelerate's trackers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from polyfuse.core import processes
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
    # `cpu` is what makes processes without a GPU meet at all; the first one may work alone for a long time.
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        log_with=chosen or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=1))],
    )
    processes.leave_at_exit()
    return accelerator


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
    with _mlflow_store(folder) if "mlflow" in map(str, accelerator.log_with) else nullcontext():
        accelerator.init_trackers(
            name, init_kwargs={"wandb": {"dir": str(folder)}, "mlflow": {"logging_dir": str(folder / "mlflow")}}
        )
        for tracker in accelerator.trackers:
            # TensorBoard would show the settings as a second, empty run.
            if tracker.name != "tensorboard":
                tracker.store_init_configuration(dict(config))
        try:
            yield lambda figures, step: accelerator.log(figures, step=step)
        finally:
            # Not `end_training`: that would part the processes too, before the model is saved.
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.trackers.clear()


@contextmanager
def _mlflow_store(folder: Path) -> Iterator[None]:
    """Let MLflow write into a database in the run's folder, unless the user has named a server or a store."""
    import mlflow

    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield
        return
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder.resolve()}/mlflow.db")
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
