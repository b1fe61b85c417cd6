"""/docs: what the OpenAPI document says as one page that needs nothing else, no script either."""

import base64
import hashlib
import html
from dataclasses import dataclass
from typing import Any, Final

_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;"
    "margin:2rem auto;padding:0 1rem}code{font-size:.95em}h2{margin:2rem 0 0;font-size:1.1rem}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;margin:.5rem 0}dd{margin:0}"
)


@dataclass(frozen=True)
class Page:
    """A page and the headers it needs."""

    html: str
    headers: dict[str, str]


def reference_page(document: dict[str, Any]) -> Page:
    """Return the page of an OpenAPI document; its policy allows its own style and nothing else."""
    info = document["info"]
    parts = [
        _section(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = html.escape(f"{info['title']} {info['version']}: its HTTP interface")
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{''.join(parts)}</html>"
    )
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    return Page(text, {"content-security-policy": policy})


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        (f"{one['name']} ({one['in']})", one["schema"].get("description", ""))
        for one in operation.get("parameters", [])
    ]
    rows += [("body", name) for name in operation.get("requestBody", {}).get("content", {})]
    rows += [(status, one["description"]) for status, one in operation["responses"].items()]
    listed = "".join(
        f"<dt><code>{html.escape(name)}</code></dt><dd>{html.escape(text)}</dd>"
        for name, text in rows
    )
    said = " ".join(filter(None, (f"{operation['summary']}.", operation.get("description"))))
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(said)}</p><dl>{listed}</dl>"
    )
