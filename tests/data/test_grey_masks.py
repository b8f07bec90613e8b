"""Masks from a plain background, against truth that is known."""

import cv2
import numpy as np
import pytest

from animate4d.data.grey_masks import find_background, mask_confidence, object_masks
from animate4d.io.mp4 import decode_video

SIZE = 96


def disc(shift=0.0, radius=0.3):
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return (rows - SIZE / 2) ** 2 + (columns - SIZE / 2 - shift) ** 2 < (radius * SIZE) ** 2


def clip(colour, grey=127, frames=6, **options):
    """A disc of one colour that moves over grey."""
    masks = np.stack([disc(2.0 * frame, **options) for frame in range(frames)])
    video = np.full((frames, SIZE, SIZE, 3), grey, np.uint8)
    video[masks] = colour
    return video, masks


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("grey", [127, 128, 255, 0])
@pytest.mark.parametrize("colour", [(30, 30, 30), (200, 40, 40), (60, 180, 80)])
def test_a_moving_object_is_found_on_any_plain_background(colour, grey):
    video, truth = clip(colour, grey)
    background = find_background([video])
    assert np.abs(background.colour - grey).max() <= 1
    assert background.purity == 1
    masks = object_masks(video, background)
    assert iou(masks.alpha, truth) > 0.97
    assert mask_confidence(background, [masks]) > 0.95


def test_an_object_at_the_border_does_not_become_background():
    video, truth = clip((200, 40, 40), radius=0.49)
    background = find_background([video])
    assert np.abs(background.colour - 127).max() <= 1
    assert iou(object_masks(video, background).alpha, truth) > 0.97


def test_through_coding_the_mask_stays_near_the_truth(release_writer):
    video, truth = clip((60, 70, 160), frames=12)
    coded = decode_video(release_writer(crf=26).mp4(video))
    background = find_background([coded])
    assert iou(object_masks(coded, background).alpha, truth) > 0.95


def test_a_hole_stays_open_and_a_grey_spot_inside_is_filled():
    video, truth = clip((200, 40, 40))
    hole = np.stack([disc(2.0 * frame, radius=0.12) for frame in range(6)])
    video[hole] = 127
    opened = object_masks(video, find_background([video])).alpha
    assert iou(opened, truth & ~hole) > 0.97
    video[hole] = 129  # hardly told from the background by its value, but flat and not the background's
    video[hole & (np.indices(hole.shape).sum(0) % 2 == 0)] = 130
    filled = object_masks(video, find_background([video])).alpha
    assert iou(filled, truth) > 0.97


def test_confidence_falls_with_what_cannot_be_told_apart():
    red, _ = clip((200, 40, 40))
    faint, _ = clip((139, 139, 139))
    half, masks = clip((200, 40, 40))
    half[masks & (np.arange(SIZE)[None, :, None] > SIZE / 2)] = 133
    noisy = red.copy()
    noisy[:, ::3] = cv2.applyColorMap(np.arange(SIZE, dtype=np.uint8) * 2, cv2.COLORMAP_JET)[:, 0][None, None]
    scores = {}
    for name, video in {"red": red, "faint": faint, "half": half, "noisy": noisy}.items():
        background = find_background([video])
        scores[name] = mask_confidence(background, [object_masks(video, background)])
    assert scores["red"] > 0.95
    assert scores["half"] < 0.8
    assert scores["faint"] < 0.8
    assert scores["noisy"] < 0.8


def test_the_worst_view_counts_and_nothing_is_no_mask():
    red, _ = clip((200, 40, 40))
    empty = np.full_like(red, 127)
    background = find_background([red, empty])
    masks = [object_masks(video, background) for video in (red, empty)]
    assert not masks[1].alpha.any()
    assert mask_confidence(background, masks) == 0
    assert mask_confidence(background, masks[:1]) > 0.95
