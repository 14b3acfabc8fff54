"""Polyfuse: a preset, and everything else as it comes; the encoder is named by its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peer_systems.worker import System, main

if TYPE_CHECKING:
    import pandas as pd

    from polyfuse import Predictor


class Polyfuse(System):
    """The variant is the preset."""

    distribution = "polyfuse"
    predictor: Predictor

    def bring_in(self) -> None:
        from polyfuse import Predictor, load

        self.kind, self.loading = Predictor, load

    def fit(self) -> None:
        job = self.job
        settings: dict[str, Any] = {"preset": job.variant, "training": {"seed": job.seed}}
        settings["task"] = "classification" if job.classes else "regression"
        plan = self.kind(job.target, **settings).plan(job.train)
        modalities = {}
        for name, modality in (plan.recipe.modalities or {}).items():
            found = modality.encoder.name if modality.encoder else None
            encoder: Any = {"name": found, "checkpoint": job.encoder} if found == "transformer" else found
            modalities[name] = {"columns": modality.columns, "encoder": encoder}
        predictor = self.kind(job.target, modalities=modalities, **settings)
        predictor.fit(job.train, progress=False).save(job.folder)

    def load(self) -> None:
        self.predictor = self.loading(self.job.folder)

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        return self.predictor.answer(table, progress=False).scores


if __name__ == "__main__":
    main(Polyfuse)
