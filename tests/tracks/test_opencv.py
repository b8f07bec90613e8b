import cv2
import numpy as np
import pytest

from animate4d.core.errors import ConfigError
from animate4d.tracks.build import TRACKERS, make_tracker
from animate4d.tracks.queries import grid_queries

SIZE, FRAMES = 128, 8


def moving_disc(texture: np.ndarray, step_px: float = 1.5, turn_deg: float = 2.0):
    """A textured disc that shifts and turns on grey; returns video, masks, and the exact map of frame-0 points."""
    row, column = np.mgrid[:SIZE, :SIZE]
    disc = (((row - 63.5) ** 2 + (column - 55.5) ** 2) < 36**2).astype(np.float32)
    video, masks, maps = [], [], []
    for frame in range(FRAMES):
        matrix = cv2.getRotationMatrix2D((55.5, 63.5), -turn_deg * frame, 1.0)
        matrix[:, 2] += (step_px * frame, 0.4 * step_px * frame)
        image = cv2.warpAffine(texture, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        mask = cv2.warpAffine(disc, matrix, (SIZE, SIZE))[..., None]
        video.append(np.clip(image * mask + 128 * (1 - mask), 0, 255).astype(np.uint8))
        masks.append((mask[..., 0] * 255).astype(np.uint8))
        maps.append(matrix)
    return np.stack(video)[None], np.stack(masks)[None], maps


def truth(queries: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    return np.stack([(queries - 0.5) @ matrix[:, :2].T + matrix[:, 2] + 0.5 for matrix in maps])


def rich_texture() -> np.ndarray:
    noise = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32) * 255
    return cv2.resize(noise, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(("name", "limit_px"), [("opencv-lk", 0.3), ("opencv-dis", 0.8)])
def test_textured_points_are_followed_to_a_fraction_of_a_pixel(name, limit_px):
    video, masks, maps = moving_disc(rich_texture())
    queries, _ = grid_queries(masks[:, 0])
    tracks = make_tracker(name).track(video, queries, masks)
    assert tracks.tracker.startswith(name)
    assert tracks.xy.shape == (1, FRAMES, queries.shape[1], 2)
    alive = tracks.visible[0, -1] > 0
    assert alive.mean() > 0.7
    error = np.linalg.norm(tracks.xy[0] - truth(queries[0], maps), axis=-1)
    assert error[:, alive].mean() < limit_px
    # A shift of half a pixel everywhere would mean the pixel-centre convention was lost.
    assert np.abs((tracks.xy[0] - truth(queries[0], maps))[:, alive].mean((0, 1))).max() < 0.25


def test_smooth_surfaces_are_handed_to_dis():
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    smooth = np.stack([60 + row, 200 - 0.5 * column, 120 + 0.3 * row], axis=-1)
    video, masks, _ = moving_disc(smooth, step_px=0.5)
    queries, _ = grid_queries(masks[:, 0])
    tracks = make_tracker("opencv-lk").track(video, queries, masks)
    assert (tracks.visible[0, -1] > 0).sum() >= 8


def test_lost_points_stay_lost_and_never_leave_frame_or_mask():
    video, masks, _ = moving_disc(rich_texture(), step_px=12.0)
    queries, _ = grid_queries(masks[:, 0])
    tracks = make_tracker("opencv-lk").track(video, queries, masks)
    seen = tracks.visible[0] > 0
    assert (seen[1:] <= seen[:-1]).all()
    assert not seen[-1].all()
    frame, point = np.nonzero(seen)
    column, row = np.rint(tracks.xy[0, frame, point] - 0.5).astype(int).T
    assert (masks[0, frame, row, column] >= 128).all()


def test_views_do_not_influence_one_another_and_runs_repeat():
    video, masks, _ = moving_disc(rich_texture())
    queries, _ = grid_queries(masks[:, 0])
    alone = make_tracker("opencv-lk").track(video, queries, masks)
    both = make_tracker("opencv-lk").track(
        np.concatenate([video[..., ::-1], video]), queries.repeat(2, 0), masks.repeat(2, 0)
    )
    assert np.array_equal(alone.xy[0], both.xy[1])
    assert np.array_equal(alone.visible[0], both.visible[1])


@pytest.mark.parametrize("name", ["exact", "cotracker3", "optical-illusion"])
def test_names_without_a_tracker_are_refused_with_a_hint(name):
    with pytest.raises(ConfigError, match=name) as error:
        make_tracker(name)
    assert "opencv-lk" in str(error.value)
    assert "\n" not in str(error.value)
    assert name in TRACKERS or "unknown" in str(error.value)
