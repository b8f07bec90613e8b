"""The pages of the service: one at `/` to try it, one at `/docs` to read. Neither loads anything from elsewhere."""

from __future__ import annotations

from functools import cache
from string import Template
from typing import Any

from animate4d.io.pages import escape, part, policy

ROOM = "animate4d.serve"
BOUNDS = {"minimum": "at least", "maximum": "at most", "exclusiveMaximum": "below", "maxLength": "letters at most"}


@cache
def index_page(asks_token: bool) -> str:
    """Return the page, which shows a field for the token where the service asks for one."""
    return Template(part(ROOM, "page.html")).substitute(
        style=part(ROOM, "page.css"), script=part(ROOM, "page.js"), hidden="" if asks_token else "hidden"
    )


def docs_page(schema: dict[str, Any]) -> str:
    """Return the contract as a page, made from the OpenAPI file without a script of anybody's."""
    routes = [
        _operation(method, path, operation, schema)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]
    return Template(part(ROOM, "docs.html")).substitute(style=part(ROOM, "page.css"), routes="\n".join(routes))


def _operation(method: str, path: str, operation: dict[str, Any], schema: dict[str, Any]) -> str:
    fields = [(field["name"], field["in"], field.get("required"), field) for field in operation.get("parameters", [])]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        body = schema["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        needed = body.get("required", [])
        fields += [(name, "form", name in needed, field) for name, field in body["properties"].items()]
    rows = "".join(
        f"<dt><code>{escape(name)}</code> {where}{', required' if needed else ''}</dt>"
        f"<dd>{escape(_meaning(field))}</dd>"
        for name, where, needed, field in fields
    )
    answers = ", ".join(f"{status} {escape(found['description'])}" for status, found in operation["responses"].items())
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['description'])}</p>"
        f"<dl>{rows}</dl><p class='dim'>{answers}</p></section>"
    )


def _meaning(field: dict[str, Any]) -> str:
    """Return the description of a field with its values, bounds and default."""
    kind = field.get("schema", {}) | field
    facts = [f"one of {', '.join(kind['enum'])}"] if "enum" in kind else []
    facts += [f"{word} {kind[name]:g}" for name, word in BOUNDS.items() if name in kind]
    if kind.get("default") not in (None, ""):
        facts.append(f"default {kind['default']}")
    return " ".join(filter(None, [kind.get("description", ""), f"({'; '.join(facts)})" if facts else ""]))


@cache
def page_policy() -> str:
    """Return its content security policy: its own script and style; pictures, videos and viewers of this service."""
    sources = "connect-src 'self'; img-src 'self' data:; media-src 'self'; frame-src 'self'; frame-ancestors 'none'"
    return policy(part(ROOM, "page.css"), part(ROOM, "page.js"), sources)
