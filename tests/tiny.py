"""Tiny pretrained models, made from a seed and written with `save_pretrained`: no network, no downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "one", "two", "cat", "dog"]


def _tokenizer(folder: Path, *, wraps: bool, **special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    codes = {word: code for code, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(codes, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if wraps:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", codes["[CLS]"]), ("[SEP]", codes["[SEP]"])]
        )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", **special).save_pretrained(folder)


def _save(model: Any, folder: Path) -> None:
    model.save_pretrained(folder)


def bert(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    _tokenizer(folder, wraps=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    _save(BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=40, **sizes)), folder)


def roberta(folder: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    _tokenizer(folder, wraps=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(vocab_size=len(WORDS), max_position_embeddings=22, pad_token_id=0, **sizes)
    _save(RobertaModel(config, add_pooling_layer=False), folder)


def gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2Model

    _tokenizer(folder, wraps=False, eos_token="</s>")
    _save(GPT2Model(GPT2Config(vocab_size=len(WORDS), n_positions=40, n_embd=16, n_layer=2, n_head=2)), folder)


def t5(folder: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    _tokenizer(folder, wraps=False, pad_token="[PAD]", eos_token="</s>")
    config = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    _save(T5ForConditionalGeneration(config), folder)


def bart(folder: Path) -> None:
    from transformers import BartConfig, BartModel

    _tokenizer(folder, wraps=False, pad_token="[PAD]", eos_token="</s>")
    layers = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 5}
    wide = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 40}
    _save(BartModel(BartConfig(vocab_size=len(WORDS), **layers, **ends, **wide)), folder)


_VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def vit(folder: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    _save(ViTModel(ViTConfig(image_size=16, patch_size=8, **_VISION), add_pooling_layer=False), folder)


def dinov2(folder: Path) -> None:
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    sizes: dict[str, Any] = {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    BitImageProcessorPil(**sizes, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    config = Dinov2Config(image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
    _save(Dinov2Model(config), folder)


def resnet(folder: Path) -> None:
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    ConvNextImageProcessorPil(size={"shortest_edge": 28}, crop_pct=0.875).save_pretrained(folder)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    _save(ResNetModel(ResNetConfig(**sizes)), folder)


def convnext(folder: Path) -> None:
    from transformers import ConvNextConfig, ConvNextImageProcessorPil, ConvNextModel

    ConvNextImageProcessorPil(size={"shortest_edge": 28}, crop_pct=0.875).save_pretrained(folder)
    _save(ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)), folder)


def clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    _tokenizer(folder, wraps=True, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    text = {**_VISION, "vocab_size": len(WORDS), "max_position_embeddings": 40, "eos_token_id": 3}
    _save(CLIPModel(CLIPConfig(text_config=text, vision_config={**_VISION, "image_size": 16, "patch_size": 8})), folder)


def siglip(folder: Path) -> None:
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    SiglipImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    text = {**_VISION, "vocab_size": len(WORDS), "max_position_embeddings": 40}
    both = {"text_config": text, "vision_config": {**_VISION, "image_size": 16, "patch_size": 8}}
    _save(SiglipModel(SiglipConfig(**both)), folder)


_AUDIO: dict[str, Any] = {
    **_VISION,
    "vocab_size": 8,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 4],
    "conv_stride": [5, 4],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}


def wav2vec2(folder: Path, norm: str = "group") -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer").save_pretrained(folder)
    _save(Wav2Vec2Model(Wav2Vec2Config(**_AUDIO, feat_extract_norm=norm, conv_bias=norm == "layer")), folder)


def wav2vec2_layer(folder: Path) -> None:
    wav2vec2(folder, norm="layer")


def hubert(folder: Path) -> None:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    _save(HubertModel(HubertConfig(**_AUDIO)), folder)


def whisper(folder: Path) -> None:
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    WhisperFeatureExtractor(feature_size=20, chunk_length=1).save_pretrained(folder)
    layers = {"encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    wide = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 20}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(vocab_size=8, max_source_positions=50, max_target_positions=8, **layers, **wide, **ends)
    _save(WhisperForConditionalGeneration(config), folder)


def ast(folder: Path) -> None:
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    ASTFeatureExtractor(num_mel_bins=32, max_length=64).save_pretrained(folder)
    _save(ASTModel(ASTConfig(**_VISION, num_mel_bins=32, max_length=64)), folder)


TEXT: dict[str, Callable[[Path], None]] = {
    "bert": bert,
    "roberta": roberta,
    "gpt2": gpt2,
    "t5": t5,
    "bart": bart,
    "clip": clip,
}
IMAGE: dict[str, Callable[[Path], None]] = {
    "vit": vit,
    "dinov2": dinov2,
    "resnet": resnet,
    "convnext": convnext,
    "clip": clip,
    "siglip": siglip,
}
AUDIO: dict[str, Callable[[Path], None]] = {
    "wav2vec2": wav2vec2,
    "wav2vec2_layer": wav2vec2_layer,
    "hubert": hubert,
    "whisper": whisper,
    "ast": ast,
}


def write(name: str, folder: Path) -> Path:
    """Write the model of this name to a folder and return the folder."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        {**TEXT, **IMAGE, **AUDIO}[name](folder)
    return folder
