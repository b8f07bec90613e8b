"""Videos out of memory, whole and broken."""

import numpy as np
import pytest

from animate4d.core.errors import SourceError
from animate4d.io import mp4
from animate4d.io.mp4 import decode_video


@pytest.fixture(scope="module")
def coded(release_writer):
    ramp = np.linspace(20, 230, 64).astype(np.uint8)
    frames = np.stack([np.stack(np.meshgrid(ramp, np.full(48, 10 * step, np.uint8))[:1] * 3, -1) for step in range(9)])
    return frames, release_writer(crf=12).mp4(frames)


def test_all_frames_come_back_in_rgb(coded):
    frames, data = coded
    decoded = decode_video(data)
    assert (decoded.shape, decoded.dtype) == (frames.shape, np.uint8)
    assert np.abs(decoded.astype(int) - frames).mean() < 3


def test_red_is_red(release_writer):
    red = np.zeros((3, 32, 32, 3), np.uint8)
    red[..., 0] = 200
    channels = decode_video(release_writer().mp4(red)).mean((0, 1, 2))
    assert channels[0] > 180
    assert channels[1:].max() < 30


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: b"x" * 3000, lambda data: data[: len(data) // 2]])
def test_what_is_no_video_is_one_line(coded, spoil, capfd):
    with pytest.raises(SourceError, match="not a video") as error:
        decode_video(spoil(coded[1]))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_what_is_too_large_is_refused(coded, monkeypatch):
    monkeypatch.setattr(mp4, "MAX_FRAMES", 5)
    with pytest.raises(SourceError, match="more than 5 frames"):
        decode_video(coded[1])
    monkeypatch.setattr(mp4, "MAX_SIDE", 40)
    with pytest.raises(SourceError, match="64 x 48"):
        decode_video(coded[1])
