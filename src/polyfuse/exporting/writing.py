"""The exported folder: written whole, checked against the model before it takes its place, or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polyfuse.calibration import Calibration
from polyfuse.core.errors import InputError
from polyfuse.core.files import check_folder, whole_folder
from polyfuse.core.onnx import need_onnx
from polyfuse.core.version import __version__
from polyfuse.data.reading import Table, read_table
from polyfuse.data.rows import Rows, read_rows
from polyfuse.data.schema import Schema
from polyfuse.exporting.checking import MOST, TOLERANCE, TOLERANCE_INT8, Difference, check_same, measure, write_lines
from polyfuse.exporting.describing import check_portable, describe
from polyfuse.exporting.examples import example_cell, example_rows
from polyfuse.exporting.graph import read_by_graph, write_graph
from polyfuse.exporting.report import ExportReport, To
from polyfuse.model import Model
from polyfuse_runner.runner import FORMAT

ABOUT = "preparation.json"
_GRAPHS = {"onnx": "model.onnx", "torch": "model.pt2"}
_RUNNER = "polyfuse_runner"
_EXAMPLES = 64  # rows made from the schema, where there are no others
_SHOWN = 3  # of them, to try the folder with


def export(
    model: Model,
    schema: Schema,
    calibration: Calibration | None,
    folder: Path,
    *,
    to: To,
    strict: bool,
    device: torch.device,
    int8: bool = False,
    check: Table | None = None,
    tolerance: float | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write a model as a graph with all that is needed to run it without polyfuse, checked on rows.

    Args:
        model: at rest.
        schema: of its training table.
        calibration: of its scores.
        folder: where to.
        to: "onnx", which runs without torch, or "torch".
        strict: whether cells that cannot be read are an error; else they are taken for missing.
        device: where the model is.
        int8: quantise the weights of an ONNX graph.
        check: rows that are answered both ways; made from the schema when left out.
        tolerance: what the largest difference may be.
        overwrite: replace an export that stands there.

    Raises:
        NotExportable: a component cannot be exported; nothing is written.
        NotTheSame: the answers differ by more than the tolerance; nothing is written.
        InputError: the folder is taken, or the call is wrong.
    """
    begun = time.monotonic()
    if int8 and to != "onnx":
        raise InputError(f"int8 weights are for ONNX, and this export is to {to!r}; leave one of them out")
    check_free(folder, overwrite=overwrite)
    if to == "onnx":
        need_onnx("export to onnx")
    check_portable(model)
    table, rows, made = _rows(schema, check, strict=strict)
    with whole_folder(folder) as new:
        about: dict[str, Any] = {"format": FORMAT, "polyfuse": __version__, "strict": strict, "graph": None}
        about |= describe(model, schema, calibration, new)
        if read_by_graph(model):
            about["graph"] = _write_graph(model, schema, new, to=to, int8=int8)
        _copy_runner(new)
        about["files"] = _files(new)
        _write_about(new, about)
        difference = measure(
            new,
            model,
            rows,
            table,
            schema,
            calibration,
            tolerance=tolerance if tolerance is not None else TOLERANCE_INT8 if int8 else TOLERANCE,
            made=made,
            device=device,
        )
        check_same(model, difference)
        _write_about(new, {**about, "checked": difference.data()})
        shown = read_table(example_rows(schema, _SHOWN))
        write_lines(read_rows(shown, schema, training=False), new / "example.jsonl")
        (new / "README.md").write_text(_readme(about, difference, to), encoding="utf-8")
        sizes = {path.relative_to(new).as_posix(): path.stat().st_size for path in new.rglob("*") if path.is_file()}
    return ExportReport(folder, to, int8, dict(sorted(sizes.items())), time.monotonic() - begun, difference)


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Check that an export may be written to a folder; nothing but an export is ever replaced.

    Raises:
        InputError: something else stands there, or an export that is not to be replaced.
    """
    check_folder(folder, "export", ABOUT, overwrite=overwrite)


def _rows(schema: Schema, check: Table | None, *, strict: bool) -> tuple[Table, Rows, bool]:
    """Return the rows to be compared, the table that they stand in, and whether they were made from the schema."""
    table = read_table(example_rows(schema, _EXAMPLES)) if check is None else check
    rows = read_rows(table, schema, training=False, on_bad_row="raise" if strict else "absent")
    if len(rows) == 0:
        raise InputError(f"check: {table.name} has no rows to compare answers on; give others, or leave check out")
    if len(rows) > MOST:
        rows = rows.subset(np.linspace(0, len(rows) - 1, MOST).astype(int).tolist())
    return table, rows, check is None


def _write_graph(model: Model, schema: Schema, folder: Path, *, to: str, int8: bool) -> dict[str, Any]:
    path = folder / _GRAPHS[to]
    signature = write_graph(model, _values(model, schema), path, to=to)
    if int8:
        _quantise(path)
    return signature.about(path.name)


def _values(model: Model, schema: Schema) -> dict[str, list[Any]]:
    """Return of each modality that the graph reads examples of different lengths, decoded; of images two in a cell."""
    random = np.random.default_rng(0)
    cells: list[dict[str, Any]] = []
    for number in range(3):
        row = {column.name: example_cell(column, random) for column in schema.columns}
        for column in schema.columns:
            if column.type == "image" and number:
                row[column.name] = [row[column.name], example_cell(column, random)]
        cells.append(row)
    rows = read_rows(read_table(cells), schema, training=False)
    return {name: [rows.value(name, row) for row in range(len(rows))] for name in read_by_graph(model)}


def _quantise(path: Path) -> None:
    """Make the weights of products, with a scale for each channel, and of embeddings whole numbers of 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from polyfuse.core.onnx import silence

    whole = path.with_name("whole.onnx")
    beside = path.with_name(f"{path.name}.data")
    path.rename(whole)
    with silence():
        quantize_dynamic(
            whole,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        )
    whole.unlink()
    beside.unlink(missing_ok=True)


def _copy_runner(folder: Path) -> None:
    found = importlib.util.find_spec(_RUNNER)
    assert found is not None
    assert found.submodule_search_locations
    (folder / _RUNNER).mkdir()
    for path in sorted(Path(found.submodule_search_locations[0]).glob("*.py")):
        shutil.copy(path, folder / _RUNNER / path.name)


def _files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and hash of every file that the runner reads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(f"{_RUNNER}/"):
            with path.open("rb") as file:
                found[name] = {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return found


def _write_about(folder: Path, about: dict[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def _readme(about: dict[str, Any], difference: Difference, to: str) -> str:
    targets = ", ".join(target["name"] for target in about["targets"])
    columns = ", ".join(f"`{_plain(column['name'])}` ({column['type']})" for column in about["columns"])
    packages = "numpy pillow soundfile tokenizers " + ("onnxruntime" if to == "onnx" else "torch")
    lines = [
        f"# {_plain(targets)}: exported by Polyfuse {__version__}",
        "",
        f"Reads {columns}. Any of them may be missing in a row.",
        "",
        "```",
        f"pip install {packages}",
        "python -m polyfuse_runner . example.jsonl     # or your rows, .csv too; --proba: probabilities, --json: JSON",
        "```",
        "",
        "```python",
        "from polyfuse_runner import Runner",
        "",
        'runner = Runner("this folder")',
        'runner.predict("example.jsonl")',
        'runner.predict_proba([{"column": "value"}])',
        "```",
        "",
        "A picture, recording or cloud is a path relative to the rows' file, bytes, or in JSON a data URI or"
        ' `{"bytes": "<base64>"}`; a cloud also a list of points.',
        "",
        f"Checked against the model: {difference}.",
        "",
    ]
    if about["graph"] is not None:
        lines += ["| input of the graph | modality |", "| --- | --- |"]
        lines += [f"| `{_plain(i['name'])}` | {_plain(i['modality'] or 'all')} |" for i in about["graph"]["inputs"]]
        lines += [
            "",
            f"Outputs, before calibration: {', '.join(f'`{name}`' for name in about['graph']['outputs'])}.",
            "",
        ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Make a name from the data harmless in Markdown."""
    return "".join(c if c.isprintable() and c not in "|`<>[]*\\" else " " for c in text)
