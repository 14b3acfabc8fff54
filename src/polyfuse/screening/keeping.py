"""A screen in a folder: tensors in safetensors, all else in JSON, every size checked before it is believed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file

from polyfuse.core.files import read_about, undamaged
from polyfuse.data.schema import Strict
from polyfuse.model import Model
from polyfuse.screening.fitting import MOST
from polyfuse.screening.screen import Screen, Shape, shapes_fit

FORMAT = 1
_ABOUT, _TENSORS = "screen.json", "screen.safetensors"


class _About(Strict):
    """What `screen.json` holds.

    Attributes:
        format: of the files.
        task: of the model.
        neighbours: k.
        rate: of false positives that was asked for.
        rows: that the threshold was taken from.
        spaces: by name, in the model's order.
    """

    format: int
    task: str
    neighbours: int = Field(ge=1)
    rate: float = Field(gt=0, lt=1)
    rows: int = Field(ge=1)
    spaces: dict[str, Shape]


def save_screen(screen: Screen, folder: Path) -> None:
    """Write a screen to a folder, which is made."""
    folder.mkdir(parents=True)
    shapes = {name: space.shape for name, space in zip(screen.names, screen.spaces, strict=True)}
    about = _About(
        format=FORMAT,
        task=screen.task,
        neighbours=screen.neighbours,
        rate=screen.rate,
        rows=screen.rows,
        spaces=shapes,
    )
    (folder / _ABOUT).write_text(about.model_dump_json(indent=1), encoding="utf-8")
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in screen.state_dict().items()}
    save_file(state, folder / _TENSORS)


def load_screen(folder: Path, model: Model) -> Screen | None:
    """Read the screen of a model; None where there is none.

    Raises:
        ArtifactError: it is damaged, or another model's.
    """
    if not (folder / _ABOUT).is_file():
        return None
    with undamaged(folder, ", or fit another screen with  fit_screen"):
        about = read_about(folder / _ABOUT, _About, format=FORMAT)
        if about.task != model.head.task or not shapes_fit(model, about.spaces, most=MOST):
            raise ValueError(f"{_ABOUT} does not describe a screen of this model")
        screen = Screen(about.task, about.spaces, neighbours=about.neighbours, rate=about.rate, rows=about.rows)
        _fill(screen, folder / _TENSORS)
    return screen


def _fill(screen: Screen, path: Path) -> None:
    """Read tensors of the names, types and shapes that a screen has."""
    wanted = screen.state_dict()
    with safe_open(path, "pt") as file:
        if set(file.keys()) != set(wanted):
            raise ValueError(f"{path.name} has other tensors than {', '.join(sorted(wanted)[:3])}, …")
        for name, buffer in wanted.items():
            given = file.get_slice(name)
            if given.get_dtype() != "F32" or list(given.get_shape()) != list(buffer.shape):
                raise ValueError(f"{name} in {path.name} has another type or shape than {tuple(buffer.shape)}")
            tensor = file.get_tensor(name)
            # A width without an end stands for a signal that says nothing.
            known = ~tensor.isnan() & (tensor > 0) if name == "width" else tensor.isfinite()
            if not bool(known.all()):
                raise ValueError(f"{name} in {path.name} has a number that no screen has")
            buffer.copy_(tensor)
    if bool((screen.weights < 0).any()):
        raise ValueError(f"weights in {path.name} are below 0")
