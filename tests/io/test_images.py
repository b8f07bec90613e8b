"""Strips come back byte for byte, and nothing but WebP is opened."""

import io

import numpy as np
import pytest
from PIL import Image

from animate4d.core.errors import ShardError
from animate4d.io.images import composite_grey, contact_sheet, decode_strip, encode_strip, save_png


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 12, 16, 4), dtype=np.uint8)


def test_strips_keep_every_byte_also_under_zero_alpha(frames):
    frames[2, ..., 3] = 0
    np.testing.assert_array_equal(decode_strip(encode_strip(frames), 5), frames)


def test_only_the_wanted_frames_come_back_in_the_order_asked(frames):
    np.testing.assert_array_equal(decode_strip(encode_strip(frames), 5, [3, 0, 3]), frames[[3, 0, 3]])


def test_fully_opaque_strips_come_back_with_alpha(frames):
    frames[..., 3] = 255
    np.testing.assert_array_equal(decode_strip(encode_strip(frames), 5), frames)


def test_strips_that_do_not_fit_are_refused(frames):
    with pytest.raises(ValueError, match="16383"):
        encode_strip(np.zeros((300, 64, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="RGBA"):
        encode_strip(frames[..., :3])
    with pytest.raises(ShardError, match="cannot hold 7 frames"):
        decode_strip(encode_strip(frames), 7)


@pytest.mark.parametrize("cut", [0, 10, 30, 0.5, 0.98])
def test_damaged_strips_are_named_errors(frames, cut):
    data = encode_strip(frames)
    with pytest.raises(ShardError, match="not a readable WebP"):
        decode_strip(data[: int(cut * len(data)) if cut < 1 else cut], 5)


def test_other_formats_are_not_opened(frames):
    stream = io.BytesIO()
    Image.fromarray(frames[0]).save(stream, "PNG")
    with pytest.raises(ShardError, match="not a readable WebP"):
        decode_strip(stream.getvalue(), 1)


def test_grey_shows_where_nothing_is():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    assert composite_grey(rgba).tolist() == [[[10, 20, 30], [128, 128, 128], [64, 64, 64]]]


def test_contact_sheets_hold_all_pictures(tmp_path):
    red, blue = (np.full((8, 8, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255)))
    sheet = contact_sheet([("größer ✓", [red, blue]), ("second", [blue])], columns_per_group=1)
    assert sheet.shape[2] == 3
    assert (sheet == (255, 0, 0)).all(-1).sum() == 64
    assert (sheet == (0, 0, 255)).all(-1).sum() == 128
    save_png(tmp_path / "sheet.png", sheet)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), sheet)
