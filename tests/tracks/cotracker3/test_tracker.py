import numpy as np
import pytest
import torch
from torch.nn import functional as F

from animate4d.core.errors import ConfigError
from animate4d.tracks.cotracker3.config import TrackingSettings
from animate4d.tracks.cotracker3.model import Estimate
from animate4d.tracks.cotracker3.tracker import CoTracker3Tracker

SMALL = {"height": 48, "width": 64, "support": 2, "iterations": 2}


@pytest.fixture(scope="module")
def video(waves):
    return waves(6, 40, 56, clips=2).permute(0, 1, 3, 4, 2).round().to(torch.uint8).numpy()


@pytest.fixture
def tracker(offline):
    return CoTracker3Tracker(offline, "0123456789abcdef", TrackingSettings(**SMALL), device="cpu")


QUERIES = np.array([[[10.5, 20.5], [0.5, 0.5], [55.5, 39.5]], [[30.0, 8.25], [20.0, 20.0], [5.0, 31.0]]], np.float32)


class Standing(CoTracker3Tracker):
    """A network that says every point stays where it was asked, with chosen probabilities."""

    visibility = confidence = 1.0

    def _estimate(self, video, queries, valid):
        self.asked = queries
        shape = (len(queries), video.shape[1], queries.shape[1])
        xy = queries[:, None, :, 1:].expand(*shape, 2)
        return Estimate(
            xy=xy, visibility=torch.full(shape, self.visibility), confidence=torch.full(shape, self.confidence)
        )


@pytest.fixture
def standing(offline):
    return Standing(offline, "f" * 64, TrackingSettings(**SMALL), device="cpu")


def test_pixels_go_to_stretched_ones_and_back(standing, video):
    prediction = standing.predict(video, QUERIES)
    assert np.allclose(prediction.xy, QUERIES[:, None], atol=1e-4)
    # Corner pixels fall on corner pixels: that is how the released weights were trained.
    assert torch.allclose(standing.asked[0, 1:3, 1:], torch.tensor([[0.0, 0.0], [63.0, 47.0]]), atol=1e-4)


def test_support_points_surround_the_picture_and_are_dropped(standing, video):
    standing.track(video, QUERIES, None)
    support = standing.asked[0, 3:]
    assert support.tolist() == [[0, 1, 1], [0, 63, 1], [0, 1, 47], [0, 63, 47]]


def test_the_network_sees_the_stretched_clip(tracker, offline, video):
    images = torch.from_numpy(video).permute(0, 1, 4, 2, 3)[0].float()
    stretched = F.interpolate(images, (48, 64), mode="bilinear", align_corners=True)[None]
    scale = np.array([63 / 55, 47 / 39])
    asked = np.concatenate([np.zeros((1, 3, 1)), (QUERIES[:1] - 0.5) * scale], axis=-1)
    support = np.array([[[0, 1, 1], [0, 63, 1], [0, 1, 47], [0, 63, 47]]])
    points = torch.from_numpy(np.concatenate([asked, support], axis=1)).float()
    plain = offline(stretched, points, iterations=2)
    found = tracker.predict(video[:1], QUERIES[:1])
    assert np.allclose(found.xy[0, 1:], plain.xy[0, 1:, :3].numpy() / scale + 0.5, atol=1e-4)
    assert np.allclose(found.visibility[0, 1:], plain.visibility[0, 1:, :3].numpy(), atol=1e-5)
    assert np.allclose(found.product, found.visibility * found.confidence)


def test_query_frames_hold_the_query_itself(tracker, video):
    frames = np.array([[0, 3, 5], [2, 2, 0]])
    found = tracker.predict(video, QUERIES, query_frames=frames)
    for view in range(2):
        for point in range(3):
            assert np.allclose(found.xy[view, frames[view, point], point], QUERIES[view, point])
            assert found.product[view, frames[view, point], point] == 1.0
    assert not np.allclose(found.xy, tracker.predict(video, QUERIES).xy)


@pytest.mark.parametrize(("visibility", "confidence", "seen"), [(0.9, 0.7, 0.63), (0.9, 0.6, 0), (0.61, 0.95, 0)])
def test_a_point_is_seen_where_visibility_times_confidence_is_high(standing, video, visibility, confidence, seen):
    standing.visibility, standing.confidence = visibility, confidence
    visible = standing.track(video, QUERIES, None).visible
    assert np.allclose(visible[:, 1:], seen)
    assert (visible[:, 0] == 1).all()


def test_points_off_the_mask_are_hidden_where_they_are_off_it(standing, video):
    masks = np.full(video.shape[:4], 255, np.uint8)
    masks[0, 2, 20, 10] = 0  # the pixel of the first view's first point, in one frame
    visible = standing.track(video, QUERIES, masks).visible
    assert visible[0, 2, 0] == 0
    assert (np.delete(visible[0, :, 0], 2) == 1).all()
    assert (visible[0, :, 1:] == 1).all()
    assert (visible[1] == 1).all()


def test_points_off_the_picture_are_hidden(standing, video):
    outside = np.array([[[-0.1, 5.0], [56.0, 5.0], [5.0, 40.0]]] * 2, np.float32)
    assert not standing.track(video, outside, None).visible.any()
    inside = np.array([[[0.0, 5.0], [55.9, 5.0], [5.0, 39.9]]] * 2, np.float32)
    assert standing.track(video, inside, None).visible.all()


def test_a_view_does_not_depend_on_other_views_or_on_padding(tracker, video):
    alone = tracker.predict(video[:1], QUERIES[:1, :2])
    valid = np.array([[True, True, False], [True, True, True]])
    both = tracker.predict(video, QUERIES, valid=valid)
    assert np.abs(both.xy[0, :, :2] - alone.xy[0]).max() < 1e-4
    assert not tracker.track(video, QUERIES, None, valid).visible[0, :, 2].any()


def test_online_points_do_not_exist_before_their_query(online, video):
    tracker = CoTracker3Tracker(online, "0" * 64, TrackingSettings(**SMALL), device="cpu")
    found = tracker.predict(video, QUERIES, query_frames=np.array([[0, 3, 5], [2, 2, 0]]))
    assert not found.product[0, :3, 1].any()
    assert found.product[0, 3:, 1].all()


def test_half_precision_is_a_setting(offline, video, tracker):
    half = CoTracker3Tracker(offline, "0" * 64, TrackingSettings(**SMALL, precision="bf16"), device="cpu")
    difference = np.abs(half.predict(video, QUERIES).xy - tracker.predict(video, QUERIES).xy)
    assert 0 < difference.max() < 1


def test_ids_differ_whenever_labels_may(offline, online):
    def tracker_id(model=offline, fingerprint="a" * 64, **settings) -> str:
        return CoTracker3Tracker(model, fingerprint, TrackingSettings(**settings), device="cpu").id

    ids = [
        tracker_id(),
        tracker_id(model=online),
        tracker_id(fingerprint="b" * 64),
        *(tracker_id(**{name: value}) for name, value in SMALL.items()),
        tracker_id(threshold=0.5),
        tracker_id(precision="bf16"),
    ]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) < 70  # label folders are named after them


@pytest.mark.parametrize("wrong", [{"height": 8}, {"iterations": 0}, {"threshold": 1.0}, {"precision": "fp16"}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TrackingSettings(**wrong)
