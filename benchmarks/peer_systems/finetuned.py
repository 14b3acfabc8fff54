"""A floor: a plain torch loop, the whole encoder fine-tuned below a linear head on its pooled text; no table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from peer_systems import floors
from peer_systems.worker import System, main

if TYPE_CHECKING:
    import torch

RATE = 3e-5
HEAD_RATE = 1e-3
DECAY = 0.01
WARM_UP = 0.1


class Finetuned(System):
    """AdamW, a linear warm-up and decay, batches of 32, float32; the last epoch is kept, no rows are held out."""

    distribution = "torch"
    centre: tuple[float, float] = (0.0, 1.0)

    def bring_in(self) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.torch, self.kinds = torch, (AutoModel, AutoTokenizer)

    def fit(self) -> None:
        from safetensors.torch import save_file

        job, folder, table = self.job, Path(self.job.folder), pd.read_csv(self.job.train)
        self.torch.manual_seed(job.seed)
        self._read(job.encoder)
        self._train(floors.texts(table, job), self._targets(table))
        self.encoder.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        centre = self.torch.tensor(self.centre, dtype=self.torch.float64)
        save_file({**self.head.state_dict(), "centre": centre}, folder / "head.safetensors")

    def load(self) -> None:
        from safetensors.torch import load_file

        self._read(self.job.folder)
        weights = load_file(Path(self.job.folder) / "head.safetensors")
        mean, std = weights.pop("centre").tolist()
        self.centre = (mean, std)
        self.head.load_state_dict(weights)

    def scores(self, table: pd.DataFrame) -> pd.DataFrame:
        torch, job = self.torch, self.job
        pooled = floors.embedded(self.encoder.eval(), self.tokenizer, floors.texts(table, job), job.tokens)
        with torch.inference_mode():
            found = self.head(torch.from_numpy(pooled))
        if job.classes:
            return pd.DataFrame(found.softmax(1).numpy(), columns=job.classes)
        mean, std = self.centre
        return pd.DataFrame({job.target: found[:, 0].numpy() * std + mean})

    def _read(self, folder: str) -> None:
        model, tokenizer = self.kinds
        self.encoder, self.tokenizer = model.from_pretrained(folder), tokenizer.from_pretrained(folder)
        self.head = self.torch.nn.Linear(self.encoder.config.hidden_size, max(1, len(self.job.classes)))

    def _targets(self, table: pd.DataFrame) -> torch.Tensor:
        found = floors.answers(table, self.job)
        if self.job.classes:
            return self.torch.tensor([self.job.classes.index(label) for label in found])
        self.centre = (float(found.mean()), float(found.std()) or 1.0)
        return self.torch.tensor(((found - self.centre[0]) / self.centre[1]).to_numpy(), dtype=self.torch.float32)

    def _train(self, some: list[str], targets: torch.Tensor) -> None:
        torch, job = self.torch, self.job
        groups: list[dict[str, Any]] = [
            {"params": self.encoder.parameters(), "lr": RATE},
            {"params": self.head.parameters(), "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=DECAY)
        steps = job.epochs * -(-len(some) // floors.BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (WARM_UP * steps + 1), (steps - step) / ((1 - WARM_UP) * steps))
        )
        loss = torch.nn.functional.cross_entropy if job.classes else torch.nn.functional.mse_loss
        self.encoder.train()
        for _ in range(job.epochs):
            for part in torch.randperm(len(some)).split(floors.BATCH):
                rows = part.tolist()
                pooled = floors.mean_pooled(self.encoder, self.tokenizer, [some[row] for row in rows], job.tokens)
                found = self.head(pooled)
                loss(found if job.classes else found[:, 0], targets[part]).backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    main(Finetuned)
