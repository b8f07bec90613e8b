"""What Blender runs: render the poses of a mesh with Cycles, or bake four lights into its vertex colours.

Run by `animate4d.views.blender` in a process of its own, `python blender_script.py JOB.json` where Python has `bpy`, or
`blender --background --python blender_script.py -- JOB.json`. It shares nothing with the package but files: the job
(JSON), arrays (npz) and PNG pictures. It needs Blender 4.1 or newer.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix, Vector

KEY, FILL, BACK = (
    {"name": "key", "position": (2.2, 1.8, 2.8), "watts": 150.0, "size": 1.6},
    {"name": "fill", "position": (1.8, -2.6, 0.9), "watts": 50.0, "size": 3.0},
    {"name": "back", "position": (-2.8, 0.4, 2.4), "watts": 90.0, "size": 1.6},
)
"""Area lights around an object in a sphere of radius 0.8: the key shapes, the fill softens its shadows, the back light
parts the object from the background (paper 000, section 6)."""

BACKGROUND = 0.4
"""Strength of the fourth light, even from all sides."""


def main() -> None:
    """Do the job whose file is the last argument."""
    job = json.loads(Path(sys.argv[-1]).read_text())
    if job["mode"] == "version":
        Path(job["answer"]).write_text(json.dumps({"version": bpy.app.version_string}))
        return
    arrays = dict(np.load(job["arrays"], allow_pickle=False))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = prepare_scene(job)
    body = build_mesh(job, arrays)
    add_lights(scene)
    if job["mode"] == "bake":
        np.save(job["answer"], bake(scene, body))
    else:
        render(scene, body, job, arrays)


def prepare_scene(job: dict[str, Any]) -> Any:
    """Set up Cycles: no denoiser (slow on a CPU, and it smears small pictures), plain sRGB, nothing behind."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = job["samples"]
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.seed = 0
    scene.cycles.pixel_filter_type = "BOX"  # a pixel is the mean over its own area, as in our renderer
    scene.render.threads_mode = "FIXED"
    scene.render.threads = job["threads"]
    scene.render.film_transparent = True
    scene.render.resolution_x = scene.render.resolution_y = job["size"]
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.image_settings.color_depth = "8"
    scene.view_settings.view_transform = "Standard"
    scene.view_settings.look = "None"
    return scene


def build_mesh(job: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """Make the mesh with its vertex colours, texture coordinates and materials."""
    data = bpy.data.meshes.new("body")
    faces = arrays["faces"]
    data.vertices.add(len(arrays["vertices"][0]))
    data.loops.add(faces.size)
    data.polygons.add(len(faces))
    data.loops.foreach_set("vertex_index", faces.ravel())
    data.polygons.foreach_set("loop_start", np.arange(0, faces.size, 3, dtype=np.int32))
    data.polygons.foreach_set("material_index", arrays["face_material"])
    data.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    place(data, arrays["vertices"][0])
    layer = data.uv_layers.new(name="UVMap")
    corners = arrays["uv"][faces.ravel()].astype(np.float32)
    corners[:, 1] = 1.0 - corners[:, 1]  # glTF counts from the top
    layer.uv.foreach_set("vector", corners.ravel())
    colours = data.color_attributes.new(name="Paint", type="FLOAT_COLOR", domain="POINT")
    colours.data.foreach_set("color", arrays["colors"].astype(np.float32).ravel())
    for number, material in enumerate(job["materials"]):
        data.materials.append(make_material(number, material))
    data.validate()
    body = bpy.data.objects.new("body", data)
    bpy.context.scene.collection.objects.link(body)
    return body


def place(data: Any, vertices: np.ndarray) -> None:
    """Move the vertices of a mesh."""
    data.vertices.foreach_set("co", np.ascontiguousarray(vertices, np.float32).ravel())
    data.update()


def make_material(number: int, facts: dict[str, Any]) -> Any:
    """Make base colour x vertex colour x texture, dull and not metallic; holes where alpha says so."""
    material = bpy.data.materials.new(f"material{number}")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = 0.8
    paint = nodes.new("ShaderNodeAttribute")
    paint.attribute_name = "Paint"
    colour, alpha = paint.outputs["Color"], paint.outputs["Alpha"]
    if facts["texture"]:
        texture = nodes.new("ShaderNodeTexImage")
        texture.image = bpy.data.images.load(facts["texture"])
        colour = multiplied(nodes, links, colour, texture.outputs["Color"])
        alpha = product(nodes, links, alpha, texture.outputs["Alpha"])
    links.new(multiplied(nodes, links, colour, facts["base_color"][:3]), shader.inputs["Base Color"])
    if facts["alpha_mode"] != "OPAQUE":
        alpha = product(nodes, links, alpha, facts["base_color"][3])
        hole = nodes.new("ShaderNodeMath")
        hole.operation = "GREATER_THAN"
        links.new(alpha, hole.inputs[0])
        hole.inputs[1].default_value = facts["alpha_cutoff"]
        links.new(hole.outputs[0], shader.inputs["Alpha"])
    return material


def multiplied(nodes: Any, links: Any, first: Any, second: Any) -> Any:
    """Return the product of a colour socket with another one or with three numbers."""
    node = nodes.new("ShaderNodeVectorMath")
    node.operation = "MULTIPLY"
    links.new(first, node.inputs[0])
    if isinstance(second, (list, tuple)):
        node.inputs[1].default_value = second
    else:
        links.new(second, node.inputs[1])
    return node.outputs[0]


def product(nodes: Any, links: Any, first: Any, second: Any) -> Any:
    """Return the product of a value socket with another one or with a number."""
    node = nodes.new("ShaderNodeMath")
    node.operation = "MULTIPLY"
    links.new(first, node.inputs[0])
    if isinstance(second, float):
        node.inputs[1].default_value = second
    else:
        links.new(second, node.inputs[1])
    return node.outputs[0]


def add_lights(scene: Any) -> None:
    """Put up key, fill and back light, all towards the middle, and the even background."""
    for facts in (KEY, FILL, BACK):
        light = bpy.data.lights.new(facts["name"], "AREA")
        light.energy, light.size = facts["watts"], facts["size"]
        lamp = bpy.data.objects.new(facts["name"], light)
        lamp.location = facts["position"]
        lamp.rotation_euler = (-Vector(facts["position"])).to_track_quat("-Z", "Y").to_euler()
        scene.collection.objects.link(lamp)
    world = bpy.data.worlds.new("background")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = BACKGROUND
    scene.world = world


def render(scene: Any, body: Any, job: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write one PNG per view and frame."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.sensor_fit = "VERTICAL"
    camera.data.clip_start, camera.data.clip_end = 0.01, 100.0
    scene.collection.objects.link(camera)
    scene.camera = camera
    for frame, pose in enumerate(arrays["vertices"]):
        place(body.data, pose)
        for view, (matrix, intrinsics) in enumerate(zip(arrays["camera_to_world"], arrays["intrinsics"])):  # noqa: B905 - both have V
            camera.matrix_world = Matrix(matrix.tolist())
            camera.data.angle = 2 * math.atan(job["size"] / (2 * float(intrinsics[1, 1])))
            scene.render.filepath = str(Path(job["answer"]) / f"{view:03d}-{frame:04d}.png")
            bpy.ops.render.render(write_still=True)


def bake(scene: Any, body: Any) -> np.ndarray:
    """Return `[N, 3]` linear colours: all light, direct and indirect, that the surface sends out."""
    target = body.data.color_attributes.new(name="Light", type="FLOAT_COLOR", domain="POINT")
    body.data.color_attributes.active_color = target
    bpy.context.view_layer.objects.active = body
    body.select_set(True)
    settings = scene.render.bake
    settings.target = "VERTEX_COLORS"
    settings.use_pass_direct = settings.use_pass_indirect = True
    settings.use_pass_diffuse = settings.use_pass_glossy = True
    settings.use_pass_transmission = settings.use_pass_emit = True
    bpy.ops.object.bake(type="COMBINED")
    colours = np.empty(4 * len(body.data.vertices), np.float32)
    body.data.color_attributes["Light"].data.foreach_get("color", colours)
    return colours.reshape(-1, 4)[:, :3]


if __name__ == "__main__":
    main()
