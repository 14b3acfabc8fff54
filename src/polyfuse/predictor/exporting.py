"""Models that leave the house."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.artifact import Artifact
from polyfuse.core.errors import InputError
from polyfuse.predictor.holding import Holder

if TYPE_CHECKING:
    from polyfuse.exporting import ExportReport, To


class Exporting(Holder):
    """Exports."""

    def export(
        self,
        folder: str | Path,
        *,
        to: To = "onnx",
        int8: bool = False,
        check: Any = None,
        tolerance: float | None = None,
        license: str | None = None,
        overwrite: bool = False,
    ) -> ExportReport:
        """Write the model to a folder that runs without polyfuse, whole or not at all.

        The folder holds the graph, `preparation.json`, what learners learned, and `polyfuse_runner`, which needs numpy,
        pillow, soundfile, tokenizers and onnxruntime. Its answers are compared with the model's on rows before it takes
        its place.

        Args:
            folder: where to.
            to: "onnx", "torch" for a program of torch.export, or "hub" for the artifact in the layout of the Hugging
                Face Hub, with a card that has its metrics as metadata;  polyfuse.load  reads that one.
            int8: quantise the weights of an ONNX graph, for each channel.
            check: rows to compare on, as for `predict`, real ones best; made from the schema when left out.
            tolerance: what a probability, or a number in standard deviations of the target, may differ by at most:
                1e-4, of int8 weights 0.25, when left out.
            license: of a folder for the Hub, as the Hub names it, e.g. "apache-2.0"; "other" when left out.
            overwrite: replace an export that stands there.

        Raises:
            NotExportable: a component cannot be exported; it is named.
            NotTheSame: the answers differ by more than the tolerance.
            InputError: the folder is taken, or the call is wrong.
            MissingExtra: ONNX is not installed; it comes with the extra `onnx`.
        """
        from polyfuse.exporting import export, write_hub

        built = self._need_model()
        _check_call(to, graph={"int8": int8 or None, "check": check, "tolerance": tolerance}, hub={"license": license})
        if to == "hub":
            saved = Artifact(self.recipe, self.schema, built, self._metrics, self._screen, self._calibration)
            return write_hub(saved, Path(folder), license=license or "other", overwrite=overwrite)
        return export(
            built.model,
            self.schema,
            self._calibration,
            Path(folder),
            to=to,
            strict=self.recipe.data.on_bad_row == "raise",
            device=self._device,
            int8=int8,
            check=None if check is None else self._read(check),
            tolerance=tolerance,
            overwrite=overwrite,
        )


def _check_call(to: str, *, graph: dict[str, Any], hub: dict[str, Any]) -> None:
    """Check that nothing was given that this export does not read.

    Raises:
        InputError: something was.
    """
    for name, value in (graph if to == "hub" else hub).items():
        if value is not None:
            rule = "is for graphs: a folder for the hub is the artifact itself" if to == "hub" else "is for the hub"
            raise InputError(f"{name}={value!r} {rule}, and this export is to {to!r}; leave it out")
