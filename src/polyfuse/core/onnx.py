"""Writing graphs of modules, and running those of ONNX. What that needs comes with the extra `onnx`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from polyfuse.core.errors import import_extra
from polyfuse.core.types import Tensors

_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_MOST = 1 << 31  # bytes of a constant that is computed beforehand


def has_onnx() -> bool:
    """Tell whether what ONNX needs is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


def need_onnx(purpose: str) -> None:
    """Raise where something that ONNX needs is not installed.

    Raises:
        MissingExtra: it names the extra.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else its import writes into the user's cache folder
    for name in _NEEDED:
        import_extra(name, "onnx", purpose)


def ragged(tensors: Tensors) -> dict[str, dict[int, Any]]:
    """Return which axes of prepared tensors may have any length: the rows, and where there is a mask what it masks."""
    dynamic = torch.export.Dim.DYNAMIC
    length = tensors["mask"].shape[1] if "mask" in tensors else None
    return {
        name: {0: dynamic, 1: dynamic} if tensor.ndim > 1 and tensor.shape[1] == length else {0: dynamic}
        for name, tensor in tensors.items()
    }


def program_of(module: nn.Module, tensors: Sequence[Tensor], axes: Sequence[Mapping[int, Any]]) -> ExportedProgram:
    """Return the program of a module at rest on the CPU; torch raises what it likes where it cannot.

    Args:
        module: from these tensors, each in its place, to a tuple.
        tensors: examples of two rows or more: of one alone, torch would make a constant of their number.
        axes: of each, those that may have any length.
    """
    with silence(), torch.inference_mode(False), torch.no_grad():
        return torch.export.export(module, tuple(tensors), dynamic_shapes=(tuple(axes),), strict=False)


def write_onnx(
    program: ExportedProgram, path: Path, *, outputs: Sequence[str], inputs: Sequence[str] | None = None
) -> None:
    """Write a program as an ONNX graph; the exporter raises what it likes where it cannot.

    Args:
        program: of `program_of`.
        path: of the file; large weights stand in another beside it.
        outputs: their names.
        inputs: their names; what the exporter chooses when left out.
    """
    with silence(), torch.inference_mode(False), torch.no_grad():
        made: Any = torch.onnx.export(program, dynamo=True, output_names=list(outputs), verbose=False, optimize=False)
        # Not the exporter's own optimisation: it takes  x + 1e-12  for  x + 0.
        optimizer = import_extra("onnxscript.optimizer", "onnx", "export to onnx")
        optimizer.fold_constants(made.model, input_size_limit=_MOST, output_size_limit=_MOST)
        optimizer.remove_unused_nodes(made.model)
        # By name, once it is made: an input that an output is made of is given another one by the exporter.
        for value, name in zip(made.model.graph.inputs, inputs or (), strict=inputs is not None):
            value.name = name
        made.save(str(path), external_data=True)


def session_of(path: Path) -> Any:
    """Return the ONNX Runtime session of a graph, on the CPU, with as many threads as torch has."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else its import writes into the user's cache folder
    onnxruntime = import_extra("onnxruntime", "onnx", "running a graph")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@contextmanager
def silence() -> Iterator[None]:
    """Keep the exporter from telling what it does, which it does in many ways."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
