"""M_O: the ways to combine the Features of all modalities."""

from __future__ import annotations

from polyfuse.core.contract import Fusion
from polyfuse.core.registry import Registry

FUSIONS: Registry[Fusion] = Registry(
    "fusions",
    {
        "concat": "polyfuse.fusion.concat:ConcatFusion",
        "deep": "polyfuse.fusion.deep:DeepFusion",
        "attention": "polyfuse.fusion.attention:AttentionFusion",
        "gated": "polyfuse.fusion.gated:GatedFusion",
        "tensor": "polyfuse.fusion.tensor:TensorFusion",
        "bottleneck": "polyfuse.fusion.bottleneck:BottleneckFusion",
        "film": "polyfuse.fusion.film:FilmFusion",
        "experts": "polyfuse.fusion.experts:ExpertsFusion",
        "late": "polyfuse.fusion.late:LateFusion",
    },
)
