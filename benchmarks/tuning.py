"""How pretrained layers are best tuned in little time: on training rows of the clothing reviews only.

python benchmarks/tuning.py DATA

A model is fitted on 3,200 rows with each tuning, beside `preset: fast`; 800 other rows of the training table are
scored, by each and by its mean with `fast`. What `preset: best` does was chosen by this table.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score

import polyfuse as pf
from measure import about, cost, data_folder, empty_cache, show

TARGET = "Recommended IND"
TUNINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "last 2, 5e-5, 3 epochs of 64": ({"name": "last", "layers": 2, "learning_rate": 5e-5}, {"epochs": 3}),
    "last 3, 1e-4, 3 epochs of 64": ({"name": "last", "layers": 3, "learning_rate": 1e-4}, {"epochs": 3}),
    "last 3, 1e-4, 2 epochs of 32": ({"name": "last", "layers": 3, "learning_rate": 1e-4}, {"batch_size": 32}),
    "last 3, 2e-4, 2 epochs of 32": ({"name": "last", "layers": 3, "learning_rate": 2e-4}, {"batch_size": 32}),
    "last 4, 1e-4, 2 epochs of 32": ({"name": "last", "layers": 4, "learning_rate": 1e-4}, {"batch_size": 32}),
    "full, 2 epochs of 32": ({"name": "full"}, {"batch_size": 32}),
}


def main() -> None:
    table = pd.read_csv(data_folder("cloth") / "train.csv").sample(frac=1, random_state=1).reset_index(drop=True)
    train, held = table[:3200], table[3200:]
    truth = held[TARGET].to_numpy()
    about()
    rows: list[list[object]] = []
    settings: dict[str, Any] = {"columns": {"Rating": "ignore"}, "augmentation": "none"}
    with empty_cache():
        with cost() as fit:
            base = pf.Predictor(TARGET, preset="fast", **settings).fit(train, progress=False)
        fast = base.predict_proba(held).to_numpy()[:, 1]
        rows.append(["fast", roc_auc_score(truth, fast), log_loss(truth, fast), "", "", fit.wall, fit.cpu])
        for name, (tuning, training) in TUNINGS.items():
            chosen = {"epochs": 2, "metric": "log_loss", "trackers": [], **training}
            with cost() as fit:
                predictor = pf.Predictor(
                    TARGET, fusion="concat", tuning={"text": tuning}, training=chosen, **settings
                ).fit(train, progress=False)
            score = predictor.predict_proba(held).to_numpy()[:, 1]
            mean = (score + fast) / 2
            figures = [metric(truth, some) for some in (score, mean) for metric in (roc_auc_score, log_loss)]
            rows.append([name, *figures, fit.wall, fit.cpu])
    mixed = ["ROC AUC of the mean with fast", "its log loss"]
    show(["tuning", "ROC AUC", "log loss", *mixed, "fit wall s", "fit CPU s"], rows)


if __name__ == "__main__":
    main()
