"""What pictures and smoothness cost."""

from dataclasses import replace

import pytest
import torch

from animate4d.fourd.objectives import binary, jerk, reconstruction
from animate4d.fourd.photometric import prepare_pictures


def test_reconstruction_is_the_error_on_grey_plus_that_of_the_mask():
    generator = torch.Generator().manual_seed(0)
    drawn, target = (torch.rand(3, 2, 4, 6, 5, generator=generator) for _ in range(2))
    on_grey = [image[:, :, :3] + 0.5 * (1 - image[:, :, 3:]) for image in (drawn, target)]
    for frame, found in enumerate(reconstruction(drawn, target)):
        colour = (on_grey[0][frame] - on_grey[1][frame]).square().mean()
        mask = (drawn[frame, :, 3] - target[frame, :, 3]).square().mean()
        assert float(found) == pytest.approx(float(colour + mask), rel=1e-5)


def test_binary_masks_keep_colours_undimmed(bending_tube):
    pictures = prepare_pictures(bending_tube[2], 32, 1, "native")
    before, after = pictures.frames, binary(pictures).frames
    alpha, kept = before[:, :, 3], after[:, :, 3]
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert bool(((alpha > 0.5) == (kept > 0)).all())
    edge = (alpha > 0.5) & (alpha < 0.9)
    assert int(edge.sum()) > 50
    straight = before[:, :, :3] / alpha[:, :, None].clamp(min=1e-3)
    inside = (kept > 0)[:, :, None].expand_as(straight)
    torch.testing.assert_close(after[:, :, :3][inside], straight[inside])
    assert float(after[:, :, :3][~inside].abs().max()) == 0.0
    again = binary(replace(pictures, frames=after)).frames
    torch.testing.assert_close(again, after)


def test_jerk_sees_changes_of_speed_only():
    steady = torch.arange(4.0)[:, None, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert float(jerk(steady)) == pytest.approx(0.0, abs=1e-12)
    assert float(jerk(steady.square())) == pytest.approx(2**2 * (1 + 2**4 + 3**4), rel=1e-6)
    assert float(jerk(steady[:2])) == 0.0
