"""Where the inputs of models come from."""

from __future__ import annotations

from collections.abc import Collection

import torch

from polyfuse.core.progress import Progress
from polyfuse.core.types import Features
from polyfuse.data.batches import LazySource, PreparedSource, Source, in_memory
from polyfuse.data.rows import Rows
from polyfuse.ensemble import Ensemble, is_table
from polyfuse.model import FusionModel, Model
from polyfuse.recipe import Built
from polyfuse.search.material import FeatureSource, joined
from polyfuse.training.cache import CachedSource, FeatureCache, HiddenSource

_WINDOW = 256


def cached_sources(
    built: Built,
    rows: Rows,
    cache: FeatureCache,
    device: torch.device,
    progress: Progress,
    *,
    without: Collection[str] = (),
) -> dict[str, Source]:
    """Return what is kept of the modalities whose encoder rests, or its lower part, encoding what is not kept yet.

    Args:
        built: the model.
        rows: whose values.
        cache: where Features are kept.
        device: where the encoders run.
        progress: shows how far it is.
        without: modalities that are not wanted.
    """
    model = built.model
    sources: dict[str, Source] = {}
    for name, encoder in built.cached.items():
        if name in without or name not in model.reads or not any(True for _ in encoder.parameters()):
            continue
        whole = encoder is model.encoder(name)
        source = cache.source(
            encoder,
            rows,
            name,
            tokens=not whole or reads_tokens(model),
            device=device,
            # The part of an encoder that moves runs in the model's precision, and so does what lies below it.
            way=encoder.way or "auto" if whole else model.precision,
            progress=progress,
        )
        if whole:
            encoder.way = source.way
        sources[name] = source if whole else HiddenSource(source)
    return sources


def sources_of(
    built: Built, rows: Rows, cache: FeatureCache, device: torch.device, progress: Progress
) -> dict[str, Source]:
    """Return where the inputs of each modality come from, in the model's order."""
    cached = cached_sources(built, rows, cache, device, progress)
    return {
        name: cached[name] if name in cached else in_memory(built.model.encoder(name), rows, name, progress=progress)
        for name in built.model.modalities
    }


def pooled_sources(
    model: Model, rows: Rows, sources: dict[str, Source], device: torch.device, progress: Progress
) -> dict[str, FeatureSource | PreparedSource]:
    """Return pooled Features of each modality in memory, or prepared tensors of a table.

    Args:
        model: whose encoders, at rest now.
        rows: whose values.
        sources: cached Features where there are some; what is encoded here is added.
        device: where the encoders run.
        progress: shows how far it is.
    """
    found: dict[str, FeatureSource | PreparedSource] = {}
    for name in model.modalities:
        source = sources.get(name)
        if is_table(model.encoder(name)):
            prepared = in_memory(model.encoder(name), rows, name, memory=1 << 40, progress=progress)
            assert isinstance(prepared, PreparedSource)
            sources[name] = found[name] = prepared
        elif isinstance(source, CachedSource):
            found[name] = FeatureSource(Features.of_pooled(source.pooled))
        else:
            sources[name] = encoded = encoded_source(model, rows, name, device, progress)
            found[name] = FeatureSource(Features.of_pooled(encoded.features.pooled))
    return found


def reads_tokens(model: Model) -> bool:
    """Tell whether a model reads all tokens of an encoder at rest, or only the pooled vector."""
    if isinstance(model, Ensemble):
        return any(fusion_model.fusion.needs == "tokens" for fusion_model in model.fusion_models)
    assert isinstance(model, FusionModel)
    return model.fusion.needs == "tokens"


@torch.inference_mode()
def encoded_source(model: Model, rows: Rows, name: str, device: torch.device, progress: Progress) -> FeatureSource:
    """Run an encoder over all rows."""
    model.to(device).eval()
    source = LazySource(model.encoder(name), rows, name)
    parts = []
    with progress.bar(f"Encoding {name}", len(rows)) as bar:
        for start in range(0, len(rows), _WINDOW):
            chunk = range(start, min(start + _WINDOW, len(rows)))
            tensors = {key: tensor.to(device) for key, tensor in source.batch(chunk).items()}
            encoded = model.encode_one(name, tensors, rows.present[list(chunk)].to(device)).to("cpu")
            parts.append(encoded)
            bar.advance(len(chunk))
    return FeatureSource(joined(parts))
