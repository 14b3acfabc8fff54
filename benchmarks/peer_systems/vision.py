"""Let libraries be imported that ask for torchvision, where its compiled part does not go with the torch at hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

#: Operators that torchvision's Python part names on import, whether or not its compiled part could be loaded.
_NAMED = ("nms", "qnms")
_KEPT: list[object] = []


def declare_operators() -> str:
    """Declare, without an implementation, the operators whose absence fails the import of torchvision.

    Nothing is done where torchvision's compiled part can be loaded, or where there is no torchvision.

    Returns:
        What was done, for the reader of the figures; empty where nothing was.
    """
    import torch

    operators: Any = torch.ops
    libraries: Any = torch.library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return ""
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            operators.load_library(str(library))
    except OSError:
        names = libraries.Library("torchvision", "FRAGMENT")
        for name in _NAMED:
            names.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(names)
        return (
            "torchvision's compiled part does not go with this build of torch, and its import would fail: its"
            f" operators {' and '.join(_NAMED)} were declared without an implementation; nothing measured here calls"
            " them."
        )
    return ""
