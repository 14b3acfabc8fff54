"""Polyfuse: a preset, and everything else as it comes; the encoder is named by its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peer_systems.worker import System, main

if TYPE_CHECKING:
    import pandas as pd

    import polyfuse as pf


class Polyfuse(System):
    """The variant is the preset."""

    distribution = "polyfuse"
    predictor: pf.Predictor

    def bring_in(self) -> None:
        import polyfuse

        self.pf = polyfuse

    def fit(self) -> None:
        job = self.job
        settings: dict[str, Any] = {"preset": job.variant, "training": {"seed": job.seed}}
        settings["task"] = "classification" if job.classes else "regression"
        plan = self.pf.Predictor(job.target, **settings).plan(job.train)
        modalities = {}
        for name, modality in (plan.recipe.modalities or {}).items():
            found = modality.encoder.name if modality.encoder else None
            encoder: Any = {"name": found, "checkpoint": job.encoder} if found == "transformer" else found
            modalities[name] = {"columns": modality.columns, "encoder": encoder}
        predictor = self.pf.Predictor(job.target, modalities=modalities, **settings)
        predictor.fit(job.train, progress=False).save(job.folder)

    def load(self) -> None:
        self.predictor = self.pf.load(self.job.folder)

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        return self.predictor.answer(table, progress=False).scores


if __name__ == "__main__":
    main(Polyfuse)
