"""Running a transformers model up to one of its layers, or from there on."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Cut:
    """A place below one layer of a model's stack.

    The parts are views of the model: they share its weights, and the code that makes positions and masks is the
    model's own. Layers that do not take part hand on what they are given.

    Args:
        stack: name of the list of layers in the model.
        at: number of the first layer above.
    """

    def __init__(self, stack: str, at: int) -> None:
        self.stack, self.at = stack, at
        self._outputs = 0  # how many things a layer returns; 0 where it returns the hidden states alone

    def lower(self, model: nn.Module) -> tuple[nn.Module, list[Tensor]]:
        """Return the part below; each call adds the inputs of the layers 0, …, `at` to the list."""
        seen: list[Tensor] = []

        def replaced(number: int, layer: nn.Module) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if number <= self.at:
                    seen.append(_hidden(args, kwargs))
                if number >= self.at:
                    return self._hand_on(args, kwargs)
                output = layer.forward(*args, **kwargs)
                self._outputs = len(output) if isinstance(output, tuple) else 0
                return output

            return forward

        return self._view(model, replaced), seen

    def upper(self, model: nn.Module, hidden: Tensor) -> tuple[nn.Module, list[Tensor]]:
        """Return the part above, fed with the input of layer `at`; a call adds its layers' outputs to the list.

        What it is called with has to have the right shape, and does not matter beyond that.
        """
        seen: list[Tensor] = []

        def replaced(number: int, layer: nn.Module) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if number < self.at:
                    return self._hand_on(args, kwargs)
                if number == self.at:
                    args, kwargs = ((hidden, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": hidden})
                output = layer.forward(*args, **kwargs)
                seen.append(output if isinstance(output, Tensor) else output[0])
                return output

            return forward

        return self._view(model, replaced), seen

    def _hand_on(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what a layer is given, in the form of what layers return."""
        hidden = _hidden(args, kwargs)
        return (hidden, *[None] * (self._outputs - 1)) if self._outputs else hidden

    def _view(self, model: nn.Module, replaced: Callable[[int, nn.Module], Callable[..., Any]]) -> nn.Module:
        """Return the model with other forwards in the layers of its stack; the model itself stays as it is."""
        views = []
        for number, layer in enumerate(model.get_submodule(self.stack).children()):
            view = _shallow(layer)
            view.forward = replaced(number, layer)
            views.append(view)
        root = place = _shallow(model)
        *path, last = self.stack.split(".")
        for name in path:
            place._modules[name] = _shallow(place.get_submodule(name))
            place = place.get_submodule(name)
        place._modules[last] = nn.ModuleList(views)
        return root


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the first thing that a layer is given."""
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


def _shallow(module: nn.Module) -> nn.Module:
    """Return a module with the same parts, whose list of parts is its own."""
    view = copy.copy(module)
    view._modules = dict(module._modules)
    return view
