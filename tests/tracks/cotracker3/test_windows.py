import pytest
import torch

from animate4d.tracks.cotracker3.windows import WindowRun, track_windows


def test_one_window_is_the_network_as_it_is(online, waves, queries):
    video, points = waves(8, 48, 64), queries[:1] * torch.tensor([0.3, 1, 1])
    assert torch.equal(track_windows(online, video, points).xy, online(video, points).xy)


def test_later_windows_start_from_earlier_ones(online, waves, queries):
    video, points = waves(12, 48, 64), queries[:1] * torch.tensor([0.0, 1, 1])
    found = track_windows(online, video, points)
    assert torch.equal(found.xy[:, :4], online(video[:, :8], points).xy[:, :4])
    assert (found.xy[:, 4:] - online(video[:, 4:], points).xy).abs().max() > 1e-2


@pytest.mark.parametrize("pieces", [[20], [8, 4, 4, 4], [3] * 6 + [2], [13, 7]])
def test_pieces_of_any_length_give_the_same_tracks(online, waves, queries, pieces):
    video = waves(20, 48, 64)
    whole = track_windows(online, video, queries[:1])
    run = WindowRun(online, queries[:1])
    for number, piece in enumerate(video.split(pieces, dim=1)):
        found = run.push(piece, last=number == len(pieces) - 1)
    assert (found.xy - whole.xy).abs().max() < 2e-5
    assert (found.visibility - whole.visibility).abs().max() < 1e-6


def test_tracks_grow_by_half_windows_and_wait_for_the_first(online, waves, queries):
    run = WindowRun(online, queries[:1] * torch.tensor([0.0, 1, 1]))
    lengths = []
    for frame in waves(14, 48, 64).split(1, dim=1):
        found = run.push(frame)
        lengths.append(0 if found is None else found.xy.shape[1])
    assert lengths == [0] * 7 + [8] * 4 + [12] * 2 + [12]
    assert run.push(waves(1, 48, 64), last=True).xy.shape[1] == 15


def test_every_frame_goes_through_the_encoder_once(online, waves, queries, monkeypatch):
    seen = []
    forward = online.fnet.forward
    monkeypatch.setattr(online.fnet, "forward", lambda images: seen.append(len(images)) or forward(images))
    track_windows(online, waves(20, 48, 64), queries[:1])
    assert sum(seen) == 20


def test_two_runs_at_once_do_not_meet(online, waves, queries):
    one, other = WindowRun(online, queries[:1]), WindowRun(online, queries[1:2])
    video = waves(20, 48, 64)
    for piece in video.split(10, dim=1):
        first, second = one.push(piece), other.push(piece)
    assert torch.equal(first.xy, WindowRun(online, queries[:1]).push(video).xy)
    assert torch.equal(second.xy, WindowRun(online, queries[1:2]).push(video).xy)


def test_a_batch_with_queries_in_any_frame_equals_single_clips(online, waves, queries):
    video = waves(20, 48, 64, clips=3)
    together = track_windows(online, video, queries)
    for clip in range(3):
        alone = track_windows(online, video[clip : clip + 1], queries[clip : clip + 1])
        assert (together.xy[clip] - alone.xy[0]).abs().max() < 2e-5


def test_a_point_is_unknown_until_its_frame_is_reached(online, waves):
    early, late = [0.0, 20.0, 30.0], [10.0, 40.0, 20.0]
    video = waves(16, 48, 64)
    here = track_windows(online, video, torch.tensor([[early, late]]))
    moved = track_windows(online, video, torch.tensor([[early, [10.0, 10.0, 10.0]]]))
    difference = (here.xy - moved.xy)[:, :, 0].abs()
    assert difference[:, :4].max() < 1e-4
    assert difference[:, 8:].max() > 1e-3


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_short_clips_are_filled_up_with_their_last_frame(online, waves, frames):
    video, points = waves(frames, 48, 64), torch.tensor([[[0.0, 20.0, 30.0]]])
    filled = torch.cat([video, video[:, -1:].expand(-1, (8 if frames < 8 else 12) - frames, -1, -1, -1)], dim=1)
    found = track_windows(online, video, points)
    assert found.xy.shape[1] == frames
    assert torch.equal(found.xy, track_windows(online, filled, points).xy[:, :frames])
