"""Clothing reviews, text and table: ROC AUC of the presets beside TF-IDF, the cost of a fit, and of a second one.

python benchmarks/cloth.py DATA [PRESET …]
"""

from __future__ import annotations

import sys
import time

import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import polyfuse as pf
from measure import Stages, about, cost, data_folder, empty_cache, peak_mb, show
from polyfuse.fusion import FUSIONS

TARGET = "Recommended IND"


def baseline(train: pd.DataFrame, test: pd.DataFrame) -> list[object]:
    """TF-IDF of all text, one-hot categories and scaled numbers, logistic regression."""
    made = [table.copy() for table in (train, test)]
    for table in made:
        table["text"] = table["Title"].fillna("") + " " + table["Review Text"].fillna("")
    columns = make_column_transformer(
        (TfidfVectorizer(sublinear_tf=True, min_df=2), "text"),
        (OneHotEncoder(handle_unknown="ignore"), ["Division Name", "Department Name", "Class Name"]),
        (StandardScaler(), ["Age", "Positive Feedback Count"]),
    )
    with cost() as fit:
        model = make_pipeline(columns, LogisticRegression(max_iter=2000, C=3)).fit(made[0], train[TARGET])
    score = model.predict_proba(made[1])[:, 1]
    return [
        "TF-IDF + table, logistic regression",
        roc_auc_score(test[TARGET], score),
        "",
        accuracy_score(test[TARGET], score > 0.5),
        fit.wall,
        fit.cpu,
        "",
    ]


def component(combine: str | dict[str, object]) -> object:
    """Return the name of a candidate's component."""
    return combine["name"] if isinstance(combine, dict) else combine


def main() -> None:
    folder = data_folder("cloth")
    about()
    train, test = (pd.read_csv(folder / f"{part}.csv") for part in ("train", "test"))
    rows = [baseline(train, test)]
    told = []
    for preset in sys.argv[2:] or ("fast", "balanced", "best"):
        with empty_cache():
            predictor = pf.Predictor(TARGET, columns={"Rating": "ignore"}, preset=preset)
            stages = Stages()
            with cost() as fit:
                predictor.fit(train, progress=stages)
            report = predictor.evaluate(test)
            with cost() as again:
                pf.Predictor(TARGET, columns={"Rating": "ignore"}, preset=preset).fit(train, progress=False)
            begun = time.perf_counter()
            for _ in range(20):
                predictor.predict(test.iloc[:1])
            row_ms = (time.perf_counter() - begun) / 20 * 1000
        auc = report.intervals["roc_auc"]
        shown = [auc.value, f"{auc.low:.3f} to {auc.high:.3f}", report["accuracy"], fit.wall, fit.cpu]
        rows.append([preset, *shown, again.wall / fit.wall])
        found = predictor.metrics["comparison"]
        encoding, comparing = stages.seconds["Encoding text"], stages.seconds["Comparing"]
        told.append(
            f"{preset}: compared in {comparing:.1f} s, {comparing / encoding:.2f} of the {encoding:.1f} s of the text"
            f" encoder's pass; one row {row_ms:.0f} ms"
        )
        fusions = [line for line in found["candidates"] if component(line["spec"]["combine"]) in FUSIONS]
        named = {line["candidate"]: line["seconds"] for line in fusions if line["rows"]}
        left = [line["candidate"] for line in fusions if not line["rows"]]
        told.append(
            f"  {len(named)} fusions of them {sum(named.values()):.1f} s; not measured: {', '.join(left) or 'none'}"
        )
        told.append(f"  {found['reason']}")
    headings = ["model", "ROC AUC", "95 %", "accuracy", "fit wall s", "fit CPU s", "second fit, of the first"]
    show(headings, rows)
    print("\n".join(told))
    print(f"peak memory {peak_mb():.0f} MB")


if __name__ == "__main__":
    main()
