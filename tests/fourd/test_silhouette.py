"""The silhouette pull: what it costs and where it pulls."""

from dataclasses import replace

import torch

from animate4d.fourd.photometric import prepare_pictures
from animate4d.fourd.silhouette import Silhouette


def disc(pictures, x: float, y: float):
    """Replace every mask by a disc of radius 8 around (x, y)."""
    frames = torch.zeros_like(pictures.frames)
    column, row = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="xy")
    frames[:, :, 3] = ((column - x) ** 2 + (row - y) ** 2 < 64).float()
    return replace(pictures, frames=frames)


def test_splats_on_the_mask_cost_little_and_strays_are_pulled_home(bending_tube):
    pictures = disc(prepare_pictures(bending_tube[2], 64, 1, "native"), 40, 24)
    silhouette = Silhouette(pictures)
    angle = torch.linspace(0, 400, 300)
    radius = 7.5 * torch.linspace(0, 1, 300).sqrt()
    inside = torch.stack([40 + radius * angle.cos(), 24 + radius * angle.sin()], -1).expand(1, 4, 300, 2).clone()
    frames = torch.tensor([2])
    home = float(silhouette.pull(inside, frames))
    # one splat strays to the left, one far beyond the lower border
    strays = inside.clone()
    strays[:, :, 0] = torch.tensor([12.0, 24.0])
    strays[:, :, 1] = torch.tensor([40.0, 150.0])
    strays.requires_grad_()
    loss = silhouette.pull(strays, frames).sum()
    (gradient,) = torch.autograd.grad(loss, strays)
    assert float(loss.detach()) > 3 * home
    assert (gradient[0, :, 0, 0] < 0).all()
    assert (gradient[0, :, 1, 1] > 0).all()


def test_nothing_is_pulled_back_from_beyond_a_border_that_cuts_the_object_off(bending_tube):
    pictures = disc(prepare_pictures(bending_tube[2], 64, 1, "native"), 32, 2)
    silhouette = Silhouette(pictures)
    xy = torch.tensor([[32.0, -9.0], [-9.0, 2.0]]).expand(1, 4, 2, 2).clone().requires_grad_()
    outside = silhouette.pull(xy, torch.tensor([1]))
    closed = Silhouette(disc(pictures, 32, 20)).pull(xy, torch.tensor([1]))
    gradient, elsewhere = (torch.autograd.grad(loss.sum(), xy, retain_graph=True)[0] for loss in (outside, closed))
    # above the picture only the mask's pixels call; beside it, and where the mask is whole, the border itself pulls
    assert gradient[0, :, 0, 1].abs().max() < 0.5 * elsewhere[0, :, 0, 1].abs().min()
    assert (gradient[0, :, 1, 0] < 0).all()


def test_uncovered_mask_calls_the_nearest_splat(bending_tube):
    pictures = disc(prepare_pictures(bending_tube[2], 64, 1, "native"), 32, 32)
    silhouette = Silhouette(pictures)
    # all splats huddle in the left of the disc; those at the right edge of the huddle are called to the right
    xy = (
        torch.stack([torch.linspace(25, 30, 50), torch.full((50,), 32.0)], -1)
        .expand(1, 4, 50, 2)
        .clone()
        .requires_grad_()
    )
    (gradient,) = torch.autograd.grad(silhouette.pull(xy, torch.tensor([1])).sum(), xy)
    assert (gradient[0, :, -1, 0] < 0).all()


def test_empty_masks_do_not_call(bending_tube):
    pictures = prepare_pictures(bending_tube[2], 64, 1, "native")
    pictures = replace(pictures, frames=torch.zeros_like(pictures.frames))
    xy = torch.rand(1, 4, 20, 2) * 64
    assert float(Silhouette(pictures).pull(xy, torch.tensor([1]))) == 0.0
