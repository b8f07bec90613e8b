"""What is measured of a clip, how it is judged, and when two clips are one."""

from dataclasses import replace

import numpy as np
import pytest

from animate4d.core.cameras import Rig
from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ConfigError
from animate4d.data.schema import ClipMeta, encode_sample
from animate4d.metrics.ssim import ssim
from animate4d.pipeline.curation import (
    ClipFacts,
    MeasureOptions,
    Thresholds,
    find_duplicates,
    judge,
    measure_clip,
    nearest_view,
)

SIZE, FRAMES = 32, 8


def blob(shift, seed, *, radius=7):
    """A textured disc, `shift` pixels right of the middle, `[SIZE, SIZE, 4]`."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    inside = (rows - SIZE / 2) ** 2 + (columns - SIZE / 2 - shift) ** 2 < radius**2
    texture = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
    colours = texture[(rows % 16).astype(int), ((columns - shift) % 16).astype(int)]
    return np.concatenate([colours, inside[..., None] * 255], axis=-1).astype(np.uint8)


def sample(key="fox-00", *, step=1.0, seed=0, views=4, start=0.0, quality=100, **changes):
    """A clip whose object moves by `step` pixels a frame in all views; `step` may be a function of the frame."""
    shifts = [step(frame) if callable(step) else step * frame for frame in range(FRAMES)]
    frames = np.stack([blob(shift, seed(frame) if callable(seed) else seed) for frame, shift in enumerate(shifts)])
    rgba = np.repeat(frames[None], views, axis=0)
    rig = Rig.even(views)
    video = MultiViewVideo(
        rgb=rgba[..., :3],
        alpha=rgba[..., 3],
        camera_to_world=rig.camera_to_world(),
        intrinsics=rig.intrinsics(SIZE),
        times=start + np.arange(FRAMES) / 8,
    )
    facts = {"object": key, "animation": "walk", "caption": "a fox", "motion": 0.1} | changes
    meta = ClipMeta(
        id=key,
        licence="",
        fps=8.0,
        times=video.times,
        camera_to_world=video.camera_to_world,
        intrinsics=video.intrinsics,
        size=SIZE,
        source_sha256="0" * 64,
        generator="test/1",
        **facts,
    )
    return key, encode_sample(video, meta, quality=quality)


def measured(*arguments, options=None, **changes):
    return measure_clip(*sample(*arguments, **changes), options or MeasureOptions())


def rules(facts, **limits):
    return {finding.rule for finding in judge(facts, Thresholds(**limits)) if finding.dropped}


def test_similarity_is_that_of_the_front_view_at_three_times():
    facts, _ = measured(step=0.5)
    on_white = []
    for frame in (0, FRAMES // 4, FRAMES // 2):
        rgba = blob(0.5 * frame, 0)
        on_white.append(np.where(rgba[..., 3:] > 0, rgba[..., :3], 255) / 255.0)
    assert facts.ssim_quarter == pytest.approx(ssim(on_white[0], on_white[1]), abs=1e-6)
    assert facts.ssim_half == pytest.approx(ssim(on_white[0], on_white[2]), abs=1e-6)
    assert facts.ssim_half < facts.ssim_quarter < 1


def test_window_and_background_are_options():
    values = {
        measured(step=0.5, options=MeasureOptions(window=window, background=background))[0].ssim_half
        for window in ("uniform7", "gaussian11")
        for background in ("white", "grey", "black")
    }
    assert len(values) == 6


def test_a_good_clip_fails_no_rule():
    assert rules(measured(step=0.5)[0]) == set()


def test_a_still_clip_and_one_that_falls_apart_are_dropped():
    assert rules(measured(step=0.0)[0]) == {"still"}
    apart, _ = measured(step=0.0, seed=lambda frame: frame)
    assert rules(apart, min_ssim=0.9) == {"distorted"}
    assert 0 < apart.ssim_half < 0.9


def test_what_moves_only_between_the_times_looked_at_is_still_and_m_says_otherwise():
    facts, _ = measured(step=lambda frame: 3.0 * (frame in (1, 3, 5, 7)))
    assert rules(facts) == {"still"}
    assert facts.magnitude > 0.001


def test_the_side_view_saves_what_the_front_hides():
    facts, _ = measured(step=0.5)
    hidden = replace(facts, ssim_quarter=0.99, ssim_half=0.99)
    assert rules(hidden) == {"still"}
    assert rules(hidden, side=True) == set()
    torn = replace(facts, side_half=0.3)
    assert rules(torn) == set()
    assert rules(torn, side=True) == {"distorted"}


def test_an_object_that_leaves_the_picture_is_dropped():
    facts, _ = measured(step=2.0)
    assert facts.border == pytest.approx(3 / 8)  # radius 7, 10 px or more off the middle of 32
    assert "border" in rules(facts)
    assert "border" not in rules(facts, max_border=0.5)
    assert measured(step=1.0, options=MeasureOptions(border_px=4))[0].border > 0


def test_frames_that_show_nothing_are_dropped():
    facts, _ = measured(step=4.0)
    assert facts.empty > 0
    assert "empty" in rules(facts, max_border=1.0)


@pytest.mark.parametrize(
    ("change", "limits", "rule"),
    [
        ({"motion": 0.004}, {}, "motion"),
        ({"mask_confidence": 0.3}, {}, "mask"),
        ({}, {"min_magnitude": 1.0}, "magnitude"),
    ],
)
def test_numbers_of_the_meta_count(change, limits, rule):
    assert rules(measured(step=0.5, **change)[0], **limits) == {rule}


def test_unknown_motion_is_not_held_against_a_video():
    facts, _ = measured(step=0.5, motion=None)
    assert facts.motion is None
    assert rules(facts) == set()


def test_a_damaged_sample_is_dropped_with_its_reason():
    key, members = sample()
    del members["view_02.webp"]
    facts, look = measure_clip(key, members, MeasureOptions())
    assert "view_02.webp is missing" in facts.problem
    assert rules(facts) == {"damaged"}
    assert not look.any()


def duplicates(clips, share=0.1):
    return find_duplicates([facts for facts, _ in clips], np.array([look for _, look in clips]), share)


def test_the_same_under_another_name_is_found_and_the_first_stays():
    clips = [measured("a", step=0.7), measured("b", step=0.7, seed=3), measured("c", step=0.7)]
    assert duplicates(clips) == {"c": "a"}
    assert duplicates(clips, share=0.0) == {"c": "a"}


def test_a_recoded_copy_is_found_by_its_look():
    # Coding halves the chroma, and this texture is all chroma: far more differs than in a picture of something.
    clips = [measured("a", step=0.7), measured("b", step=0.7, quality=90)]
    assert duplicates(clips, share=0.2) == {"b": "a"}
    assert duplicates(clips, share=0.0) == {}


def test_other_motions_of_one_object_are_not_the_same():
    assert duplicates([measured("a", step=0.5), measured("b", step=1.0), measured("c", step=-0.5)]) == {}


def test_starts_of_one_animation_are_not_duplicates_of_one_another():
    clips = [measured(key, step=0.7, start=start, object="fox") for key, start in (("a", 0.0), ("b", 0.04), ("c", 0.0))]
    assert duplicates(clips) == {"c": "a"}


def test_a_duplicate_of_a_duplicate_names_the_one_that_stays():
    assert duplicates([measured(key, step=0.7) for key in "abcd"]) == {"b": "a", "c": "a", "d": "a"}


def test_nothing_has_no_duplicates():
    assert find_duplicates([], np.zeros((0, 4, 2, 8, 8, 3), np.uint8), 0.1) == {}


def test_the_front_is_the_view_nearest_to_it():
    cameras = Rig.even(16, start_deg=-7).camera_to_world()
    assert nearest_view(cameras, 0) == 0
    assert nearest_view(cameras, 90) == 4
    assert nearest_view(Rig(azimuths_deg=(200.0, 350.0, 100.0)).camera_to_world(), 0) == 1


@pytest.mark.parametrize(
    "change", [{"max_ssim": 2}, {"min_ssim": -2}, {"max_border": 1.5}, {"duplicates": -1}, {"min_magnitude": -1}]
)
def test_thresholds_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        Thresholds(**change)


@pytest.mark.parametrize("change", [{"window": "x"}, {"background": "red"}, {"border_px": 0}, {"border_alpha": 255}])
def test_options_out_of_range_are_refused(change):
    with pytest.raises(ConfigError):
        MeasureOptions(**change)


def test_facts_need_nothing_but_a_key():
    assert ClipFacts(key="a").problem == ""
