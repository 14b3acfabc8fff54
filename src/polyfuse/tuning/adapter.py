"""Bottleneck adapters inside the layers of a backbone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Le
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.core.options import Rate, Share, Width
from polyfuse.core.weights import Added
from polyfuse.layers.anatomy import ways_back
from polyfuse.layers.dropout import Dropout
from polyfuse.tuning.backbone import backbone_of

_WEIGHTS, _CONFIG = "adapter.safetensors", "adapter.json"
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class Bottleneck(Added):
    """x + W_up act(W_down x + b_down) + b_up; W_up and b_up start at zero, so that it starts as x.

    Args:
        dim: of x.
        size: of the bottleneck.
        activation: act.
        dropout: share of act's output that is zeroed in training.
    """

    def __init__(self, dim: int, size: int, activation: str, dropout: float) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, size), nn.Linear(size, dim)
        self.activation, self.dropout = _ACTIVATIONS[activation](), Dropout(dropout)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim)."""
        changed: Tensor = self.up(self.dropout(self.activation(self.down(x))))
        return x + changed


class AdapterTuning(Tuning):
    """Bottleneck adapters x + W_up act(W_down x) after the sublayers of each layer; they alone move.

    An adapter takes what its sublayer projects back into the hidden states, before it is added to them and normalised.
    Where that is, is found by running the model once.

    Args:
        style: "houlsby" puts one after the attention and one after the feed-forward network (Houlsby et al. 2019),
            "pfeiffer" only after the feed-forward network (Pfeiffer et al. 2021).
        reduction: the bottleneck is the width of the hidden states divided by this.
        size: width of the bottleneck, in place of `reduction`.
        activation: act.
        dropout: share of the bottleneck that is zeroed in training.
        learning_rate: of the adapters.
    """

    name: ClassVar[str] = "adapter"

    def __init__(
        self,
        *,
        style: Literal["houlsby", "pfeiffer"] = "pfeiffer",
        reduction: Annotated[float, Ge(1), Le(16_384)] = 16.0,
        size: Width | None = None,
        activation: Literal["relu", "gelu", "silu", "tanh"] = "relu",
        dropout: Share = 0.0,
        learning_rate: Rate = 5e-4,
    ) -> None:
        self.style, self.reduction, self.size = style, reduction, size
        self.activation, self.dropout = activation, dropout
        self.learning_rate = learning_rate

    def apply(self, encoder: Encoder) -> None:
        """Put the adapters in.

        Raises:
            InputError: the encoder has no pretrained backbone, or one without places for adapters.
        """
        backbone = backbone_of(encoder, self.name)
        found = [layer if self.style == "houlsby" else layer[-1:] for layer in ways_back(encoder)]
        places = [backbone.get_submodule(name) for layer in found for name in layer]
        if not places:
            raise InputError(
                f"tuning: adapter finds no layers with attention or feed-forward networks in"
                f" {type(backbone).__name__}; use  last  or  full"
            )
        encoder.requires_grad_(False)
        for place in places:
            dim = getattr(place, "out_features", None) or place.nf  # the latter in GPT-2's own linear layer
            size = self.size or max(1, round(dim / self.reduction))
            place.adapter = Bottleneck(dim, size, self.activation, self.dropout).to(place.weight.device)
            place.register_forward_hook(_adapt)

    def save(self, encoder: Encoder, folder: Path) -> bool:
        """Write the adapters' weights, and what they are."""
        weights = _added(backbone_of(encoder, self.name))
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps(self._about(), indent=1), encoding="utf-8")
        return True

    def restore(self, encoder: Encoder, folder: Path) -> None:
        """Put adapters in with the weights that `save` wrote.

        Raises:
            ArtifactError: they are other adapters.
        """
        self.apply(encoder)
        weights, given = _added(backbone_of(encoder, self.name)), load_file(folder / _WEIGHTS)
        shapes, found = ({name: tensor.shape for name, tensor in some.items()} for some in (weights, given))
        try:
            about = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ArtifactError(f"{folder / _CONFIG} is damaged: {error}") from error
        if about != self._about() or shapes != found:
            raise ArtifactError(f"{folder} holds other adapters ({about!r:.200}) than the recipe's ({self._about()})")
        with torch.no_grad():
            for name, tensor in weights.items():
                tensor.copy_(given[name])

    def merge(self, encoder: Encoder) -> bool:
        """Return False: no weight of the backbone can do what lies behind a nonlinear function."""
        return False

    def _about(self) -> dict[str, Any]:
        return {"method": self.name, "style": self.style, "activation": self.activation, "dropout": self.dropout}


def _adapt(place: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """Send a layer's output through its adapter."""
    adapted: Tensor = place.get_submodule("adapter")(output)
    return adapted


def _added(backbone: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' weights, under their names in the backbone."""
    return {
        f"{name}.{part}": tensor
        for name, module in backbone.named_modules()
        if isinstance(module, Bottleneck)
        for part, tensor in module.state_dict().items()
    }
