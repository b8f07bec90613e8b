"""What all pages share: text that stays text, and a policy that lets only their own script run."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib import resources

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
BIDI_CONTROL = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Marks that turn the reading direction; an unclosed one would reorder the text after it."""


def escape(text: str) -> str:
    """Return text for an element or an attribute; control and direction marks are made visible or left out."""
    visible = CONTROL.sub("\N{REPLACEMENT CHARACTER}", BIDI_CONTROL.sub("", text))
    return html.escape(visible, quote=True)


def policy(style: str, script: str, sources: str) -> str:
    """Return a content security policy that names this style and script by hash; `sources` says what may be loaded."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; {sources}; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def part(package: str, name: str) -> str:
    """Return a file of a package that pages are made of: a template, a style, a script."""
    return resources.files(package).joinpath(name).read_text()
