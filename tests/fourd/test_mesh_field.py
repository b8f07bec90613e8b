"""The three bodies of a fit on one mesh."""

from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.errors import AssetError, ConfigError
from animate4d.core.motion import GraphMotion, VertexMotion
from animate4d.fourd.config import FitConfig
from animate4d.fourd.field_config import FieldConfig, FieldFitConfig, PlaneConfig
from animate4d.fourd.fit import fit_motion
from animate4d.metrics.motion import vertex_error

TRAIN = FieldFitConfig(
    field=FieldConfig(planes=(PlaneConfig(side=16, steps=4, channels=8),), color_terms=1),
    head_rate=1e-3,
    frame_steps=0,
    full_steps=4,
    refine_steps=4,
    rigidity_nodes=64,
)
QUICK = FitConfig(
    size=48, splats=300, nodes=12, polish_steps=20, levels=1, forward_steps=10, backward_steps=0, joint_steps=4,
    bias_steps=10, fine_steps=0, field=TRAIN,
)  # fmt: skip


@pytest.fixture(scope="module")
def results(bending_tube):
    mesh, _, video = bending_tube
    return {body: fit_motion(mesh, video, replace(QUICK, body=body)) for body in ("graph", "field", "both")}


def test_each_body_starts_at_the_mesh(results, bending_tube):
    mesh = bending_tube[0]
    kinds = {"graph": GraphMotion, "field": VertexMotion, "both": VertexMotion}
    for body, result in results.items():
        assert isinstance(result.motion, kinds[body])
        np.testing.assert_array_equal(result.motion.apply(mesh.vertices)[0], mesh.vertices)
        assert len(result.frame_losses) == len(result.mask_iou) == 5
        assert (result.trajectories is None) == (body == "graph")
    for body in ("field", "both"):
        trajectories = results[body].trajectories
        np.testing.assert_array_equal(trajectories.means[0], results[body].splats.means)
        np.testing.assert_array_equal(trajectories.quats[0], results[body].splats.quats)


def test_a_residual_keeps_what_the_graph_found(results, bending_tube):
    mesh, vertices, _ = bending_tube
    errors = {
        body: vertex_error(result.motion.apply(mesh.vertices), vertices).ratio for body, result in results.items()
    }
    assert errors["both"] < errors["graph"] + 0.02
    change = results["both"].motion.apply(mesh.vertices) - results["graph"].motion.apply(mesh.vertices)
    assert 0 < np.abs(change[1:]).mean() < 0.02
    # the residual's splats go with its vertices
    surface = results["both"].surface
    followed = surface.surface(results["both"].motion.apply(mesh.vertices))
    assert np.linalg.norm(results["both"].trajectories.means - followed, axis=-1).mean() < 0.03


def test_vertices_of_one_position_stay_together(results, bending_tube):
    mesh, _, video = bending_tube
    twice = replace(
        mesh,
        vertices=np.concatenate([mesh.vertices, mesh.vertices]),
        faces=np.concatenate(
            [mesh.faces[: len(mesh.faces) // 2], mesh.faces[len(mesh.faces) // 2 :] + len(mesh.vertices)]
        ),
        uv=np.tile(mesh.uv, (2, 1)),
        colors=np.tile(mesh.colors, (2, 1)),
        part_of_vertex=np.tile(mesh.part_of_vertex, 2),
    )
    moved = fit_motion(twice, video, replace(QUICK, body="field")).motion.apply(twice.vertices)
    np.testing.assert_array_equal(moved[:, : len(mesh.vertices)], moved[:, len(mesh.vertices) :])


def test_only_a_graph_follows_a_graph(results, bending_tube):
    mesh, _, video = bending_tube
    for body, before in (("both", "graph"), ("graph", "field")):
        with pytest.raises(ConfigError, match="only the motion of a graph can follow"):
            fit_motion(mesh, video, replace(QUICK, body=body), after=results[before])


def test_a_field_that_is_no_number_is_no_result(bending_tube):
    mesh, _, video = bending_tube

    def broken(points):
        return np.full((5, len(points), 8), np.inf, np.float32)

    with pytest.raises(AssetError, match="finite motion"):
        fit_motion(mesh, video, replace(QUICK, body="field"), features=broken)


def test_an_unknown_body_is_named():
    with pytest.raises(ConfigError, match=r"fit\.body is 'bones': give one of graph, field, both"):
        FitConfig(body="bones")
