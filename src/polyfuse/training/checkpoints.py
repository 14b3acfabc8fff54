"""Checkpoints: one safetensors file with everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.core.files import whole_file
from polyfuse.core.types import Tensors

FILE = "checkpoint.safetensors"


@dataclass
class Checkpoint:
    """The state of a run.

    Attributes:
        weights: what is trained, and buffers.
        best: the same at the best validation metric so far; empty before the first validation.
        optimizer: its state, by parameter number and name, e.g. "0.exp_avg".
        random: states of the random generators, by device.
        progress: JSON values: epoch, batch, history, …
    """

    weights: Tensors
    best: Tensors
    optimizer: Tensors
    random: Tensors
    progress: dict[str, Any]


class Checkpoints:
    """Where a run writes its one checkpoint.

    Args:
        folder: of the run.
        run: identifies recipe and data: a run goes on only from its own checkpoint.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.path, self._run = folder / FILE, run

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint in place of the last one, whole or not at all."""
        tensors = {
            f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
            for part in _PARTS
            for name, tensor in getattr(checkpoint, part).items()
        }
        state = json.dumps({"run": self._run, "progress": checkpoint.progress})
        with whole_file(self.path) as temporary:
            save_file(tensors, temporary, metadata={"state": state})

    def load(self) -> Checkpoint | None:
        """Read the checkpoint; None if there is none.

        Raises:
            InputError: it belongs to another recipe or other data.
            ArtifactError: it is damaged.
        """
        if not self.path.exists():
            return None
        parts: dict[str, Tensors] = {part: {} for part in _PARTS}
        try:
            with safe_open(self.path, framework="pt") as file:
                state = json.loads(file.metadata()["state"])
                for key in file.keys():  # noqa: SIM118 - not a dict
                    part, _, name = key.partition("/")
                    parts[part][name] = file.get_tensor(key).clone()
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"{self.path} cannot be read ({error}): remove it, and begin anew without resume"
            ) from error
        if state["run"] != self._run:
            raise InputError(
                f"{self.path} belongs to a run with another recipe or other data: resume with the same ones, or begin"
                " anew with overwrite"
            )
        return Checkpoint(**parts, progress=state["progress"])


_PARTS = ("weights", "best", "optimizer", "random")


def random_states() -> Tensors:
    """Return the states of torch's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Tensors) -> None:
    """Put the states of torch's generators back."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
