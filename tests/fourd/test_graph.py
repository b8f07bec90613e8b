"""The deformation graph: welding, bridges, nodes and weights."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from animate4d.fourd import graph as module
from animate4d.fourd.graph import build_cloud_graph, build_graph, grid_cells, join_pieces, unique_edges, weld


def grid(columns: int, rows: int, offset=(0.0, 0.0, 0.0), size: float = 1.0):
    x, y = np.meshgrid(np.linspace(0, size, columns), np.linspace(0, size, rows))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1) + offset
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = np.stack([corner, corner + 1, corner + columns + 1, corner + columns], 1)
    return points, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def apart(*meshes):
    """Put meshes side by side in one pair of arrays."""
    points, faces, count = [], [], 0
    for p, f in meshes:
        points.append(p)
        faces.append(f + count)
        count += len(p)
    return np.concatenate(points), np.concatenate(faces)


def test_weld_joins_copies_and_keeps_positions():
    points = np.array([[0, 0, 0], [1, 0, 0], [1e-7, 0, 0], [1, 0, 0]], np.float32)
    distinct, row = weld(points)
    assert len(distinct) == 2
    np.testing.assert_array_equal(row[[0, 1]], row[[2, 3]])
    np.testing.assert_allclose(distinct[row], points, atol=1e-6)


def test_weights_are_a_partition_and_hang_on_the_nearest():
    points, faces = grid(20, 20)
    graph = build_graph(points.astype(np.float32), faces, 30)
    assert graph.nodes.shape == (30, 3)
    assert graph.vertex_nodes.shape == graph.vertex_weights.shape == (400, 4)
    np.testing.assert_allclose(graph.vertex_weights.sum(1), 1, atol=1e-6)
    assert graph.vertex_weights.min() >= 0
    first = graph.vertex_weights[:, 0]
    assert (first >= graph.vertex_weights[:, 1:].max(1) - 1e-6).all()
    # a node is a vertex and moves that vertex more than any other does
    for node, place in enumerate(graph.nodes):
        vertex = int(np.linalg.norm(points - place, axis=1).argmin())
        assert np.linalg.norm(points[vertex] - place) < 1e-6
        assert graph.vertex_nodes[vertex, 0] == node


def test_touching_legs_stay_two_legs():
    # two strips that run side by side at a hair's distance and meet at their far end only
    left, right = grid(3, 40, size=1.0), grid(3, 40, offset=(1.001, 0, 0), size=1.0)
    points, faces = apart(left, right)
    bridge = np.array([[119, 239, 118], [119, 239, 238]])
    graph = build_graph(points.astype(np.float32), np.concatenate([faces, bridge]), 24)
    # the lower right corner of the left strip: in the air, the right strip is its nearest neighbour
    corner = 2
    assert points[corner].tolist() == [1.0, 0.0, 0.0]
    hung_on = graph.nodes[graph.vertex_nodes[corner][graph.vertex_weights[corner] > 0]]
    assert (hung_on[:, 0] < 1.0005).all()


def test_pieces_are_joined_to_their_neighbours():
    meshes = [grid(4, 4, offset=(1.2 * k, 0, 0)) for k in range(5)]
    points, faces = apart(*meshes)
    adjacency = module._adjacency(points, unique_edges(faces))
    assert connected_components(adjacency)[0] == 5
    joined = join_pieces(points, adjacency)
    assert connected_components(joined)[0] == 1
    added = (joined - adjacency).tocoo()
    length = np.linalg.norm(points[added.row] - points[added.col], axis=1)[added.data > 1e-6]
    assert length.max() < 0.6


def test_loose_piece_far_from_everything_is_still_joined():
    big, small = grid(30, 30), grid(2, 2, offset=(50, 50, 50), size=0.1)
    points, faces = apart(big, small)
    graph = build_graph(points.astype(np.float32), faces, 10)
    assert np.isfinite(graph.vertex_weights).all()
    np.testing.assert_allclose(graph.vertex_weights.sum(1), 1, atol=1e-6)


def test_node_edges_go_both_ways_and_connect_all_nodes():
    points, faces = grid(15, 15)
    edges = build_graph(points.astype(np.float32), faces, 20).edges
    pairs = {tuple(edge) for edge in edges.tolist()}
    assert pairs == {(b, a) for a, b in pairs}
    assert all(a != b for a, b in pairs)
    matrix = np.zeros((20, 20))
    matrix[edges[:, 0], edges[:, 1]] = 1
    assert connected_components(matrix)[0] == 1


@pytest.mark.parametrize("faces", [[[0, 1, 2]], [[0, 1, 2], [0, 2, 3]], [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 1]]])
def test_meshes_smaller_than_the_graph(faces):
    rng = np.random.default_rng(1)
    faces = np.array(faces)
    points = rng.normal(size=(faces.max() + 2, 3)).astype(np.float32)
    graph = build_graph(points, faces, 150)
    assert len(graph.nodes) == faces.max() + 1
    np.testing.assert_allclose(graph.vertex_weights.sum(1), 1, atol=1e-6)
    # the last vertex is in no face and hangs on something all the same
    assert graph.vertex_nodes[-1].max() < len(graph.nodes)


def test_large_meshes_are_measured_between_clusters(monkeypatch):
    points, faces = grid(40, 40)
    exact = build_graph(points.astype(np.float32), faces, 16)
    monkeypatch.setattr(module, "DENSE_LIMIT", 400)
    coarse = build_graph(points.astype(np.float32), faces, 16)
    np.testing.assert_allclose(coarse.vertex_weights.sum(1), 1, atol=1e-6)
    spread = lambda graph: np.linalg.norm(graph.nodes[graph.vertex_nodes[:, 0]] - points, axis=1).max()  # noqa: E731
    assert spread(coarse) < 1.5 * spread(exact)


def two_legs(count=3000, gap=0.2, seed=0):
    """Points on two upright strips `gap` apart that meet at the top."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, 0, 0], [0.2, 0.05, 1.0], (count, 3))
    points[count // 2 :, 0] += 0.2 + gap
    hip = rng.uniform([0, 0, 1.0], [0.4 + gap, 0.05, 1.2], (count // 2, 3))
    return np.concatenate([points, hip])


def test_a_cloud_hangs_on_nodes_along_itself():
    points = two_legs()
    graph = build_cloud_graph(points, np.ones(len(points), bool), 40)
    assert graph.nodes.shape == (40, 3)
    np.testing.assert_allclose(graph.vertex_weights.sum(1), 1, atol=1e-6)
    feet = np.flatnonzero((points[:, 2] < 0.2) & (points[:, 0] < 0.2))
    assert len(feet) > 50
    assert (graph.nodes[graph.vertex_nodes[feet], 0][graph.vertex_weights[feet] > 0] < 0.25).all(), "one leg only"
    assert connected_components(_linked(graph), directed=False)[0] == 1


def _linked(graph):
    from scipy.sparse import coo_array

    count = len(graph.nodes)
    return coo_array((np.ones(len(graph.edges)), graph.edges.T), shape=(count, count))


def test_fog_and_strays_of_a_capture_get_no_node():
    points = two_legs()
    rng = np.random.default_rng(1)
    fog, strays = rng.uniform(-0.5, 1.5, (500, 3)), rng.uniform(3, 9, (12, 3))
    everything = np.concatenate([points, fog, strays])
    solid = np.arange(len(everything)) < len(points)
    solid[-12:] = True
    graph = build_cloud_graph(everything, solid, 40)
    assert graph.nodes[:, 2].max() < 1.3
    assert graph.vertex_nodes.shape == (len(everything), 4)
    # a cloud of fog alone is moved nonetheless
    assert len(build_cloud_graph(fog, np.zeros(500, bool), 8).nodes) == 8


@pytest.mark.parametrize("count", [1, 2, 5])
def test_tiny_clouds_have_a_graph(count):
    points = np.arange(3.0 * count).reshape(count, 3)
    graph = build_cloud_graph(points, np.ones(count, bool), 10)
    assert len(graph.nodes) == count
    np.testing.assert_allclose(graph.vertex_weights.sum(1), 1, atol=1e-6)


def test_copies_of_one_point_share_a_node():
    graph = build_cloud_graph(np.zeros((50, 3)), np.ones(50, bool), 10)
    assert len(graph.nodes) == 1


def test_grid_cells_are_as_many_as_allowed():
    points = np.random.default_rng(0).random((5000, 3))
    cells = grid_cells(points, 600)
    assert 400 < cells.max() + 1 <= 600
    np.testing.assert_array_equal(np.unique(cells), np.arange(cells.max() + 1))
    spread = [np.ptp(points[cells == cell], axis=0).max() for cell in range(0, cells.max(), 50)]
    assert max(spread) < 0.2
    np.testing.assert_array_equal(grid_cells(points[:7], 7), np.arange(7))
    # one far away costs a cell, no more
    points[0] = 1e6
    assert grid_cells(points, 600).max() + 1 >= 2
