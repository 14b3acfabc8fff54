"""Two processes, started for real: they end with the weights of one process that has the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import polyfuse as pf
from polyfuse.core import processes
from polyfuse.training.chance import drawn_for, hidden
from polyfuse.training.parallel import part_of, spread

WORDS = ["one", "two", "cat", "dog", "a", "b"]


def table(rows: int) -> pd.DataFrame:
    """Return a class that the word and the number tell together."""
    drawn = np.random.default_rng(0)
    words, number = drawn.choice(WORDS, (rows, 5)), drawn.normal(size=rows)
    answer = (words == "cat").any(1).astype(int) + (number > 0)
    text = [" ".join(line[: 1 + i % 5]) for i, line in enumerate(words)]
    return pd.DataFrame({"text": text, "number": np.where(drawn.random(rows) < 0.1, np.nan, number), "y": answer})


def start(*arguments: object, count: int, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run Python in some processes that torchrun starts, and return what they printed on standard error."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*(launcher if count > 1 else [sys.executable]), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=240, env={**os.environ, **(environment or {})}
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def recipe(model: str, **training: Any) -> dict[str, Any]:
    """Return a recipe without dropout: what a process drops of its own rows is its own."""
    settings = {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": "sgd",
        "learning_rate": 0.03,
        "precision": "float32",
        "trackers": [],
    }
    return {
        "target": "y",
        "modalities": {
            "text": {"columns": ["text"], "encoder": {"name": "transformer", "checkpoint": model}},
            "table": {"columns": ["number"], "encoder": {"name": "mlp", "dropout": 0}},
        },
        "fusion": {"name": "concat", "dropout": 0},
        "head": {"name": "classification", "dropout": 0},
        "tuning": {"text": "full"},
        "training": {**settings, "trackers": [], **training},
    }


@pytest.fixture
def model(tiny_model: Callable[[str], str], tmp_path: Path) -> str:
    """Return the folder of a tiny encoder without dropout."""
    folder = tmp_path / "bert"
    folder.mkdir()
    for file in Path(tiny_model("bert")).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def fit(folder: Path, name: str, described: Mapping[str, Any], *, count: int, rows: int = 90) -> pf.Predictor:
    table(rows).to_parquet(folder / "train.parquet")
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(dict(described)))
    start("-m", "polyfuse", "fit", "train.parquet", "-r", f"{name}.yaml", "-o", name, count=count, cwd=folder)
    return pf.load(folder / name)


def weights(predictor: pf.Predictor) -> dict[str, Tensor]:
    return {name: weight for name, weight in predictor.model.state_dict().items() if weight.is_floating_point()}


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_end_with_the_weights_of_one_with_twice_the_batch(
    tmp_path: Path, model: str, sharding: str
) -> None:
    two = fit(tmp_path, "two", recipe(model, sharding=sharding, accumulate=2), count=2)
    one = fit(tmp_path, "one", recipe(model, batch_size=16, accumulate=2), count=1)
    other = fit(tmp_path, "other", recipe(model, accumulate=2), count=1)
    expected, found = weights(one), weights(two)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    # What the processes would end with if their gradients did not meet is far from that.
    apart = [float((weights(other)[name] - weight).abs().max()) for name, weight in expected.items()]
    assert max(apart) > 1e-3
    losses = [[epoch["loss"] for epoch in each.metrics["training"]["history"]] for each in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    validation = [each.metrics["validation"]["metrics"]["log_loss"]["value"] for each in (one, two)]
    assert validation[0] == pytest.approx(validation[1], rel=1e-4)


def test_the_best_way_to_combine_is_found_by_two(tmp_path: Path, model: str) -> None:
    described = {**recipe(model, epochs=1), "preset": "best", "tuning": {"text": "lora"}, "fusion": "auto"}
    del described["head"]
    cache = tmp_path / "cache"
    table(160).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "best.yaml").write_text(yaml.safe_dump(described))
    told = start(
        "-m", "polyfuse", "fit", "train.parquet", "-r", "best.yaml", "-o", "best",
        count=2, cwd=tmp_path, environment={"POLYFUSE_CACHE": str(cache)},
    )  # fmt: skip
    assert " ".join(told.split()).count("then at most") == 1  # of two, one speaks
    predictor = pf.load(tmp_path / "best")
    assert any(line["folds"] for line in predictor.metrics["comparison"]["candidates"])
    assert "trained as a whole" in predictor.metrics["comparison"]["reason"]
    # Each value went through the encoder once, in one of the two processes.
    digests = [load_file(path)["digests"] for path in cache.glob("*/*.safetensors")]
    assert len(digests) > 1
    assert len(torch.cat(digests)) == len(torch.cat(digests).unique(dim=0)) > 50


SCRIPT = """
import sys, pandas as pd, polyfuse as pf, torch
from polyfuse.core import processes
from polyfuse.core.errors import InputError

table, out = pd.read_parquet(sys.argv[1]), sys.argv[2]
try:
    pf.Predictor("y").fit(table, progress=False)
    raise SystemExit("fitted without a place to meet")
except InputError as error:
    assert "out" in str(error), error
predictor = pf.Predictor(recipe=sys.argv[3]).fit(table, out=out, progress=False)
# What was asked for is the same in each, so they can fit again together.
predictor.fit(table, out=out, overwrite=True, progress=False)
answers = predictor.predict(table).tolist()
every = processes.gathered(answers)
assert len(every) == 2 and every[0] == every[1], every
assert processes.total(torch.tensor([1.0, float(processes.rank())])).tolist() == [2.0, 1.0]
processes.wait()
"""


def test_each_process_has_the_model_in_the_end(tmp_path: Path, model: str) -> None:
    table(60).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(model, epochs=1, trackers=["tensorboard"])))
    (tmp_path / "script.py").write_text(SCRIPT)
    start("script.py", "train.parquet", "out", "r.yaml", count=2, cwd=tmp_path)


KILLED = """
import sys, pandas as pd, polyfuse as pf, torch
from polyfuse.training.loop import Trainer

table, recipe = pd.read_parquet(sys.argv[1]), sys.argv[2]
whole = pf.Predictor(recipe=recipe).fit(table, out="whole", progress=False)
update, done = Trainer._update, []

def killed(trainer):
    update(trainer)
    done.append(1)
    if len(done) == 8:
        raise RuntimeError("killed")

Trainer._update = killed
try:
    pf.Predictor(recipe=recipe).fit(table, out="parted", progress=False)
    raise SystemExit("it was not killed")
except RuntimeError:
    Trainer._update = update
parted = pf.Predictor(recipe=recipe).fit(table, out="parted", resume=True, progress=False)
assert len(done) == 8 and len(parted.metrics["training"]["history"]) == 3
for name, weight in whole.model.state_dict().items():
    torch.testing.assert_close(parted.model.state_dict()[name], weight, rtol=1e-5, atol=1e-7, msg=name)
"""


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_killed_they_go_on_as_if_never_stopped(tmp_path: Path, model: str, sharding: str) -> None:
    described = recipe(model, epochs=3, optimizer="adamw", learning_rate=1e-3, sharding=sharding, checkpoint_every=3)
    table(90).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(described))
    (tmp_path / "killed.py").write_text(KILLED)
    start("killed.py", "train.parquet", "r.yaml", count=2, cwd=tmp_path)


def test_what_does_not_go_with_shards_is_refused(tmp_path: Path, model: str) -> None:
    described = {**recipe(model, sharding="full"), "tuning": {"text": "adalora"}}
    table(60).to_parquet(tmp_path / "train.parquet")
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(AssertionError, match=r"training\.sharding: full does not go with the tuning"):
        start("-m", "polyfuse", "fit", "train.parquet", "-r", "r.yaml", "-o", "out", count=2, cwd=tmp_path)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_are_shared_out_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch, count: int, parts: int) -> None:
    monkeypatch.setattr(processes, "count", lambda: count)
    done: dict[int, list[int]] = {}

    def go(rank: int) -> list[int]:
        monkeypatch.setattr(processes, "rank", lambda: rank)
        monkeypatch.setattr(processes, "gathered", lambda made: [done.setdefault(rank, made), *[made] * (count - 1)])
        spread(lambda some: [10 * part for part in some], range(parts))
        monkeypatch.setattr(processes, "gathered", lambda made: [done.get(each, made) for each in range(count)])
        return spread(lambda some: [10 * part for part in some], range(parts))

    for rank in range(count):
        found = go(rank)
    assert found == [10 * part for part in range(parts)]
    assert len({len(made) for made in done.values()}) == 1


def test_rows_of_a_batch_are_hidden_alike_however_many_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    present = torch.ones(7, 3, dtype=torch.bool)
    whole = hidden(present, 0.5, drawn_for(1, 2), 7)
    for count in (2, 3, 9):
        monkeypatch.setattr(processes, "count", lambda: count)  # noqa: B023
        seen = torch.zeros(7, dtype=torch.long)
        for rank in range(count):
            monkeypatch.setattr(processes, "rank", lambda: rank)  # noqa: B023
            rows, counted = part_of(range(7))
            assert torch.equal(hidden(present[rows], 0.5, drawn_for(1, 2), 7), whole[rows])
            seen[rows[:counted]] += 1
        assert seen.tolist() == [1] * 7
