"""The other methods of peft, each by peft's own name, with the options of peft's own configuration.

Their classes are made when they are asked for: `methods.LOHA`.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar, get_type_hints

import torch
from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError
from torch import nn

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.options import Rate
from polyfuse.core.weights import base_weights
from polyfuse.layers.anatomy import resting
from polyfuse.tuning.backbone import backbone_of
from polyfuse.tuning.wrapped import PeftTuning, linear_layers, misfit

_OWN = {"LORA": "lora", "ADALORA": "adalora", "IA3": "ia3", "PREFIX_TUNING": "prefix"}
_LENGTHENS = "puts virtual tokens before the others, which then no longer fit their mask; use  prefix"
_REFUSED = {
    "PROMPT_TUNING": _LENGTHENS,
    "MULTITASK_PROMPT_TUNING": _LENGTHENS,
    "P_TUNING": _LENGTHENS,
    "CPT": _LENGTHENS,
    "CARTRIDGE": "is made for the cache of a model that generates; use  prefix",
    "ADAPTION_PROMPT": "knows only language models that generate; use  prefix",
    "POLY": "needs to be told a task for each row; use  lora",
    "XLORA": "mixes adapters that were trained before; use  lora",
    "LILY": "takes a mean over all rows of a batch, so that a row's answer would depend on the others; use  lora",
    "SHADOW": "runs a second model beside the backbone, which encoders have no room for; use  lora",
}
# What is not for a recipe to say, would load something from elsewhere, needs to be told of each update, or draws
# another answer at each call.
_INTERNAL = frozenset({"task_type", "peft_type", "peft_version", "auto_mapping", "inference_mode", "revision"})
_INTERNAL |= frozenset({"base_model_name_or_path", "runtime_config", "megatron_config", "megatron_core"})
_UNSERVED = re.compile(r"use_asa|asa_.*|(init|final)_warmup|mask_interval|sample_at_inference")

_RATE = 1e-3


class MethodTuning(PeftTuning):
    """A method of peft, with the options of its configuration."""

    method: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self.learning_rate = options.pop("learning_rate", _RATE)
        self.options = options

    def config(self, encoder: Encoder) -> Any:
        """Return peft's configuration for an encoder's backbone; what it acts on is found where it is not told.

        Raises:
            InputError: the method puts tokens before the others.
        """
        made = _config_class(self.method)
        options = dict(self.options)
        names = {field.name for field in dataclasses.fields(made)}
        if "target_modules" in names and options.get("target_modules") is None:
            found = _TARGETS.get(self.method, linear_layers)(encoder)
            options.update({"target_modules": found} if found else {})
        config = made(**options)
        if config.is_prompt_learning:
            raise InputError(f"tuning: {self.name} {_LENGTHENS}")
        return config

    def apply(self, encoder: Encoder) -> None:
        """Wrap the backbone in a peft model, and see that it still is what it was.

        Raises:
            InputError: the encoder has no pretrained backbone, or one that the method does not fit.
        """
        backbone = backbone_of(encoder, self.name)
        before = _sums(backbone)
        super().apply(encoder)
        assert encoder.backbone is not None
        if _sums(encoder.backbone) != before:
            raise InputError(
                f"tuning: {self.name} with these options changes the backbone's own weights, which are kept apart from"
                " what is added; use another init_weights, or another tuning"
            )
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            raise InputError(f"tuning: {self.name} finds nothing to train in {type(backbone).__name__}; use  lora")
        device = next(encoder.parameters()).device
        tensors = {name: tensor.to(device) for name, tensor in encoder.prepare([None]).items()}
        try:
            with torch.no_grad(), resting(encoder):
                encoder(**tensors)
        except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
            raise misfit(self.name, backbone, error) from error


def method_names() -> list[str]:
    """Return the methods that the installed peft has, as peft writes them, in capitals."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return sorted(kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


def __getattr__(name: str) -> type[MethodTuning]:
    # First what needs no peft to be told: Python and its tools ask modules for all kinds of names.
    if name.startswith("_") or not name.isupper() or name not in method_names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _make(name)


@cache
def _make(name: str) -> type[MethodTuning]:
    """Make the class of a method: its options are the fields of peft's configuration.

    Raises:
        InputError: it does not work on an encoder, or goes by another name here.
    """
    if name in _OWN:
        raise InputError(f"tuning: peft's {name} is  {_OWN[name]}  here")
    if name in _REFUSED:
        raise InputError(f"tuning: {name.lower()} {_REFUSED[name]}")
    fields = dataclasses.fields(_config_class(name))
    hints = get_type_hints(_config_class(name))
    options: list[tuple[str, Any, Any, str]] = [("learning_rate", Rate, _RATE, "of what the method adds.")]
    for field in fields:
        if field.init and field.name not in _INTERNAL and not _UNSERVED.fullmatch(field.name):
            default = None if field.default is dataclasses.MISSING else field.default
            if field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            told = " ".join(str(field.metadata.get("help", "as peft describes it")).split())
            options.append((field.name, hints[field.name], default, told))
    known = [option for option in options if _fits(*option[1:3])]
    parameters = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        for option, hint, default, _ in known
    ]
    lines = [f"    {option}: {told}" for option, _, _, told in known]
    return type(
        name,
        (MethodTuning,),
        {
            "name": name.lower(),
            "method": name,
            "__doc__": "\n".join([f"{name} as peft has it.", "", "Args:", *lines, ""]),
            "__module__": __name__,
            "__signature__": inspect.Signature(parameters),
        },
    )


def _fits(hint: Any, default: Any) -> bool:
    """Tell whether a recipe can hold an option: its values are JSON, and its default is one of them."""
    try:
        return bool(TypeAdapter(hint).validate_python(default, strict=True) == default)
    except (ValidationError, PydanticSchemaGenerationError, PydanticUserError):
        return False


def _config_class(name: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {kind.value: made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}[name]


def _norms(encoder: Encoder) -> list[str]:
    """Return the names of the layers that normalise."""
    assert encoder.backbone is not None
    named = encoder.backbone.named_modules()
    return [name for name, part in named if "norm" in type(part).__name__.lower() and hasattr(part, "weight")]


def _by_peft(encoder: Encoder) -> list[str]:
    """Leave it to peft."""
    return []


_TARGETS: dict[str, Callable[[Encoder], list[str]]] = {"LN_TUNING": _norms, "TRAINABLE_TOKENS": _by_peft}


def _sums(backbone: nn.Module) -> dict[str, float]:
    """Return the sum of each of the backbone's own weights."""
    return {name: float(tensor.sum(dtype=torch.float64)) for name, tensor in base_weights(backbone).items()}
