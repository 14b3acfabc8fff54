"""The page at /docs: this model's columns and endpoints, with a form to try them. It loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from polyfuse.data.schema import Schema
from polyfuse.serving.bodies import Bodies

_SHOWN = 90  # characters of an example

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.2rem } code, pre, textarea { font: 14px/1.4 ui-monospace,
monospace } table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .35rem .6rem;
border-bottom: 1px solid #d9e1e9; vertical-align: top } td:last-child code { overflow-wrap: anywhere }
details { border: 1px solid #d9e1e9;
border-radius: 8px; margin: .6rem 0; padding: .6rem 1rem } summary { cursor: pointer; font-weight: 600 }
summary span { display: inline-block; min-width: 3.5rem; color: #35506b } pre { background: #eef3f8; padding: .8rem;
border-radius: 8px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere } textarea { width: 100%;
box-sizing: border-box } button { font: inherit; padding: .3rem 1.2rem; border-radius: 6px; border: 1px solid #35506b;
background: #35506b; color: #fff; cursor: pointer } input { font: inherit; padding: .25rem; width: 22rem }
@media (prefers-color-scheme: dark) { body { background: #12181f; color: #dde6ee } pre { background: #1d2731 }
th, td, details { border-color: #33414f } summary span { color: #9db8d3 } textarea, input { background: #1d2731;
color: inherit; border: 1px solid #33414f } }
"""

_SCRIPT = """
for (const form of document.querySelectorAll('form')) form.addEventListener('submit', async event => {
  event.preventDefault();
  const shown = form.querySelector('output'), body = form.querySelector('textarea');
  const headers = body ? {'Content-Type': 'application/json'} : {};
  const key = document.querySelector('#key');
  if (key && key.value) headers['X-API-Key'] = key.value;
  shown.textContent = '…';
  try {
    const options = {method: form.dataset.method, headers, body: body ? body.value : undefined};
    const answer = await fetch(form.dataset.path, options);
    let text = await answer.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2) } catch {}
    shown.textContent = answer.status + ' ' + answer.statusText + '\\n' + text;
  } catch (error) { shown.textContent = String(error) }
});
"""


def docs_router(document: Mapping[str, Any], schema: Schema, bodies: Bodies) -> APIRouter:
    """Return the page.

    Args:
        document: OpenAPI.
        schema: of the model.
        bodies: examples of its columns.
    """
    router = APIRouter()
    page = _page(document, schema, bodies)
    policy = (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; connect-src 'self';"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Return the page."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return router


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(document: Mapping[str, Any], schema: Schema, bodies: Bodies) -> str:
    feeds = {name: modality for modality, names in schema.modalities.items() for name in names}
    columns = "".join(
        f"<tr><td><code>{_safe(name)}</code><td>{_safe(feeds[name])}<td>{_safe(cell.schema['description'])}"
        f"<td><code>{_safe(_short(cell.example))}</code>"
        for name, cell in bodies.cells.items()
    )
    targets = "".join(
        f"<tr><td><code>{_safe(part.name)}</code><td>{part.task}<td>{_safe(', '.join(map(str, part.levels[:20])))}"
        for part in schema.target.each()
    )
    operations = "".join(
        _operation(path, method, told, document)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    )
    keyed = "securitySchemes" in document["components"]
    key = '<p>Key: <input id="key" type="password" autocomplete="off" aria-label="API key"></p>' if keyed else ""
    title = _safe(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{_safe(document['info']['description'])} The same for machines:"
        f' <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>What is answered</h2><table><tr><th>target<th>task<th>labels{targets}</table>"
        f"<h2>What a row may hold</h2><table><tr><th>column<th>modality<th>what it is<th>example{columns}</table>"
        f"<h2>Endpoints</h2>{key}{operations}<script>{_SCRIPT}</script></html>"
    )


def _operation(path: str, method: str, told: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return one endpoint: what it does, how to call it, a form to try it."""
    example = _example(told, document)
    field = (
        f'<textarea rows="8" spellcheck="false" aria-label="body">{_safe(json.dumps(example, indent=2))}</textarea>'
        if example is not None
        else ""
    )
    refused = ", ".join(status for status in told["responses"] if status != "200")
    refusals = f" Refused with {refused}, as <code>application/problem+json</code>." if refused else ""
    query = "".join(
        f"<p><code>?{_safe(one['name'])}=…</code> {_safe(one.get('description', ''))}</p>"
        for one in told.get("parameters", [])
    )
    return (
        f"<details><summary><span>{method.upper()}</span> {_safe(path)} — {_safe(told.get('summary', ''))}</summary>"
        f"<p>{_safe(told.get('description', ''))}{refusals}</p>{query}"
        f'<form data-path="{_safe(path.lstrip("/"))}" data-method="{method.upper()}">{field}'
        f"<p><button>Try it</button></p><pre><output></output></pre></form></details>"
    )


def _example(told: Mapping[str, Any], document: Mapping[str, Any]) -> Any:
    content = told.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    name = content["schema"]["$ref"].rpartition("/")[2]
    return (document["components"]["schemas"][name].get("examples") or [{}])[0]


def _safe(text: str) -> str:
    return html.escape(text, quote=True)


def _short(example: Any) -> str:
    text = json.dumps(example, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
