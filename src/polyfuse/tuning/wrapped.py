"""What the methods have in common that peft puts around a backbone."""

from __future__ import annotations

import copy
import re
import warnings
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from safetensors.torch import load_file
from torch import nn

from polyfuse.core.contract import Encoder, Tuning
from polyfuse.core.errors import ArtifactError, InputError
from polyfuse.layers.anatomy import is_linear
from polyfuse.tuning.backbone import backbone_of

WEIGHTS = "adapter_model.safetensors"


class PeftTuning(Tuning):
    """A method of peft: the backbone stays as it is, and what the method adds to it is trained.

    What `save` writes can be read by `peft.PeftModel.from_pretrained` too.

    Attributes:
        name: of the tuning, for messages.
    """

    name: ClassVar[str]

    @abstractmethod
    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone.

        Raises:
            InputError: the method does not fit it.
        """

    def apply(self, encoder: Encoder) -> None:
        """Wrap the backbone in a peft model.

        Raises:
            InputError: the encoder has no pretrained backbone, or one that the method does not fit.
        """
        from peft import get_peft_model

        backbone = backbone_of(encoder, self.name)
        try:
            config = self.config(encoder)
            encoder.requires_grad_(False)
            with warnings.catch_warnings():
                # peft sees by itself how a layer's matrix lies, and says so.
                warnings.filterwarnings("ignore", message="fan_in_fan_out")
                encoder.backbone = get_peft_model(backbone, config)
        except InputError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError, RuntimeError, NotImplementedError) as error:
            raise misfit(self.name, backbone, error) from error

    def save(self, encoder: Encoder, folder: Path) -> bool:
        """Write what was added, in peft's format."""
        # Without a look at the embedding, for which peft would ask the hub.
        backbone_of(encoder, self.name).save_pretrained(folder, save_embedding_layers=False)
        return True

    def restore(self, encoder: Encoder, folder: Path) -> None:
        """Put what `save` wrote onto the backbone.

        Raises:
            ArtifactError: it does not fit what the method adds.
        """
        self.apply(encoder)
        self._load(encoder, folder)

    def merge(self, encoder: Encoder) -> bool:
        """Fold what was added into the weights of the layers that it stands beside."""
        try:
            # A copy, for some methods find only half-way that a layer cannot take what was added.
            encoder.backbone = copy.deepcopy(backbone_of(encoder, self.name)).merge_and_unload(safe_merge=True)
        except (NotImplementedError, AttributeError, ValueError):
            return False
        return True

    def _load(self, encoder: Encoder, folder: Path) -> None:
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        backbone = backbone_of(encoder, self.name)
        # Not by peft's own loader, which also takes a pickle, or asks a hub, where the file is missing.
        given = load_file(folder / WEIGHTS)
        shapes = {name: tensor.shape for name, tensor in given.items()}  # peft changes what it is given
        try:
            set_peft_model_state_dict(backbone, given)
        except (RuntimeError, LookupError, AttributeError) as error:
            raise ArtifactError(f"{folder} does not fit the recipe's {self.name}: {error}") from error
        there = get_peft_model_state_dict(backbone, save_embedding_layers=False)
        if shapes != {name: tensor.shape for name, tensor in there.items()}:
            wrong = sorted(shapes.keys() ^ there.keys()) or sorted(shapes)
            raise ArtifactError(f"{folder} does not fit the recipe's {self.name}, e.g. in {wrong[0]!r}")


def misfit(name: str, backbone: nn.Module, error: Exception) -> InputError:
    """Return the error for a method that does not fit a backbone."""
    told = " ".join(str(error).split())[:300] or type(error).__name__
    return InputError(
        f"tuning: {name} does not fit {type(backbone).__name__} ({told}); change its options, or use another tuning,"
        " e.g.  lora  or  full"
    )


def linear_layers(encoder: Encoder, among: Literal["all", "attention"] = "all") -> list[str]:
    """Return the names of the linear layers: they are found, for names differ between architectures and versions.

    Those inside torch's own attention are left out, for it multiplies with their weights without calling them.

    Args:
        encoder: in whose backbone they stand.
        among: "all", or those of the "attention", where there are such.

    Raises:
        InputError: there are none.
    """
    backbone = encoder.backbone
    assert backbone is not None
    closed = [f"{name}." for name, module in backbone.named_modules() if isinstance(module, nn.MultiheadAttention)]
    names = [
        name for name, module in backbone.named_modules() if is_linear(module) and not name.startswith(tuple(closed))
    ]
    if not names:
        raise InputError(f"tuning: {type(backbone).__name__} has no linear layers to adapt; use  last  or  full")
    if among == "all":
        return names
    return [name for name in names if _ATTENTION.search(name)] or names


def pattern(names: Iterable[str]) -> str:
    """Return an expression that matches some layers; a long list peft would shorten until it matches others too."""
    return "|".join(dict.fromkeys(re.sub(r"\\\.\d+(?=\\\.)", r"\\.\\d+", re.escape(name)) for name in names))


_ATTENTION = re.compile(r"attention|(^|[._])attn([._]|$)", re.IGNORECASE)
