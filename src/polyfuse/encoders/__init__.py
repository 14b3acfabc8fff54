"""F_i: what turns the values of one modality into Features."""

from __future__ import annotations

from collections.abc import Collection

from polyfuse.core.contract import Encoder
from polyfuse.core.errors import InputError
from polyfuse.core.registry import Registry
from polyfuse.data.schema import ColumnType

ENCODERS: Registry[Encoder] = Registry(
    "encoders",
    {
        "transformer": "polyfuse.encoders.transformer:TransformerEncoder",
        "image_transformer": "polyfuse.encoders.image_transformer:ImageTransformerEncoder",
        "convnet": "polyfuse.encoders.convnet:ConvnetEncoder",
        "audio_transformer": "polyfuse.encoders.audio_transformer:AudioTransformerEncoder",
        "mel_convnet": "polyfuse.encoders.mel_convnet:MelConvnetEncoder",
        "pointnet": "polyfuse.encoders.pointnet:PointNetEncoder",
        "ft_transformer": "polyfuse.encoders.ft_transformer:FTTransformerEncoder",
        "mlp": "polyfuse.encoders.mlp:MLPEncoder",
        "embedding": "polyfuse.encoders.embedding:EmbeddingEncoder",
    },
)

_DEFAULTS: dict[ColumnType, str] = {
    "text": "transformer",
    "image": "convnet",
    "audio": "mel_convnet",
    "points": "pointnet",
    "number": "mlp",
    "category": "mlp",
    "datetime": "mlp",
    "embedding": "embedding",
}


def default_encoder(types: Collection[ColumnType]) -> str:
    """Return the name of the encoder for columns of these types, when none is chosen.

    Raises:
        InputError: no encoder reads all of them together.

    >>> default_encoder({"number", "category"})
    'mlp'
    """
    names = {_DEFAULTS[type] for type in types}
    if len(names) != 1:
        listed = ", ".join(sorted(types)) or "no columns"
        raise InputError(f"no encoder reads {listed} together: give each its own modality, or name an encoder")
    return names.pop()
