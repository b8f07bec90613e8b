"""A body at rest and what moves it."""

import numpy as np
import pytest
import torch

from animate4d.core.motion import GraphMotion
from animate4d.fourd.field_body import Base, Body, Mover
from animate4d.fourd.field_config import FieldConfig, PlaneConfig
from animate4d.fourd.graph import build_graph, weld
from animate4d.fourd.surface_splats import move_splats, sample_splats

CONFIG = FieldConfig(planes=(PlaneConfig(side=9, steps=4, channels=8),), global_motion=True, color_terms=3)


@pytest.fixture(scope="module")
def surface(tube):
    return sample_splats(tube, 120, seed=1)


def body_of(tube, surface, features=None) -> Body:
    points, welded = weld(tube.vertices)
    return Body.of_surface(surface, points, tube.faces, welded, 5, features)


def mover_of(body, shake=0.0) -> Mover:
    mover = Mover(body, CONFIG, "native", seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mover.parameters():
            parameter.add_(shake * torch.randn(parameter.shape, generator=generator))
    return mover


FRAMES = torch.tensor([1, 4])


def test_a_new_mover_leaves_everything_where_it_is_to_the_bit(tube, surface):
    body = body_of(tube, surface)
    chosen = torch.tensor([125, 130])
    placed, rest = mover_of(body)(FRAMES, chosen, None, sizes=True, colors=True), body.at_rest()
    for frame in range(2):
        np.testing.assert_array_equal(placed.means.detach()[frame], rest.means[0])
        np.testing.assert_array_equal(placed.quats.detach()[frame], rest.quats[0])
        np.testing.assert_array_equal(placed.scales.detach()[frame], rest.scales[0])
        np.testing.assert_array_equal(placed.colors.detach()[frame], rest.colors)
        np.testing.assert_array_equal(placed.points.detach()[frame], body.rest[chosen])


def test_splats_and_vertices_at_one_place_move_alike(tube, surface):
    body = body_of(tube, surface)
    body.rest[120] = body.rest[7]
    placed = mover_of(body, 0.3)(FRAMES, torch.tensor([120]), None, sizes=True, colors=True)
    np.testing.assert_allclose(placed.points.detach()[:, 0], placed.means.detach()[:, 7], atol=1e-6)
    assert float((placed.means.detach() - body.at_rest().means).norm(dim=-1).mean()) > 0.01


def test_what_was_asked_for_does_not_change_the_rest(tube, surface):
    mover = mover_of(body_of(tube, surface), 0.3)
    few = mover(FRAMES, torch.tensor([121]), None, sizes=False, colors=False)
    many = mover(FRAMES, torch.arange(120, 160), None, sizes=False, colors=False)
    np.testing.assert_array_equal(few.means.detach(), many.means.detach())
    np.testing.assert_array_equal(few.points.detach()[:, 0], many.points.detach()[:, 1])


def test_a_base_carries_what_the_field_adds_to(tube, surface):
    graph = build_graph(tube.vertices, tube.faces, 6)
    translations = np.random.default_rng(0).normal(size=(5, 6, 3)).astype(np.float32) * 0.1
    translations[0] = 0
    motion = GraphMotion(
        nodes=graph.nodes,
        rotations=np.flip(translations, 2).copy(),
        translations=translations,
        vertex_nodes=graph.vertex_nodes,
        vertex_weights=graph.vertex_weights,
        times=np.arange(5.0),
    )
    _, welded = weld(tube.vertices)
    first = np.unique(welded, return_index=True)[1]
    base = Base.of(motion, surface, tube.vertices, first, torch.device("cpu"))
    placed = mover_of(body_of(tube, surface))(
        FRAMES, torch.arange(120, 120 + len(first)), base, sizes=False, colors=False
    )
    means, quats = move_splats(surface, motion, tube.vertices)
    np.testing.assert_array_equal(placed.means.detach(), means[[1, 4]])
    np.testing.assert_array_equal(placed.quats.detach(), quats[[1, 4]])
    np.testing.assert_array_equal(placed.points.detach(), motion.apply(tube.vertices)[[1, 4]][:, first])


def test_features_are_asked_for_once_and_belong_to_their_points(tube, surface):
    calls = []

    def features(points):
        calls.append(points)
        return np.random.default_rng(0).normal(size=(5, len(points), 8)).astype(np.float32)

    body = body_of(tube, surface, features)
    np.testing.assert_array_equal(calls[0], body.rest)
    mover = mover_of(body, 0.3)
    before = mover(FRAMES, torch.tensor([120]), None, sizes=False, colors=False).means.detach()
    assert len(calls) == 1
    body.features[1, 3] += 1
    after = mover(FRAMES, torch.tensor([120]), None, sizes=False, colors=False)
    changed = (after.offset.detach()[:, :120] != 0) & (before != after.means.detach())
    # the global motion follows the mean feature of frame 1; frame 4 knows nothing of it
    assert bool(changed[0].any())
    assert not bool(changed[1].any())


def test_colours_wave_about_those_of_frame_0(tube, surface):
    mover = mover_of(body_of(tube, surface), 0.3)
    colors = mover.tint(torch.arange(5), True).detach()
    np.testing.assert_array_equal(colors[0], mover.body.colors)
    assert float((colors[4] - colors[0]).abs().mean()) > 0.01
    assert mover.tint(torch.arange(5), False) is mover.body.colors


def test_bodies_that_do_not_fit_are_refused(tube, surface):
    with pytest.raises(ValueError, match=r"features are of \(3, 2\), expected \(5, "):
        body_of(tube, surface, lambda points: np.zeros((3, 2, 8), np.float32))
    cloud = surface.cloud
    far = type(cloud)(
        means=cloud.means + 1, quats=cloud.quats, scales=cloud.scales, opacities=cloud.opacities, sh=cloud.sh
    )
    with pytest.raises(ValueError, match=r"points reach 1\.\d+: expected an object within"):
        Body.of_cloud(far, 3, 5)
