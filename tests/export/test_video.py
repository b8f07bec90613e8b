"""Videos play, keep their frames and never appear half written."""

import imageio.v2 as imageio
import numpy as np
import pytest
from PIL import Image

from animate4d.export.video import view_grid, write_mp4, write_webp_animation


@pytest.fixture
def frames():
    """A bright square that moves to the right over a grey ramp."""
    video = np.tile(np.linspace(60, 160, 49, dtype=np.uint8)[None, None, :, None], (6, 35, 1, 3))
    for index in range(6):
        video[index, 10:20, 6 * index : 6 * index + 10] = (250, 40, 40)
    return video


def test_mp4_keeps_size_count_and_content(frames, tmp_path):
    write_mp4(tmp_path / "deep" / "a.mp4", frames, 10, loops=2)
    with imageio.get_reader(tmp_path / "deep" / "a.mp4") as reader:
        read = np.stack([np.asarray(frame) for frame in reader])
        assert reader.get_meta_data()["fps"] == pytest.approx(10)
    assert read.shape == (12, 36, 50, 3)
    assert np.abs(read[:6, :35, :49].astype(int) - frames).mean() < 6
    assert np.abs(read[6:].astype(int) - read[:6]).mean() < 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.mp4"]


def test_webp_repeats_for_ever(frames, tmp_path):
    write_webp_animation(tmp_path / "a.webp", frames, 12.5)
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.n_frames == 6
        assert picture.info["loop"] == 0
        picture.seek(3)
        picture.load()
        assert picture.info["duration"] == 80
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - frames[3]).mean() < 6


def test_view_grid_shows_every_view_in_step(frames):
    video = np.stack([frames, frames[::-1], 255 - frames])
    row = view_grid(video)
    assert row.shape == (6, 35, 3 * 49 + 4, 3)
    np.testing.assert_array_equal(row[2, :, 51 : 51 + 49], video[1, 2])
    square = view_grid(video, columns=2, gap=0)
    assert square.shape == (6, 70, 98, 3)
    np.testing.assert_array_equal(square[4, 35:, :49], video[2, 4])
    assert (square[:, 35:, 49:] == 40).all()


@pytest.mark.parametrize(
    "bad",
    [np.zeros((2, 4, 4, 3), np.float32), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)],
    ids=["float", "empty", "one picture"],
)
def test_wrong_frames_are_refused_and_nothing_is_written(bad, tmp_path):
    with pytest.raises(ValueError, match="frames"):
        write_mp4(tmp_path / "a.mp4", bad, 10)
    with pytest.raises(ValueError, match="frames"):
        write_webp_animation(tmp_path / "a.webp", bad, 10)
    assert not list(tmp_path.iterdir())


def test_frame_rate_must_be_positive(frames, tmp_path):
    with pytest.raises(ValueError, match="fps"):
        write_mp4(tmp_path / "a.mp4", frames, 0)


def test_a_failing_encoder_leaves_no_file(frames, tmp_path, monkeypatch):
    class Broken:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return False

        def append_data(self, frame):
            raise OSError("disk full")

    monkeypatch.setattr(imageio, "get_writer", lambda *args, **options: Broken())
    with pytest.raises(OSError, match="disk full"):
        write_mp4(tmp_path / "a.mp4", frames, 10)
    assert not list(tmp_path.iterdir())
