"""What the floors share: the text of a row, the columns of its table, a linear model, a plain encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from peer_systems.job import Job, as_label

if TYPE_CHECKING:
    import numpy as np
    import torch

BATCH = 32


def texts(table: pd.DataFrame, job: Job) -> list[str]:
    """Return all text of each row, joined by a blank."""
    if not job.of("text"):
        raise ValueError("this floor reads text, and the table has no column of text")
    parts = table[job.of("text")].fillna("").astype(str)
    return [" ".join(filter(None, row)) for row in parts.itertuples(index=False, name=None)]


def as_columns(table: pd.DataFrame, job: Job) -> pd.DataFrame:
    """Return numbers as numbers, and categories as text, "" where one is missing."""
    made = {name: pd.to_numeric(table[name], errors="coerce") for name in job.of("number")}
    made |= {name: table[name].map(as_label, na_action="ignore").fillna("") for name in job.of("category")}
    return pd.DataFrame(made, index=table.index)


def column_steps(job: Job) -> list[tuple[str, Any, list[str]]]:
    """Return what a ColumnTransformer does with the table's columns."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    steps: list[tuple[str, Any, list[str]]] = []
    if job.of("number"):
        numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
        steps.append(("numbers", numbers, job.of("number")))
    if job.of("category"):
        categories = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=5)
        steps.append(("categories", categories, job.of("category")))
    return steps


def linear(job: Job, strength: float) -> Any:
    """Return a logistic regression; of a regression, a ridge. strength: inverse of the regularisation."""
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(C=strength, max_iter=2000) if job.classes else Ridge(alpha=1 / strength)


def answers(table: pd.DataFrame, job: Job) -> pd.Series:
    """Return the target: labels as text, or numbers."""
    column = table[job.target]
    return column.map(as_label) if job.classes else column.astype(float)


def linear_scores(model: Any, rows: Any, job: Job) -> pd.DataFrame:
    """Return what a linear model says of rows."""
    if job.classes:
        return pd.DataFrame(model.predict_proba(rows), columns=list(model.classes_))
    return pd.DataFrame({job.target: model.predict(rows)})


def mean_pooled(model: Any, tokenizer: Any, some: list[str], tokens: int) -> torch.Tensor:
    """Return the mean over the tokens of each text: (texts, dim)."""
    inputs = tokenizer(some, truncation=True, max_length=tokens, padding=True, return_tensors="pt")
    hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    pooled: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
    return pooled


def embedded(model: Any, tokenizer: Any, some: list[str], tokens: int) -> np.ndarray:
    """Return `mean_pooled` of any number of texts, in batches of about equal length: (texts, dim)."""
    import numpy as np
    import torch

    order = sorted(range(len(some)), key=lambda row: len(some[row]))
    made = np.empty((len(some), model.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            made[part] = mean_pooled(model, tokenizer, [some[row] for row in part], tokens).numpy()
    return made
