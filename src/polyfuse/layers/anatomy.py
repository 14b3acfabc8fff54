"""What a transformers model is made of, found by looking: its stack of layers, and which weights act where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyfuse.core.contract import Encoder
from polyfuse.core.types import Tensors


def find_stack(model: nn.Module) -> tuple[str, nn.ModuleList] | None:
    """Return name and layers of the stack that a model is built around; None if it has none.

    Of the lists of modules that stand in no other list, it is the one with the most weights.
    """
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = {
        name: module
        for name, module in lists.items()
        if not any(name.startswith(f"{other}.") for other in lists) and any(True for _ in module.parameters())
    }
    if not outer:
        return None
    return max(outer.items(), key=lambda item: _size(item[1]))


def weights_around(encoder: Encoder, layer: nn.Module) -> tuple[set[nn.Parameter], set[nn.Parameter]]:
    """Return the encoder's weights that act before a layer's input, and those that act from there on.

    A weight may do both, e.g. one that several layers share. The encoder is run once on a placeholder, and the graph
    of its computation is followed back from the layer's input and from the Features.
    """
    inputs: list[Tensor] = []

    def cut(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        inputs.append(args[0] if args else kwargs["hidden_states"])
        apart = inputs[-1].detach().requires_grad_()
        return ((apart, *args[1:]), kwargs) if args else ((), {**kwargs, "hidden_states": apart})

    with resting(encoder), all_require_gradients(encoder):
        handle = layer.register_forward_pre_hook(cut, with_kwargs=True)
        try:
            features = encoder(**_placeholder(encoder))
        finally:
            handle.remove()
        return _leaves(inputs), _leaves([features.tokens, features.pooled])


def ways_back(encoder: Encoder) -> list[list[str]]:
    """Return for each layer of the backbone the projections back into its hidden states, in the order they are run.

    Those are the last linear layers of an attention and of a feed-forward network. The encoder is run once on
    placeholders: a way back gives what is as large as an input before it, and is not fed with that input.
    """
    backbone = encoder.backbone
    assert backbone is not None
    names = {module: name for name, module in backbone.named_modules()}
    traces = [_Trace(block) for block in blocks_of(backbone)]
    try:
        with torch.no_grad(), resting(encoder):
            encoder(**_placeholder(encoder))
    finally:
        for trace in traces:
            trace.end()
    return [[names[module] for module in trace.ways_back] for trace in traces]


class _Trace:
    """Follows the linear layers of a block as they are run."""

    def __init__(self, block: nn.Module) -> None:
        self.ways_back: list[nn.Module] = []
        self._begun: list[Tensor] = []
        self._seen: set[nn.Module] = set()
        self._hooks = [module.register_forward_hook(self._follow) for module in block.modules() if is_linear(module)]

    def end(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _follow(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if module in self._seen:
            return
        self._seen.add(module)
        given = args[0]
        if any(given.data_ptr() == begun.data_ptr() for begun in self._begun):
            return
        size = (output.numel(), output.shape[-1])
        if any(size == (begun.numel(), begun.shape[-1]) for begun in self._begun):
            self.ways_back.append(module)
            self._begun.clear()
        else:
            self._begun.append(given)


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module multiplies with a matrix: torch's linear layer, or the one that GPT-2 has."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model's stack, those inside its stages where it has such."""
    found = find_stack(model)
    if found is None:
        return []
    blocks = []
    for element in found[1]:
        inner = find_stack(element)
        if inner and len({type(each) for each in inner[1]}) == 1 and 2 * _size(inner[1]) > _size(element):
            blocks += blocks_of(element)
        else:
            blocks.append(element)
    return blocks


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode as long as the block runs, and every part back into the mode it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def all_require_gradients(module: nn.Module) -> Iterator[None]:
    """Let every weight require a gradient as long as the block runs, whatever surrounds it."""
    flags = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.requires_grad_(True)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _placeholder(encoder: Encoder) -> Tensors:
    """Return what an encoder prepares for two absent values, where its weights are."""
    device = next(encoder.parameters()).device
    return {name: tensor.to(device) for name, tensor in encoder.prepare([None, None]).items()}


def _leaves(outputs: Iterable[Tensor]) -> set[nn.Parameter]:
    """Return the weights from which some tensors were computed."""
    found: set[nn.Parameter] = set()
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter):
            found.add(leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return found
