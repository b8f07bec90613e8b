import numpy as np

from animate4d.core.tracks import Tracks
from animate4d.tracks.queries import eroded, grid_queries, sample_points


def disc(size: int, radius: float) -> np.ndarray:
    row, column = np.mgrid[:size, :size] + 0.5
    return (((row - size / 2) ** 2 + (column - size / 2) ** 2) < radius**2).astype(np.uint8) * 255


def test_points_lie_inside_the_eroded_mask_at_cell_centres():
    mask = disc(60, 22)
    queries, valid = grid_queries(mask[None], 15)
    points = queries[0][valid[0]]
    assert len(points) > 50
    assert np.allclose(points / 4 - 0.5, np.round(points / 4 - 0.5))  # 15 cells of 4 px, half a cell in
    column, row = points.astype(int).T
    assert eroded(mask)[row, column].all()
    assert np.linalg.norm(points - 30, axis=1).max() < 22 - 0.5


def test_each_view_uses_its_own_mask_and_is_padded_to_the_largest():
    masks = np.stack([disc(64, 25), np.zeros((64, 64), np.uint8), disc(64, 12)])
    queries, valid = grid_queries(masks)
    assert queries.shape == (3, valid[0].sum(), 2)
    assert valid[0].all()
    assert not valid[1].any()
    assert 8 <= valid[2].sum() < valid[0].sum()


def test_thin_objects_get_a_finer_grid():
    mask = np.zeros((64, 64), np.uint8)
    mask[10:50, 31:33] = 255  # two pixels wide: erosion leaves nothing
    queries, valid = grid_queries(mask[None])
    assert valid.sum() >= 8
    assert ((queries[0] >= (31, 10)) & (queries[0] <= (33, 50))).all()


def test_one_pixel_object_gives_one_point():
    mask = np.zeros((32, 32), np.uint8)
    mask[7, 9] = 255
    queries, valid = grid_queries(mask[None])
    assert valid.sum() == 1
    assert np.allclose(queries[0, 0], (9.5, 7.5))


def test_sampling_takes_visible_points_once_and_pads():
    rng = np.random.default_rng(0)
    xy = np.arange(2 * 3 * 20 * 2, dtype=np.float32).reshape(2, 3, 20, 2)
    visible = np.ones((2, 3, 20), np.float32)
    visible[0, 0, 5:] = 0
    tracks = Tracks(xy=xy, visible=visible, tracker="exact/1")
    drawn = sample_points(tracks, 8, rng)
    assert drawn.xy.shape == (2, 3, 8, 2)
    assert (drawn.visible[0] > 0).sum(1).tolist() == [5, 5, 5]
    assert set(map(tuple, drawn.xy[0, 0, :5])) == set(map(tuple, xy[0, 0, :5]))
    assert len(set(map(tuple, drawn.xy[1, 0]))) == 8
    # One point keeps its column in every frame.
    assert np.array_equal(drawn.xy[1, 1] - drawn.xy[1, 0], np.full((8, 2), 40.0))


def test_sampling_repeats_with_the_same_generator_state():
    tracks = Tracks(
        xy=np.random.default_rng(1).random((1, 2, 30, 2), np.float32),
        visible=np.ones((1, 2, 30), np.float32),
        tracker="t",
    )
    first, second = (sample_points(tracks, 8, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.xy, second.xy)
