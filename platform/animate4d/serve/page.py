"""The page at `/` to try the service: template, style and script in one answer that may load nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from string import Template

from animate4d.io.pages import part, policy

ROOM = "animate4d.serve"


@cache
def index_page(asks_token: bool) -> str:
    """Return the page, which shows a field for the token where the service asks for one."""
    return Template(part(ROOM, "page.html")).substitute(
        style=part(ROOM, "page.css"), script=part(ROOM, "page.js"), hidden="" if asks_token else "hidden"
    )


@cache
def page_policy() -> str:
    """Return its content security policy: its own script and style; pictures, videos and viewers of this service."""
    sources = "connect-src 'self'; img-src 'self' data:; media-src 'self'; frame-src 'self'; frame-ancestors 'none'"
    return policy(part(ROOM, "page.css"), part(ROOM, "page.js"), sources)
