"""Draws house.svg from the layers in pyproject.toml.

python docs/house.py
"""

from __future__ import annotations

import tomllib
from pathlib import Path

CAPTIONS = {
    "cli": "commands, their tables and exit codes",
    "testing": "checks of every component",
    "serving": "answers over HTTP, a page, a log",
    "predictor": "the face: fit, predict, evaluate, save, load",
    "reporting": "all that is measured, as JSON and as one page",
    "quality": "doubles, leaks",
    "explanation": "why it answered so",
    "fairness": "for whom it fails",
    "exporting": "ONNX, torch, Hub",
    "calibration": "how sure it may be",
    "study": "recipes tried",
    "robustness": "attacked, certified",
    "refitting": "better, or not at all",
    "artifact": "the saved folder",
    "fitting": "recipe + table → trained",
    "inference": "rows → scores",
    "screening": "rows unlike the others",
    "drift": "tables unlike the others",
    "lineage": "what it leaves to the next",
    "search": "candidates compared",
    "recipe": "the typed description: read, check, complete, build",
    "training": "loop, feature cache, checkpoints, tracking",
    "evaluation": "what is measured: Report, picture",
    "ensemble": "several models on the same Features",
    "model": "encoders, a fusion, a head",
    "attacks": "threats, searches",
    "encoders": "F_i, a file a kind",
    "fusion": "M_O, a file a method",
    "heads": "Y, a file a task",
    "learners": "without gradients",
    "tuning": "which weights move",
    "data": "tables in: types, checks, rows, splits, augmentation",
    "metrics": "numbers with intervals",
    "layers": "building blocks",
    "progress": "bars",
    "core": "types, the contract, registry, errors",
}
FOLDERS = {path.parent.name for path in Path("src/polyfuse").glob("*/__init__.py")}
WIDTH, LEFT, HEIGHT, GAP = 1000, 60, 66, 18


def box(x: float, y: float, width: float, name: str) -> str:
    """Return one room."""
    title = f"{name}/" if name in FOLDERS else f"{name}.py"
    middle = x + width / 2
    return (
        f'  <rect x="{x:g}" y="{y:g}" width="{width:g}" height="{HEIGHT}" rx="8" fill="#eef3f8" stroke="#8fa3b8"/>\n'
        f'  <text x="{middle:g}" y="{y + 28:g}" text-anchor="middle" font-size="17" font-weight="600"'
        f' fill="#1c2733">{title}</text>\n'
        f'  <text x="{middle:g}" y="{y + 48:g}" text-anchor="middle" font-size="{13 if width > 180 else 11}"'
        f' fill="#3c4a59">{CAPTIONS[name]}</text>\n'
    )


def main() -> None:
    """Write the picture."""
    contracts = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    floors = [[name.strip() for name in layer.split("|")] for layer in contracts[0]["layers"]]
    inner, drawn, y = WIDTH - 2 * LEFT, [], 96.0
    for floor in floors:
        width = (inner - GAP * (len(floor) - 1)) / len(floor)
        drawn += [box(LEFT + place * (width + GAP), y, width, name) for place, name in enumerate(floor)]
        y += HEIGHT + GAP
    Path("docs/house.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 12:g}" font-family="sans-serif">\n'
        f'  <rect width="{WIDTH}" height="{y + 12:g}" fill="#ffffff"/>\n'
        f'  <polygon points="{LEFT - 30},84 {WIDTH / 2:g},10 {WIDTH - LEFT + 30},84" fill="#35506b"/>\n'
        f'  <text x="{WIDTH / 2:g}" y="66" text-anchor="middle" font-size="20" font-weight="600"'
        f' fill="#ffffff">import polyfuse as pf</text>\n{"".join(drawn)}</svg>\n'
    )


if __name__ == "__main__":
    main()
