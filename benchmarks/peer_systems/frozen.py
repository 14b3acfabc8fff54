"""A floor: the frozen encoder, mean over its last tokens, beside the table's columns, a linear model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from peer_systems import floors
from peer_systems.worker import System, main


class Frozen(System):
    """The strength of the regularisation is the better one in the table of `text_layers.py`: no test row was seen."""

    distribution = "transformers"
    model: Any

    def bring_in(self) -> None:
        import joblib
        import sklearn.compose
        import sklearn.linear_model  # noqa: F401
        import torch  # noqa: F401
        from transformers import AutoModel, AutoTokenizer

        self.joblib, self.kinds = joblib, (AutoModel, AutoTokenizer)

    def fit(self) -> None:
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        job, folder, table = self.job, Path(self.job.folder), pd.read_csv(self.job.train)
        self._read(job.encoder)
        rows = self._rows(table)
        dims = [name for name in map(str, rows) if name.startswith("text ")]
        columns = ColumnTransformer([*floors.column_steps(job), ("text", StandardScaler(), dims)])
        model = make_pipeline(columns, floors.linear(job, 0.03)).fit(rows, floors.answers(table, job))
        self.encoder.save_pretrained(folder / "encoder")
        self.tokenizer.save_pretrained(folder / "encoder")
        self.joblib.dump(model, folder / "model.joblib")

    def load(self) -> None:
        folder = Path(self.job.folder)
        self._read(str(folder / "encoder"))
        self.model = self.joblib.load(folder / "model.joblib")

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        return floors.linear_scores(self.model, self._rows(table), self.job)

    def _read(self, folder: str) -> None:
        model, tokenizer = self.kinds
        self.encoder, self.tokenizer = model.from_pretrained(folder).eval(), tokenizer.from_pretrained(folder)

    def _rows(self, table: pd.DataFrame) -> pd.DataFrame:
        found: np.ndarray = floors.embedded(
            self.encoder, self.tokenizer, floors.texts(table, self.job), self.job.tokens
        )
        names = [f"text {dim}" for dim in range(found.shape[1])]
        text = pd.DataFrame(found, columns=names, index=table.index)
        return pd.concat([floors.as_columns(table, self.job), text], axis=1)


if __name__ == "__main__":
    main(Frozen)
