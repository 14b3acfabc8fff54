"""A floor: TF-IDF of the words, beside the table's columns, a linear model; scikit-learn alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from peer_systems import floors
from peer_systems.worker import System, main


class Tfidf(System):
    """The settings are those of `cloth.py`."""

    distribution = "scikit-learn"
    model: Any

    def bring_in(self) -> None:
        import joblib
        import sklearn.compose
        import sklearn.feature_extraction.text
        import sklearn.linear_model  # noqa: F401

        self.joblib = joblib

    def fit(self) -> None:
        from sklearn.compose import ColumnTransformer
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline

        job, table = self.job, pd.read_csv(self.job.train)
        words = ("words", TfidfVectorizer(sublinear_tf=True, min_df=2), "all text")
        columns = ColumnTransformer([*floors.column_steps(job), *([words] if job.of("text") else [])])
        model = make_pipeline(columns, floors.linear(job, 3.0)).fit(self._rows(table), floors.answers(table, job))
        Path(job.folder).mkdir()
        self.joblib.dump(model, Path(job.folder) / "model.joblib")

    def load(self) -> None:
        self.model = self.joblib.load(Path(self.job.folder) / "model.joblib")

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        return floors.linear_scores(self.model, self._rows(table), self.job)

    def _rows(self, table: pd.DataFrame) -> pd.DataFrame:
        rows = floors.as_columns(table, self.job)
        return rows.assign(**{"all text": floors.texts(table, self.job)}) if self.job.of("text") else rows


if __name__ == "__main__":
    main(Tfidf)
