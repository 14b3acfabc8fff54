"""Which layers of a frozen text encoder to read: five folds over training rows of the clothing reviews, no test row.

python benchmarks/text_layers.py DATA
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from measure import about, data_folder, show
from polyfuse.core.compute import autocast, default_device, has_bf16
from polyfuse.core.types import Features
from polyfuse.data.schema import Column
from polyfuse.encoders.transformer import TransformerEncoder

ROWS = 2500


def pooled(table: pd.DataFrame) -> np.ndarray:
    """Return the mean over tokens of each hidden state: (layers + 1, rows, dim), the embedding first."""
    columns = [Column(name=name, type="text") for name in ("Title", "Review Text")]
    encoder = TransformerEncoder(columns).eval()
    cells = table[["Title", "Review Text"]].astype(object).where(lambda frame: frame.notna(), None)
    values = list(cells.itertuples(index=False, name=None))
    order = np.argsort([sum(len(cell or "") for cell in value) for value in values])
    found: dict[int, np.ndarray] = {}
    precision = "bf16" if has_bf16(default_device()) else "float32"
    for part in np.array_split(order, len(order) // 32):
        tensors = encoder.prepare([values[row] for row in part])
        with torch.inference_mode(), autocast(torch.device("cpu"), precision):
            output = encoder.backbone(
                input_ids=tensors["ids"], attention_mask=tensors["mask"].long(), output_hidden_states=True
            )
        means = [Features.of_tokens(state.float(), tensors["mask"]).pooled for state in output.hidden_states]
        for i, row in enumerate(part):
            found[int(row)] = np.stack([mean[i].numpy() for mean in means])
    return np.stack([found[row] for row in range(len(values))], axis=1)


def main() -> None:
    table = pd.read_csv(data_folder("cloth") / "train.csv").iloc[:ROWS]
    about()
    states, target = pooled(table), table["Recommended IND"]
    last = len(states) - 1
    candidates = {f"layer {layer}" if layer else "embedding": [layer] for layer in range(last + 1)}
    candidates |= {f"mean of the last {n}": list(range(last + 1 - n, last + 1)) for n in (2, 3, 4, 5)}
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    rows = []
    for name, layers in candidates.items():
        scores = []
        for strength in (0.003, 0.03):
            model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
            scores.append(cross_val_score(model, states[layers].mean(0), target, cv=folds, scoring="roc_auc").mean())
        rows.append([name, *map(float, scores)])
    show(["read", "ROC AUC, C = 0.003", "ROC AUC, C = 0.03"], rows)


if __name__ == "__main__":
    main()
