"""Images, by a small convolutional network trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from torch import Tensor

from polyfuse.core.contract import Encoder
from polyfuse.core.options import Depth, Share, Width
from polyfuse.core.types import Features, Tensors
from polyfuse.data.schema import Column
from polyfuse.encoders.residual import ResidualNet
from polyfuse.encoders.restoring import images_of, pixels_of_images
from polyfuse.layers.dropout import Dropout
from polyfuse.layers.real import put_back, real_of

_UNKNOWN_SIZE = 64
_LEAST, _MOST = 8, 96


class ConvnetEncoder(Encoder):
    """A residual network (He et al. 2016); tokens are the cells of its last map, of all images of a row side by side.

    The pooled vector is their mean. `prepare` gives `pixels` (batch, images, channels, size, size) float in [0, 1] and
    `mask` (batch, images) bool.

    Args:
        columns: image columns that feed it.
        size: side in pixels that images are resized to; the training images' own, between 8 and 96, when left out.
        width: channels of the first layer; the last has up to four times as many, which is the width of the tokens.
        depth: residual blocks between two halvings of the map.
        dropout: share of the tokens' entries that is zeroed in training.
        grey: read one channel, the luma (ITU-R BT.601), in place of three: for scans, digits, X-rays.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"image"})
    continuous: ClassVar[Mapping[str, tuple[float, float]]] = {"pixels": (0.0, 1.0)}

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        size: Annotated[int, Ge(8), Le(512)] | None = None,
        width: Width = 32,
        depth: Depth = 1,
        dropout: Share = 0.1,
        grey: bool = False,
    ) -> None:
        super().__init__()
        known = [column.size for column in columns if column.size]
        self.size = size or min(_MOST, max(_LEAST, *known, 0) if known else _UNKNOWN_SIZE)
        self.grey = grey
        self.net = ResidualNet(1 if grey else 3, (self.size, self.size), width=width, depth=depth)
        self.dropout = Dropout(dropout)
        self.dim = self.net.dim

    def prepare(self, values: Sequence[tuple[Any, ...] | None]) -> Tensors:
        """Resize, and take the luma where that is all that is read."""
        rows = [[image for cell in value or () for image in cell or ()] for value in values]
        most = max([1, *map(len, rows)])
        pixels = np.zeros((len(rows), most, self.size, self.size, 1 if self.grey else 3), dtype=np.uint8)
        mask = torch.zeros(len(rows), most, dtype=torch.bool)
        mask[:, 0] = True
        for i, row in enumerate(rows):
            for j, image in enumerate(row):
                resized = image.resize((self.size, self.size), Image.Resampling.BICUBIC)
                pixels[i, j] = np.asarray(resized.convert("L"))[..., None] if self.grey else resized
                mask[i, j] = True
        return {"pixels": torch.from_numpy(pixels).permute(0, 1, 4, 2, 3).contiguous() / 255, "mask": mask}

    def forward(self, pixels: Tensor, mask: Tensor) -> Features:
        """pixels: (batch, images, channels, size, size) in [0, 1], mask: (batch, images) bool."""
        cells = self.dropout(self.net(real_of(pixels, mask) * 2 - 1).flatten(2).transpose(1, 2))
        tokens = put_back(cells, mask)
        return Features.of_tokens(tokens.flatten(1, 2), mask.repeat_interleave(cells.shape[1], dim=1))

    def alterable(self, tensors: Tensors) -> Tensor:
        """Return which pixels are of an image."""
        return pixels_of_images(tensors["pixels"], tensors["mask"])

    def restore(self, tensors: Tensors, values: Sequence[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Return images of the size that the network reads."""
        return images_of(tensors["pixels"], values)

    def preparation(self) -> dict[str, Any]:
        """Return the size, and whether one channel is read."""
        return {"size": self.size, "grey": self.grey}
