"""The page at /: type, upload or record what is known of a row, and see the answer and where it comes from."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyfuse.core.errors import PolyfuseError, import_extra
from polyfuse.data.schema import Schema
from polyfuse.serving.page.door import Door
from polyfuse.serving.page.fields import Field, field_of, row_of
from polyfuse.serving.page.shown import STYLE, answered, card, heading, nothing_yet, trouble

if TYPE_CHECKING:
    from fastapi import FastAPI

    from polyfuse.serving.engine import Engine
    from polyfuse.serving.settings import Settings

#: Environment variable: the folder of uploads, where several workers share one; who sets it removes it.
UPLOADS = "POLYFUSE_UPLOADS"
LEVEL = 0.9  # of sets and intervals
_UPLOADS = 16  # requests as large as can be, for which uploads have room

logger = logging.getLogger(__name__)


def mount_page(app: FastAPI, schema: Schema, engine: Engine, settings: Settings) -> None:
    """Put the page at / of a server; to be called last, for it takes every path that is left.

    Nothing of it comes from another place, and nothing is told to one. Uploads stand in a folder of their own, which is
    removed when the server ends.

    Args:
        app: of the server.
        schema: of the model.
        engine: that answers.
        settings: of the server.

    Raises:
        MissingExtra: gradio is not installed.
    """
    shared = os.environ.get(UPLOADS)
    folder = Path(shared or tempfile.mkdtemp(prefix="polyfuse-uploads-"))
    # Read by gradio when it is imported, and when inputs are made.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    gr = import_extra("gradio", "ui", "the page")
    blocks, fields = _layout(gr, schema, engine, folder)
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        theme=_theme(gr),
        css=STYLE,
        footer_links=[],
        run_history=False,
        mcp_server=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=settings.max_body,
    )
    behind = app.router.routes.pop()
    door = Door(
        behind.app,  # type: ignore[attr-defined]
        folder,
        media=[field.media for field in fields],
        names=list(schema.modalities),
        room=_UPLOADS * settings.max_body,
        most=settings.max_body,
    )
    app.mount("/", door)
    if shared is None:
        _removed_at_the_end(app, folder)


def _theme(gr: Any) -> Any:
    """Return colours that contrast enough to be read, and fonts that are there: gradio's own come from elsewhere."""
    font = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    theme = gr.themes.Soft(primary_hue="blue", font=font, font_mono=("ui-monospace", "Consolas", "monospace"))
    return theme.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        block_label_text_color="*primary_800",
        block_title_text_color="*primary_800",
        block_border_width="1px",
        input_border_width="1px",
        input_border_color="*neutral_400",
        checkbox_border_width="1px",
        checkbox_border_color="*neutral_500",
    )


def _layout(gr: Any, schema: Schema, engine: Engine, folder: Path) -> tuple[Any, list[Field]]:
    """Return the page, and its fields in the order of its inputs."""
    raw: Mapping[str, Any] = {"sanitize_html": False, "latex_delimiters": [], "container": False}
    with gr.Blocks(title=schema.target.name, analytics_enabled=False) as blocks:
        gr.Markdown(card(schema, engine.predictor.metrics), **raw)
        with gr.Row():
            with gr.Column(min_width=320):
                fields = []
                for name, columns in schema.modalities.items():
                    if columns != [name]:
                        gr.Markdown(heading(name), **raw)
                    fields += [field_of(column) for column in schema.of(name)]
                with gr.Column():  # else gradio puts it into one frame with the fields above
                    gone = gr.CheckboxGroup(list(schema.modalities), label="Leave out", info="to see what it changes")
                button = gr.Button("Answer", variant="primary")
            with gr.Column(min_width=320):
                out = gr.Markdown(nothing_yet(), **raw)
        answer = _answering(schema, engine, fields, folder)
        # Not through gradio's queue: the engine has one, and a queue's events would belong to one worker.
        inputs = [*(field.component for field in fields), gone]
        button.click(answer, inputs, out, queue=False, api_visibility="private", scroll_to_output=True)
    return blocks, fields


def _answering(schema: Schema, engine: Engine, fields: Sequence[Field], folder: Path) -> Callable[..., str]:
    level = _level(engine)

    def answer(*values: Any) -> str:
        try:
            row = row_of(schema, fields, values[:-1], values[-1] or [], folder)
            within = None if level is None else engine.ask([row], level=level)[0]
            return answered(schema, engine.explain(row), within, level or 0.0)
        except PolyfuseError as error:
            return trouble(str(error))
        except Exception:
            logger.exception("the page could not answer")
            return trouble("Something went wrong here; the log of the server says what.")

    return answer


def _level(engine: Engine) -> float | None:
    """Return the level of sets and intervals, None where the model has none."""
    bounds = engine.predictor.levels
    return LEVEL if bounds is not None and bounds[0] <= LEVEL <= bounds[1] else None


def _removed_at_the_end(app: FastAPI, folder: Path) -> None:
    import shutil

    before = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        try:
            async with before(app) as state:
                yield state
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    app.router.lifespan_context = lifespan
