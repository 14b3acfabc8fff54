"""Images, by a pretrained vision model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from polyfuse.core.errors import InputError
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column
from polyfuse.encoders.pretrained import PretrainedEncoder, load_companion, load_model
from polyfuse.encoders.restoring import images_of, pixels_of_images
from polyfuse.layers.real import put_back, real_of


class ImageTransformerEncoder(PretrainedEncoder):
    """Any transformers vision model: ViT, DeiT, DINOv2, ConvNeXt, ResNet, the vision tower of CLIP or SigLIP.

    Tokens are the last hidden states, cell by cell, of all images of a row side by side. The pooled vector is the
    mean over images of the model's own pooling; where that was not trained, its class token or the mean of its tokens.
    `prepare` gives `pixels` (batch, images, 3, height, width) float in [0, 1] and `mask` (batch, images) bool.

    Args:
        columns: image columns that feed it.
        checkpoint: hub name or local folder.

    Raises:
        InputError: the checkpoint cannot be loaded, or is no vision model.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"pixels": (0.0, 1.0)}

    mean: Tensor
    std: Tensor
    _each = 1  # tokens of one image at the cut

    def __init__(self, columns: Sequence[Column], *, checkpoint: str = "facebook/dinov2-small") -> None:
        super().__init__()
        self.companion = load_companion("AutoImageProcessor", checkpoint)
        self.backbone, self._prefix = load_model(checkpoint, "vision_config")
        if self.backbone.main_input_name != "pixel_values":
            raise InputError(f"checkpoint={checkpoint!r} is {type(self.backbone).__name__}, which reads no images")
        self._sides, self._bleed = _geometry(self.companion)
        self._resample = Image.Resampling(int(getattr(self.companion, "resample", None) or Image.Resampling.BICUBIC))
        normalize = getattr(self.companion, "do_normalize", True)
        mean, std = (self.companion.image_mean, self.companion.image_std) if normalize else ([0.0] * 3, [1.0] * 3)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self._has_class_token = any(name.endswith("cls_token") for name, _ in self.backbone.named_parameters())
        with torch.no_grad():
            self.dim = self._encode(torch.zeros(1, 3, *self._sides))[1].shape[-1]

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Crop to the model's aspect ratio and resize."""
        rows = [[image for cell in value or () for image in cell or ()] for value in values]
        most = max([1, *map(len, rows)])
        pixels = torch.zeros(len(rows), most, 3, *self._sides)
        mask = torch.zeros(len(rows), most, dtype=torch.bool)
        mask[:, 0] = True
        height, width = self._sides
        for i, row in enumerate(rows):
            for j, image in enumerate(row):
                fitted = ImageOps.fit(image, (width, height), self._resample, bleed=self._bleed)
                pixels[i, j] = torch.from_numpy(np.array(fitted)).permute(2, 0, 1) / 255
                mask[i, j] = True
        return {"pixels": pixels, "mask": mask}

    def forward(self, pixels: Tensor, mask: Tensor) -> Features:
        """pixels: (batch, images, 3, height, width) in [0, 1], mask: (batch, images) bool."""
        return _side_by_side(*self._encode(real_of(pixels, mask)), mask)

    def forward_lower(self, pixels: Tensor, mask: Tensor) -> Features:
        """Return the hidden states at the cut. pixels: (batch, images, 3, height, width), mask: (batch, images)."""
        assert self._cut is not None
        model, inputs = self._cut.lower(self.backbone)
        model(pixel_values=(real_of(pixels, mask) - self.mean) / self.std)
        hidden = inputs[-1].float()
        self._each = hidden.shape[1]
        return _side_by_side(hidden, hidden.mean(1), mask)

    def resume(self, hidden: Tensor, mask: Tensor) -> Features:
        """Go on above the cut. hidden: (batch, images × tokens of one, width of `lower`), mask: bool beside it."""
        assert self._cut is not None
        images = mask[:, :: self._each]
        found = real_of(hidden.reshape(*images.shape, self._each, -1), images)
        model, _ = self._cut.upper(self.backbone, found)
        placeholder = found.new_zeros(1, 3, *self._sides).expand(len(found), -1, -1, -1)
        return _side_by_side(*self._read(model(pixel_values=placeholder)), images)

    def examples(self) -> list[tuple[Any, ...]]:
        """Return one picture, and two of another kind."""
        plain, shaded = Image.new("RGB", (8, 8), "white"), Image.linear_gradient("L").convert("RGB")
        return [([plain],), ([shaded, plain],)]

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which pixels are of an image."""
        return pixels_of_images(tensors["pixels"], tensors["mask"])

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return images of the size that the model reads, with the border around that is cut off.

        Raises:
            InputError: no image has a border of which exactly that is left.
        """
        border = [side * self._bleed / (1 - 2 * self._bleed) for side in self._sides]
        if any(abs(side - round(side)) > 1e-6 for side in border):
            raise InputError(
                f"the processor cuts off {border[0]:.2f} pixels of each side: no image gives these pixels again; choose"
                " a checkpoint that cuts off whole pixels"
            )
        return images_of(tensors["pixels"], values, (round(border[0]), round(border[1])))

    def preparation(self) -> dict[str, Any]:
        """Return geometry and normalisation."""
        normalization = {"mean": self.mean.flatten().tolist(), "std": self.std.flatten().tolist()}
        return {"sides": self._sides, "bleed": self._bleed, "resample": int(self._resample), **normalization}

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels: (n, 3, height, width). Returns tokens (n, t, dim) and pooled vectors (n, dim)."""
        return self._read(self.backbone(pixel_values=(pixels - self.mean) / self.std))

    def _read(self, out: Any) -> tuple[Tensor, Tensor]:
        """Return tokens and pooled vectors from what a model returns."""
        tokens = out.last_hidden_state
        if tokens.ndim == 4:
            tokens = tokens.flatten(2).transpose(1, 2)
        pooled = getattr(out, "pooler_output", None)
        if pooled is None:
            pooled = tokens[:, 0] if self._has_class_token else tokens.mean(1)
        return tokens, pooled.flatten(1)


def _side_by_side(found: Tensor, pooled: Tensor, mask: Tensor) -> Features:
    """Return the images of a row as one.

    Args:
        found: tokens of all images, (n, tokens, dim).
        pooled: a vector of each, (n, dim).
        mask: (batch, images) bool, n of them True.
    """
    tokens = put_back(found, mask)
    mean = put_back(pooled, mask).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
    return Features(tokens.flatten(1, 2), mask.repeat_interleave(found.shape[1], dim=1), mean)


def _geometry(processor: Any) -> tuple[tuple[int, int], float]:
    """Return height and width that the model reads, and the share of a border that its processor cuts off.

    Raises:
        InputError: the processor names no size.
    """
    size = _sides(getattr(processor, "size", None))
    crop = _sides(getattr(processor, "crop_size", None)) if getattr(processor, "do_center_crop", False) else {}
    edge = size.get("shortest_edge")
    if "height" in crop:
        sides = (crop["height"], crop["width"])
        whole = edge or min(size.get("height", sides[0]), size.get("width", sides[1]))
        return sides, max(0.0, (1 - min(sides) / whole) / 2)
    if "height" in size:
        return (size["height"], size["width"]), 0.0
    if edge is None:
        raise InputError(f"the image processor {type(processor).__name__} names no size that its model reads")
    share = getattr(processor, "crop_pct", None)
    return (edge, edge), (1 - share) / 2 if share and edge < 384 else 0.0


def _sides(size: Any) -> dict[str, int]:
    """Return what is set of a size: a mapping, or an object with the same fields."""
    found = {key: getattr(size, key, None) for key in ("height", "width", "shortest_edge")}
    if isinstance(size, Mapping):
        found = {key: size.get(key) for key in found}
    return {key: int(value) for key, value in found.items() if value is not None}
