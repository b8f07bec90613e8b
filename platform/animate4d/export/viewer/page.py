"""The page: scene, style and scripts put into one file that needs nothing else and may load nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from animate4d.export.viewer.pack import pack, unpack
from animate4d.export.viewer.scene import ViewerScene, describe_scene
from animate4d.io.atomic import write_text
from animate4d.io.pages import escape, part, policy

SCRIPTS = ("data.js", "gl.js", "splats.js", "mesh.js", "trails.js", "camera.js", "player.js")


def write_viewer(path: Path, scene: ViewerScene) -> None:
    """Write the viewer atomically: about 0.2 MB per thousand splats at 16 frames, and the textures."""
    facts, arrays, moving = describe_scene(scene)
    facts["table"], body = pack(arrays, moving)
    room = "animate4d.export.viewer"
    style = part(room, "viewer.css")
    script = "\n".join(['"use strict";', *(part(room, name) for name in SCRIPTS)])
    page = Template(part(room, "viewer.html")).substitute(
        policy=policy(style, script, "img-src data:"),
        title=escape(scene.title),
        origin=escape(scene.origin),
        views=escape(scene.video_name),
        style=style,
        script=script,
        # Inside a script element only "<" could end the text early.
        scene=json.dumps(facts, allow_nan=False).replace("<", "\\u003c"),
        body=body,
    )
    write_text(path, page)


def read_viewer(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a page says of its scene, and its arrays.

    Raises:
        ValueError: this is no whole viewer.
    """
    found = re.search(
        r'id="scene">(.*?)</script>\s*<script type="text/plain" id="body">([^<]*)</script>', path.read_text()
    )
    if found is None:
        raise ValueError(f"{path} is not a whole viewer page")
    facts = json.loads(found[1])
    return facts, unpack(facts["table"], found[2])
