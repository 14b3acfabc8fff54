"""Ludwig: a frozen encoder, its embeddings computed once before the training; the trainer is as it comes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peer_systems.job import as_label
from peer_systems.vision import declare_operators
from peer_systems.worker import System, main

if TYPE_CHECKING:
    import pandas as pd


class Ludwig(System):
    """Columns are declared with the types that Polyfuse infers: Ludwig takes none from a CSV by itself.

    No rows are kept aside for a test of its own, which by default would be a fifth.
    """

    distribution = "ludwig"
    model: Any

    def bring_in(self) -> None:
        note = declare_operators()
        from ludwig.api import LudwigModel

        self.kind = LudwigModel
        self.notes += [note] if note else []
        self.notes.append("with its embeddings cached for the training, it reads the encoder anew at every prediction")

    def fit(self) -> None:
        import pandas as pd

        job, runs = self.job, Path(self.job.folder).with_suffix(".runs")
        model = self.kind(self._config(), backend="local")
        table = pd.read_csv(job.train)
        model.train(
            dataset=self._read(table),
            output_directory=str(runs),
            random_seed=job.seed,
            skip_save_processed_input=True,
            skip_save_log=True,
        )
        model.save(job.folder)
        shutil.rmtree(runs, ignore_errors=True)

    def load(self) -> None:
        self.model = self.kind.load(self.job.folder, backend="local")

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        job = self.job
        answers: pd.DataFrame = self.model.predict(dataset=self._read(table), skip_save_predictions=True)[0]
        if not job.classes:
            return answers[[f"{job.target}_predictions"]]
        named = {f"{job.target}_probabilities_{label}": label for label in job.classes}
        return answers[list(named)].rename(columns=named)

    def _read(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table with labels and categories as text."""
        made = table.copy()
        for name in self.job.of("category"):
            made[name] = made[name].map(as_label, na_action="ignore").astype(object)
        if self.job.classes and self.job.target in made:
            made[self.job.target] = made[self.job.target].map(as_label).astype(object)
        return made

    def _config(self) -> dict[str, Any]:
        job = self.job
        encoder = {
            "type": "auto_transformer",
            "pretrained_model_name_or_path": job.encoder,
            "trainable": False,
            "reduce_output": "mean",
        }
        preparation = {
            "max_sequence_length": job.tokens,
            "cache_encoder_embeddings": True,
            "missing_value_strategy": "fill_with_const",
            "fill_value": "",
        }
        inputs: list[dict[str, Any]] = [
            {"name": name, "type": "text", "encoder": encoder, "preprocessing": preparation} for name in job.of("text")
        ]
        inputs += [{"name": name, "type": "category"} for name in job.of("category")]
        missing = {"missing_value_strategy": "fill_with_mean", "normalization": "zscore"}
        inputs += [{"name": name, "type": "number", "preprocessing": missing} for name in job.of("number")]
        return {
            "input_features": inputs,
            "output_features": [{"name": job.target, "type": "category" if job.classes else "number"}],
            "preprocessing": {"split": {"type": "random", "probabilities": [0.9, 0.1, 0.0]}},
        }


if __name__ == "__main__":
    main(Ludwig)
