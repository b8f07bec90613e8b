import pytest
import torch
from torch.nn import functional as F

from animate4d.tracks.cotracker3.encoder import normalised_
from animate4d.tracks.cotracker3.model import CoTracker3, resized_rows, time_table

# Golden numbers, computed once with the authors' code: weights, clip and queries are formulas (conftest).
GOLDEN_QUERIES = torch.tensor([[[0, 20, 30], [0, 50.5, 12.25], [2, 70, 40], [5, 10, 55]]])
GOLDEN_XY = """
20.3660 37.1416 50.5751 19.3045 70.3771 46.9264 10.3915 61.6119
17.2966 34.1172 47.5052 16.2623 67.2758 43.8831  7.3079 58.5832
19.9931 36.3808 50.3296 18.5681 70.1858 46.1553 10.0697 60.7972
17.6881 35.8131 47.9879 18.0900 67.8054 45.8457  7.7988 60.4364
20.6760 38.4773 51.0187 20.7094 70.7956 48.2981 10.7766 62.9774
21.0802 38.3142 51.2975 20.4750 71.1384 48.1647 11.1390 62.7483
"""
GOLDEN_VISIBILITY = """
.0158 .0147 .0164 .0179
.0006 .0006 .0006 .0007
.0082 .0081 .0074 .0088
.0011 .0010 .0010 .0012
.0008 .0007 .0007 .0007
.0015 .0013 .0013 .0014
"""
GOLDEN_CONFIDENCE = """
.3698 .4456 .3954 .4218
.0496 .0613 .0535 .0620
.2190 .2705 .2519 .2651
.1506 .1656 .1441 .1690
.1515 .1750 .1515 .1895
.2397 .2741 .2298 .3114
"""


def numbers(table: str) -> torch.Tensor:
    return torch.tensor([[float(number) for number in line.split()] for line in table.strip().splitlines()])


def frame_by_frame(maps, count):
    return [maps.between(index, index + 1) for index in range(count)]


def test_golden_tracks(released, waves):
    video = waves(6, 64, 96)
    with torch.inference_mode():
        features = released.fnet(2 * (video[0] / 255) - 1)
    assert (features.mean(), features.std()) == (pytest.approx(0.0336, abs=1e-4), pytest.approx(0.7287, abs=1e-4))
    assert features[0, 0, 0, :3].tolist() == pytest.approx([2.1515, 0.8490, 0.6581], abs=1e-4)
    found = released(video, GOLDEN_QUERIES, iterations=3)
    assert (found.xy[0].flatten(1) - numbers(GOLDEN_XY)).abs().max() < 1e-3
    assert (found.visibility[0] - numbers(GOLDEN_VISIBILITY)).abs().max() < 1e-4
    assert (found.confidence[0] - numbers(GOLDEN_CONFIDENCE)).abs().max() < 1e-4


def test_state_dict_is_the_released_one(released):
    state = released.state_dict()
    assert len(state) == 188
    assert sum(parameter.numel() for parameter in released.parameters()) == 25_385_700
    assert state["updateformer.virual_tracks"].shape == (1, 64, 1, 384)
    assert state["corr_mlp.fc1.weight"].shape == (384, 49 * 49)
    assert {name for name in state if "downsample" in name} == {
        f"fnet.layer{layer}.0.downsample.0.{part}" for layer in (2, 3, 4) for part in ("weight", "bias")
    }
    assert not any(word in name for name in state for word in ("norm1", "norm2", "norm3"))


def test_time_table_is_sines_then_cosines():
    table = time_table(60, 1110)[0]
    assert table[1, :3].tolist() == pytest.approx([0.8415, 0.8325, 0.8234], abs=1e-4)
    assert table[1, 555:558].tolist() == pytest.approx([0.5403, 0.5541, 0.5675], abs=1e-4)
    assert resized_rows(table[None], 60)[0] is not None
    assert torch.allclose(resized_rows(table[None], 120)[0, 1], 0.75 * table[0] + 0.25 * table[1])


def test_a_batch_of_clips_equals_single_clips(offline, waves, queries):
    video = waves(20, 48, 64, clips=3)
    together = offline(video, queries)
    moved = (together.xy - queries[:, None, :, 1:]).abs().amax()
    assert moved > 0.5  # or the comparison would say nothing
    for clip in range(3):
        alone = offline(video[clip : clip + 1], queries[clip : clip + 1])
        for name in ("xy", "visibility", "confidence"):
            assert torch.allclose(getattr(together, name)[clip], getattr(alone, name)[0], atol=2e-5), name


def test_slices_and_chunks_change_nothing(offline, waves, queries):
    video = waves(20, 48, 64, clips=3)
    whole = offline(offline.encode(video, frames_at_once=60), queries)
    sliced = CoTracker3(offline.config, slice_tracks=2).eval()
    sliced.load_state_dict(offline.state_dict())
    for frames_at_once in (1, 7):
        found = sliced(sliced.encode(video, frames_at_once=frames_at_once), queries)
        assert (found.xy - whole.xy).abs().max() < 2e-5
        # float32's rounding differs between processors: 1.2e-6 was seen; a slice or chunk gone wrong moves it by 1e-3
        assert (found.visibility - whole.visibility).abs().max() < 5e-6


def test_features_serve_any_number_of_query_sets(offline, waves, queries, monkeypatch):
    video = waves(20, 48, 64)
    seen = []
    forward = offline.fnet.forward
    monkeypatch.setattr(offline.fnet, "forward", lambda images: seen.append(len(images)) or forward(images))
    maps = offline.encode(video)
    sets = [queries[clip : clip + 1] for clip in range(3)]
    shared = [offline(maps, points) for points in sets]
    assert sum(seen) == 20
    for points, found in zip(sets, shared, strict=True):
        assert torch.equal(offline(video, points).xy, found.xy)


def test_padding_is_not_seen_by_the_points(offline, waves, queries):
    video = waves(20, 48, 64)
    points = queries[:1]
    padded = torch.cat([points, torch.tensor([[[0.0, 5.0, 5.0], [3.0, 60.0, 40.0]]])], dim=1)
    valid = torch.tensor([[True] * 7 + [False] * 2])
    alone = offline(video, points)
    assert (offline(video, padded, valid=valid).xy[:, :, :7] - alone.xy).abs().max() < 2e-5
    assert (offline(video, padded).xy[:, :, :7] - alone.xy).abs().max() > 1e-3  # company does matter
    assert offline(video, points, valid=torch.zeros(1, 7, dtype=torch.bool)).xy.isfinite().all()


@pytest.mark.parametrize("frames", [1, 2, 75])
def test_clips_of_any_length(offline, waves, frames):
    points = torch.tensor([[[frames - 1.0, 20.0, 30.0]]])
    found = offline(waves(frames, 32, 40), points, iterations=2)
    assert found.xy.shape == (1, frames, 1, 2)
    assert found.visibility.shape == found.confidence.shape == (1, frames, 1)
    assert found.xy.isfinite().all()


def test_queries_outside_the_clip_are_refused_and_no_query_is_fine(offline, waves):
    video = waves(4, 32, 40)
    for frame in (-1.0, 4.0):
        with pytest.raises(ValueError, match="4 frames"):
            offline(video, torch.tensor([[[frame, 5.0, 5.0]]]))
    assert offline(video, torch.zeros(1, 0, 3)).xy.shape == (1, 4, 0, 2)


def test_points_may_leave_the_picture(offline, waves):
    points = torch.tensor([[[0.0, -500.0, 30.0], [1.0, 1e6, -1e6], [2.0, 39.0, 31.0]]])
    assert offline(waves(4, 32, 40), points).xy.isfinite().all()


def test_nothing_asks_for_gradients(offline, waves, queries):
    found = offline(waves(4, 32, 40), queries[:1, :1] * 0, iterations=1)
    assert not found.xy.requires_grad
    assert all(parameter.grad is None for parameter in offline.parameters())


def test_half_precision_stays_near(offline, waves, queries):
    video = waves(20, 48, 64)
    exact = offline(video, queries[:1], iterations=4)
    with torch.autocast("cpu", torch.bfloat16):
        half = offline(offline.encode(video, dtype=torch.bfloat16), queries[:1], iterations=4)
    assert half.xy.dtype == half.visibility.dtype == torch.float32
    assert 0 < (half.xy - exact.xy).abs().max() < 0.5
    assert (half.confidence - exact.confidence).abs().max() < 0.1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_is_exact_where_fused_ones_are_not(layout):
    values = torch.randn(2, 8, 40, 50, generator=torch.Generator().manual_seed(0)) * 0.2 + 5
    exact = F.instance_norm(values.double())
    assert (normalised_(values.clone(memory_format=layout)) - exact).abs().max() < 1e-5
