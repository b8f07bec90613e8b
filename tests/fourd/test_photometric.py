"""The picture loss: its hand-written gradient, its levels, its view of the video."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from animate4d.fourd.photometric import _Difference, prepare_pictures


def plain(image, target, levels, coverage):
    def layers(x):
        return torch.cat([x[:, :, :3] + 0.5 * (1 - x[:, :, 3:]), coverage * x[:, :, 3:]], 2).flatten(0, 1)

    a, b = layers(image), layers(target)
    loss = 0
    for level in range(levels):
        if level:
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        loss = loss + (a - b).square().view(len(image), -1).mean(1)
    return loss


@pytest.mark.parametrize(("levels", "size"), [(1, (8, 8)), (3, (16, 16)), (3, (18, 13)), (5, (6, 6))])
@pytest.mark.parametrize("coverage", [1.0, 0.3])
def test_loss_and_gradient_match_plain_autograd(levels, size, coverage):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 4, *size, generator=generator).requires_grad_()
    target = torch.rand(2, 3, 4, *size, generator=generator)
    weight = torch.tensor([1.0, 2.5])
    loss = _Difference.apply(image, target, levels, coverage)
    (got,) = torch.autograd.grad((loss * weight).sum(), image)
    # levels stop where an image has no 2x2 block left
    usable = min(levels, int(np.log2(min(size))) + 1)
    expected = plain(image, target, usable, coverage)
    (want,) = torch.autograd.grad((expected * weight).sum(), image)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(got, want)


def test_pictures_shrink_with_their_cameras(bending_tube):
    _, vertices, video = bending_tube
    full = prepare_pictures(video, 64, 1, "native")
    half = prepare_pictures(video, 32, 1, "native")
    assert full.frames.shape == (5, 4, 4, 64, 64)
    torch.testing.assert_close(
        half.frames, F.avg_pool2d(full.frames.flatten(0, 1), 2).view(5, 4, 4, 32, 32), atol=1e-5, rtol=0
    )
    points = torch.from_numpy(vertices[:1])
    torch.testing.assert_close(half.project(points) * 2, full.project(points))
    # a video smaller than asked for is taken as it is
    assert prepare_pictures(video, 128, 1, "native").size == (64, 64)
