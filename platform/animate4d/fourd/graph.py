"""The deformation graph of a mesh or a cloud: a few nodes on it, each vertex or splat hanging on the four nearest.

Distances run along edges, never through the air: two legs that touch stay two legs. A cloud has no edges of its own;
there they run between nearest neighbours, so that legs closer than its splats to one another grow together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

NODES_PER_VERTEX = 4
"""What glTF skins hold per vertex in one set of joints."""

DENSE_LIMIT = 12_000
"""Welded vertices above which path lengths are measured between clusters of vertices, to keep the build in seconds."""

BRIDGES = 8
"""Closest vertex pairs by which a loose piece is tied to others (4 to 12 in the study)."""


NEIGHBOURS = 6
"""Neighbours along which distances run in a cloud: as many as a vertex of a triangle mesh has on average."""

LONELY = 5.0
"""A point of a cloud whose neighbours are this many times farther than the median is a stray, and gets no node."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """M nodes and how N vertices hang on them.

    Attributes:
        nodes: `[M, 3]` float32 rest positions, all of them vertices of the mesh.
        vertex_nodes: `[N, 4]` int32.
        vertex_weights: `[N, 4]` float32, rows sum to 1.
        edges: `[E, 2]` int64 pairs of nodes that share a vertex, both directions.
    """

    nodes: np.ndarray
    vertex_nodes: np.ndarray
    vertex_weights: np.ndarray
    edges: np.ndarray


def build_graph(vertices: np.ndarray, faces: np.ndarray, nodes: int = 150) -> Graph:
    """Spread nodes by farthest-point sampling on path length and hang every vertex on its four nearest.

    Args:
        vertices: `[N, 3]` rest positions, not necessarily welded.
        faces: `[F, 3]`.
        nodes: how many; a mesh with fewer distinct vertices gets one per vertex.

    Returns:
        the graph. A weight is (1 - d / d5)^2, normalised, with d the path length to the node and d5 that to the fifth.
        Vertices that no face uses hang on the node nearest in space.
    """
    points, welded = weld(vertices)
    triangles = welded[faces]
    used, compact = np.unique(triangles, return_inverse=True)
    edges = unique_edges(compact.reshape(-1, 3))
    clusters = _cluster(points[used], edges)
    count = clusters.max() + 1
    centres = np.zeros((count, 3))
    np.add.at(centres, clusters, points[used])
    centres /= np.bincount(clusters)[:, None]
    # one vertex stands for its cluster, so that nodes lie on the mesh
    offset = np.linalg.norm(points[used] - centres[clusters], axis=1)
    by_cluster = np.lexsort((offset, clusters))
    first = by_cluster[np.unique(clusters[by_cluster], return_index=True)[1]]
    anchors = points[used][first]
    links = clusters[edges]
    adjacency = join_pieces(anchors, _adjacency(anchors, links[links[:, 0] != links[:, 1]]))

    chosen, distance = _farthest_points(anchors, adjacency, min(nodes, count))
    nearest, weights = _hang(distance)
    cluster_of_point = np.empty(len(points), np.int64)
    cluster_of_point[used] = clusters
    loose = np.setdiff1d(np.arange(len(points)), used)
    if len(loose):
        cluster_of_point[loose] = cKDTree(anchors).query(points[loose])[1]
    rows = cluster_of_point[welded]
    return Graph(
        nodes=anchors[chosen].astype(np.float32),
        vertex_nodes=nearest[rows].astype(np.int32),
        vertex_weights=weights[rows].astype(np.float32),
        edges=_node_edges(nearest, weights),
    )


def build_cloud_graph(points: np.ndarray, solid: np.ndarray, nodes: int = 150) -> Graph:
    """Do for a cloud what `build_graph` does for a mesh.

    Args:
        points: `[N, 3]` centres of splats.
        solid: `[N]` bool, those that make up the body; the others hang on the nearest of them.
        nodes: how many.
    """
    rows = np.flatnonzero(solid) if solid.sum() > nodes else np.arange(len(points))
    cells = grid_cells(points[rows], DENSE_LIMIT)
    anchors = points[rows[np.unique(cells, return_index=True)[1]]].astype(np.float64)
    anchors = anchors[np.unique(anchors, axis=0, return_index=True)[1]]
    distance, found = cKDTree(anchors).query(anchors, k=min(NEIGHBOURS + 1, len(anchors)))
    reach = distance.reshape(len(anchors), -1)[:, -1]
    kept = np.flatnonzero(reach <= LONELY * np.median(reach))
    anchors = anchors[kept]
    compact = np.full(len(reach), -1)
    compact[kept] = np.arange(len(kept))
    links = compact[found.reshape(len(reach), -1)[kept]]
    edges = np.stack([np.repeat(np.arange(len(kept)), links.shape[1]), links.reshape(-1)], 1)
    adjacency = join_pieces(anchors, _adjacency(anchors, edges[(edges[:, 1] >= 0) & (edges[:, 0] != edges[:, 1])]))
    chosen, paths = _farthest_points(anchors, adjacency, min(nodes, len(anchors)))
    nearest, weights = _hang(paths)
    at = cKDTree(anchors).query(points)[1]
    return Graph(
        nodes=anchors[chosen].astype(np.float32),
        vertex_nodes=nearest[at].astype(np.int32),
        vertex_weights=weights[at].astype(np.float32),
        edges=_node_edges(nearest, weights),
    )


def grid_cells(points: np.ndarray, count: int) -> np.ndarray:
    """Return `[N]` numbers, from 0, of the cells of the finest cubic grid that has at most `count` of them occupied.

    The grid's step is found to within 2 %; `N <= count` points get a cell each.
    """
    if len(points) <= count:
        return np.arange(len(points))
    low = points.min(0)
    extent = max(float(np.ptp(points, axis=0).max()), 1e-12)

    def numbers(step: float) -> np.ndarray:
        place = np.floor((points - low) / step).astype(np.int64)
        return (place[:, 0] << 42) + (place[:, 1] << 21) + place[:, 2]

    # 2^20 steps along an axis fit into the key; a step beyond the extent makes one cell
    fine, coarse = extent / (1 << 20), 1.001 * extent
    while coarse > 1.02 * fine:
        middle = float(np.sqrt(fine * coarse))
        if len(np.unique(numbers(middle))) <= count:
            coarse = middle
        else:
            fine = middle
    return np.unique(numbers(coarse), return_inverse=True)[1].reshape(-1)


def weld(vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices of one position (to 1e-5 of the mesh's size).

    Returns:
        `[W, 3]` float64 distinct positions and, for each of the N vertices, its row there.
    """
    extent = max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    cells = np.round((vertices - vertices.min(0)) / (1e-5 * extent)).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return vertices[first].astype(np.float64), inverse.reshape(-1)


def unique_edges(faces: np.ndarray) -> np.ndarray:
    """Return `[E, 2]` undirected edges of triangles, each once, without loops."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def join_pieces(points: np.ndarray, adjacency: csr_array) -> csr_array:
    """Tie loose pieces (eyes, armour, separate limbs) to their closest neighbours until one piece remains.

    Each round ties every piece by its closest vertex pairs to other pieces, so the pieces at least halve.
    """
    tree = cKDTree(points)
    while True:
        pieces, label = connected_components(adjacency, directed=False)
        if pieces == 1:
            return adjacency
        to, gap = np.full(len(points), -1), np.full(len(points), np.inf)
        # the largest piece need not look for others: they find it
        open_rows = np.flatnonzero(label != np.bincount(label).argmax())
        reach = min(16, len(points))
        while len(open_rows):
            distance, found = tree.query(points[open_rows], k=reach)
            foreign = label[found] != label[open_rows, None]
            hit = foreign.any(1)
            column = foreign.argmax(1)[hit]
            to[open_rows[hit]] = found[hit, column]
            gap[open_rows[hit]] = distance[hit, column]
            # vertices deep inside a piece do not matter once their piece has found its bridges
            settled = np.unique(label[open_rows[hit]])
            open_rows = open_rows[~hit & ~np.isin(label[open_rows], settled)]
            reach = min(reach * 4, len(points))
        rows = np.lexsort((gap, label))
        rows = rows[to[rows] >= 0]
        _, start = np.unique(label[rows], return_index=True)
        rank = np.arange(len(rows)) - np.repeat(start, np.diff(np.append(start, len(rows))))
        rows = rows[rank < BRIDGES]
        adjacency = adjacency + _adjacency(points, np.stack([rows, to[rows]], 1))


def joined_edges(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return `[E, 2]` undirected edges, each once: those given and the ties between pieces (see `join_pieces`).

    Args:
        points: `[W, 3]`, all of which may be tied.
        edges: `[E', 2]` undirected.
    """
    used, compact = np.unique(edges, return_inverse=True)
    joined = coo_array(join_pieces(points[used], _adjacency(points[used], compact.reshape(-1, 2))))
    rows = np.stack([joined.row, joined.col], 1)
    return used[rows[rows[:, 0] < rows[:, 1]]]


def _adjacency(points: np.ndarray, edges: np.ndarray) -> csr_array:
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    # an explicit zero would read as "no edge" to the path search
    length = np.maximum(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1), 1e-9)
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    return csr_array(coo_array((np.tile(length, 2), (rows, columns)), shape=(len(points), len(points))))


def _cluster(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number the vertices by cluster: connected within one cell of a grid; every vertex its own if there are few."""
    if len(points) <= DENSE_LIMIT:
        return np.arange(len(points))
    # a closed surface of extent 1 meets about 3 / cell^2 cells
    cell = np.ptp(points, axis=0).max() * np.sqrt(3.0 / DENSE_LIMIT)
    cells = np.floor(points / cell).astype(np.int64)
    same = edges[(cells[edges[:, 0]] == cells[edges[:, 1]]).all(1)]
    links = coo_array((np.ones(len(same)), (same[:, 0], same[:, 1])), shape=(len(points), len(points)))
    return connected_components(csr_array(links), directed=False)[1].astype(np.int64)


def _farthest_points(points: np.ndarray, adjacency: csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen rows `[M]` and path lengths from each to every point `[M, W]`."""
    chosen = [int(np.argmax(np.linalg.norm(points - points.mean(0), axis=1)))]
    distance = np.empty((count, len(points)))
    nearest = np.full(len(points), np.inf)
    for node in range(count):
        distance[node] = dijkstra(adjacency, directed=False, indices=chosen[node])
        nearest = np.minimum(nearest, distance[node])
        if node + 1 < count:
            chosen.append(int(nearest.argmax()))
    return np.array(chosen), distance


def _hang(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the four nearest nodes of every point and their weights from path lengths `[M, W]`."""
    count = len(distance)
    order = np.argsort(distance, axis=0, kind="stable")[: NODES_PER_VERTEX + 1].T
    reach = np.take_along_axis(distance.T, order, 1)
    # with no fifth node the weights still fall off, reaching zero beyond the farthest
    horizon = reach[:, -1:] if count > NODES_PER_VERTEX else reach[:, -1:] * 1.5
    weights = np.square(np.clip(1.0 - reach[:, :NODES_PER_VERTEX] / np.maximum(horizon, 1e-12), 0.0, 1.0))
    weights[:, 0] = np.maximum(weights[:, 0], 1e-6)
    weights /= weights.sum(1, keepdims=True)
    missing = NODES_PER_VERTEX - weights.shape[1]
    nearest = np.pad(order[:, :NODES_PER_VERTEX], ((0, 0), (0, max(missing, 0))))
    return nearest, np.pad(weights, ((0, 0), (0, max(missing, 0))))


def _node_edges(vertex_nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    first, second = np.meshgrid(np.arange(NODES_PER_VERTEX), np.arange(NODES_PER_VERTEX))
    pairs = np.stack([vertex_nodes[:, first.ravel()], vertex_nodes[:, second.ravel()]], -1).reshape(-1, 2)
    both = (weights[:, first.ravel()] * weights[:, second.ravel()] > 0).reshape(-1)
    pairs = pairs[both & (pairs[:, 0] != pairs[:, 1])]
    return np.unique(pairs, axis=0).astype(np.int64).reshape(-1, 2)
