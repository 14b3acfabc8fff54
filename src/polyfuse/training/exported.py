"""Running a frozen encoder in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.onnx import has_onnx, need_onnx, program_of, ragged, session_of, write_onnx
from polyfuse.core.types import Features, Tensors

_OUTPUTS = ("tokens", "real", "pooled")


class ExportError(InputError):
    """An encoder cannot be run in ONNX Runtime."""


def can_export() -> bool:
    """Tell whether what the export needs is installed."""
    return has_onnx()


@contextmanager
def exported(encoder: Encoder) -> Iterator[Callable[[Tensors], Features]]:
    """Export all that `forward` does, and give a function that does the same in ONNX Runtime, from any thread.

    Args:
        encoder: at rest, on the CPU.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ExportError: the encoder does what cannot be exported.
    """
    need_onnx("compute: onnx")
    prepared = _examples(encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        try:
            module, axes = _Forward(encoder, tuple(prepared)), list(ragged(prepared).values())
            write_onnx(program_of(module, list(prepared.values()), axes), path, outputs=_OUTPUTS)
            session = session_of(path)
        except Exception as error:  # the exporter raises what it likes
            raise ExportError(
                f"compute: onnx: {type(encoder).__name__} cannot be exported ({type(error).__name__}); choose auto"
            ) from error
    # An input that an output is made of is given another name, so that only the order can be relied on.
    names = [given.name for given in session.get_inputs()]

    def run(tensors: Tensors) -> Features:
        arrays = [tensors[key].numpy() for key in prepared]
        found = session.run(list(_OUTPUTS), dict(zip(names, arrays, strict=True)))
        return Features(*(torch.from_numpy(array) for array in found))

    yield run


class _Forward(nn.Module):
    """An encoder as the exporter takes it: tensors in, tensors out, each in its place."""

    def __init__(self, encoder: Encoder, names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder, self.names = encoder, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(**dict(zip(self.names, tensors, strict=True)))
        return features.tokens, features.mask, features.pooled


def _examples(encoder: Encoder) -> Tensors:
    """Return prepared tensors of three rows.

    Raises:
        ExportError: the encoder tells no examples, prepares what is not ragged, or knows no padding.
    """
    examples = getattr(encoder, "examples", None)
    if examples is None:
        raise ExportError(f"compute: onnx: {type(encoder).__name__} gives no examples to be exported with; choose auto")
    if getattr(encoder, "even", False):
        raise ExportError(
            f"compute: onnx: {type(encoder).__name__} cannot be exported but for rows of one length; choose auto"
        )
    values = examples()
    prepared = encoder.prepare([*values, values[-1]])
    if "mask" not in prepared:
        raise ExportError(f"compute: onnx: {type(encoder).__name__} prepares no mask; choose auto")
    return prepared
