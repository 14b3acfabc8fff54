from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, CLIPVisionModel

from polyfuse.core.errors import InputError
from polyfuse.data.schema import Column
from polyfuse.encoders.convnet import ConvnetEncoder
from polyfuse.encoders.image_transformer import ImageTransformerEncoder

PHOTO = [Column(name="photo", type="image", size=28)]
Find = Callable[[str], str]


def image(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["vit", "dinov2", "resnet", "convnext", "clip", "siglip"])
def test_pixels_are_those_of_the_models_own_processor(name: str, tiny_model: Find) -> None:
    encoder = ImageTransformerEncoder(PHOTO, checkpoint=tiny_model(name)).eval()
    processor = AutoImageProcessor.from_pretrained(tiny_model(name))
    square = image(40, 40)
    expected = processor(square, return_tensors="pt")["pixel_values"][0]
    pixels = encoder.prepare([([square],)])["pixels"][0, 0]
    found = (pixels - encoder.mean) / encoder.std
    assert found.shape == expected.shape
    # Cutting before resizing moves the sampling points by a fraction of a pixel where the processor cuts afterwards.
    tolerance = 0.02 if name in ("vit", "clip", "siglip") else 1.0
    assert (found - expected).abs().mean() < tolerance


def test_the_tower_of_clip_is_its_vision_model(tiny_model: Find) -> None:
    folder = tiny_model("clip")
    encoder = ImageTransformerEncoder(PHOTO, checkpoint=folder).eval()
    tensors = encoder.prepare([([image(16, 16)],)])
    model = CLIPVisionModel.from_pretrained(folder).eval()
    expected = model(pixel_values=(tensors["pixels"][0] - encoder.mean) / encoder.std)
    found = encoder(**tensors)
    torch.testing.assert_close(found.tokens[0], expected.last_hidden_state[0])
    torch.testing.assert_close(found.pooled, expected.pooler_output)


def test_a_pooler_that_was_not_trained_is_not_used(tiny_model: Find) -> None:
    encoder = ImageTransformerEncoder(PHOTO, checkpoint=tiny_model("vit")).eval()
    assert not any("pooler" in name for name in encoder.state_dict())
    found = encoder(**encoder.prepare([([image(16, 16)],)]))
    torch.testing.assert_close(found.pooled, found.tokens[:, 0])


@pytest.mark.parametrize("name", ["vit", "dinov2", "resnet", "convnext", "clip", "siglip"])
def test_a_saved_backbone_is_a_checkpoint(name: str, tiny_model: Find, tmp_path: Path) -> None:
    first = ImageTransformerEncoder(PHOTO, checkpoint=tiny_model(name)).eval()
    values = [([image(20, 30)],), ([image(9, 9), image(16, 16)],)]
    first.save_backbone(tmp_path)
    second = ImageTransformerEncoder(PHOTO, checkpoint=str(tmp_path)).eval()
    assert second.preparation() == first.preparation()
    expected = first(**first.prepare(values)).pooled
    torch.testing.assert_close(second(**second.prepare(values)).pooled, expected, rtol=0, atol=0)


def test_an_extreme_shape_costs_no_memory(tiny_model: Find) -> None:
    encoder = ImageTransformerEncoder(PHOTO, checkpoint=tiny_model("clip"))
    assert encoder.prepare([([image(1, 60_000)],)])["pixels"].shape == (1, 1, 3, 16, 16)


@pytest.mark.parametrize("make", [ConvnetEncoder, ImageTransformerEncoder])
def test_several_images_are_averaged(make: type, tiny_model: Find) -> None:
    options = {"checkpoint": tiny_model("dinov2")} if make is ImageTransformerEncoder else {"width": 4}
    encoder = make(PHOTO * 2, **options).eval()
    one, two = image(28, 28, 1), image(28, 28, 2)
    values = [([one, two], None), ([one], [two]), ([one], None), (None, [two])]
    with torch.no_grad():
        both, across, first, second = encoder(**encoder.prepare(values)).pooled
    torch.testing.assert_close(both, across)
    torch.testing.assert_close(both, (first + second) / 2)


def test_a_text_model_reads_no_images(tiny_model: Find, tmp_path: Path) -> None:
    AutoModel.from_pretrained(tiny_model("bert")).save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(tiny_model("vit")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="reads no images"):
        ImageTransformerEncoder(PHOTO, checkpoint=str(tmp_path))


@pytest.mark.parametrize(
    ("known", "option", "size"), [(28, None, 28), (None, None, 64), (3000, None, 96), (2, None, 8)]
)
def test_convnet_takes_its_size_from_the_training_images(known: int | None, option: int | None, size: int) -> None:
    encoder = ConvnetEncoder([Column(name="photo", type="image", size=known)], size=option, width=4)
    assert encoder.prepare([([image(5, 7)],)])["pixels"].shape == (1, 1, 3, size, size)
    assert encoder.preparation()["size"] == size


def test_convnet_options_have_their_effect() -> None:
    assert ConvnetEncoder(PHOTO, size=40).size == 40
    assert ConvnetEncoder(PHOTO, width=8).dim == 32
    blocks = [len(ConvnetEncoder(PHOTO, depth=depth).net.blocks) for depth in (1, 2)]
    assert blocks == [3, 6]
    encoder = ConvnetEncoder(PHOTO, width=4, dropout=0.5).train()
    tokens = encoder(**encoder.prepare([([image(28, 28)],)])).tokens
    torch.manual_seed(0)
    assert not tokens.equal(encoder(**encoder.prepare([([image(28, 28)],)])).tokens)


def test_convnet_learns_where_a_stroke_stands() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 60, (256, 8, 8, 3), dtype=np.uint8), rng.integers(0, 4, 256)
    for i, label in enumerate(labels):
        pixels[i, 2 * label : 2 * label + 2] += 120
    encoder = ConvnetEncoder([Column(name="photo", type="image", size=8)], width=8)
    head = torch.nn.Linear(encoder.dim, 4)
    tensors, target = encoder.prepare([([Image.fromarray(p)],) for p in pixels]), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], 3e-3)
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(head(encoder(**tensors).pooled), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert (head(encoder.eval()(**tensors).pooled).argmax(1) == target).float().mean() > 0.95


def test_a_batch_of_one_can_be_trained() -> None:
    encoder = ConvnetEncoder([Column(name="photo", type="image", size=8)], width=4).train()
    encoder(**encoder.prepare([([image(8, 8)],)])).pooled.sum().backward()
