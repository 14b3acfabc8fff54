"""Running a frozen encoder in ONNX Runtime."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError, import_extra
from polyfuse.core.types import Features, Tensors

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_OUTPUTS = ("tokens", "real", "pooled")


class ExportError(InputError):
    """An encoder cannot be run in ONNX Runtime."""


def can_export() -> bool:
    """Tell whether what the export needs is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


@contextmanager
def exported(encoder: Encoder) -> Iterator[Callable[[Tensors], Features]]:
    """Export all that `forward` does, and give a function that does the same in ONNX Runtime, from any thread.

    Args:
        encoder: at rest, on the CPU.

    Raises:
        MissingExtra: ONNX Runtime is not installed.
        ExportError: the encoder does what cannot be exported.
    """
    import_extra("onnxscript", "onnx", "compute: onnx")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else its import writes into the user's cache folder
    onnxruntime = import_extra("onnxruntime", "onnx", "compute: onnx")
    prepared = _examples(encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        try:
            _export(encoder, prepared, path)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
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
    """Return prepared tensors of three rows: of one alone, the exporter would make a constant of the number of rows.

    Raises:
        ExportError: the encoder tells no examples, or prepares what is not ragged.
    """
    examples = getattr(encoder, "examples", None)
    if examples is None:
        raise ExportError(f"compute: onnx: {type(encoder).__name__} gives no examples to be exported with; choose auto")
    values = examples()
    prepared = encoder.prepare([*values, values[-1]])
    if "mask" not in prepared:
        raise ExportError(f"compute: onnx: {type(encoder).__name__} prepares no mask; choose auto")
    return prepared


def _export(encoder: Encoder, prepared: Tensors, path: Path) -> None:
    length = prepared["mask"].shape[1]
    dynamic = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {0: dynamic, 1: dynamic} if tensor.ndim > 1 and tensor.shape[1] == length else {0: dynamic}
        for tensor in prepared.values()
    )
    with _silence(), torch.inference_mode(False), torch.no_grad():
        program: Any = torch.onnx.export(
            _Forward(encoder, tuple(prepared)),
            tuple(prepared.values()),
            dynamo=True,
            dynamic_shapes=(shapes,),
            output_names=list(_OUTPUTS),
            verbose=False,
        )
        program.save(str(path), external_data=True)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter from telling what it does, which it does in many ways."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
