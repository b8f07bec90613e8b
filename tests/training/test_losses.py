from __future__ import annotations

import math

import pytest
import torch

from animate4d.training.losses import (
    FLOW_FLOOR,
    coarse_loss,
    correspondence_loss,
    flow_loss,
    gate_loss,
    latent_loss,
    noise_loss,
    object_cells,
    position_loss,
    sample_descriptors,
    soft_argmax,
    weighted_points,
)

B, V, T, P, C, H, W = 2, 2, 3, 4, 6, 5, 4


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(B, V, T, C, H, W, generator=generator, dtype=torch.float64)
    points = torch.rand(B, V, T, P, 2, generator=generator, dtype=torch.float64) * 1.8 - 0.9
    visible = torch.rand(B, V, T, P, generator=generator, dtype=torch.float64)
    visible[0, 1, :, 2] = 0
    return features, points, visible


def bilinear(map_: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Read `[C, H, W]` at xy in [-1, 1], cell centres at half-integers, border repeated."""
    x, y = (point[0].item() + 1) / 2 * W - 0.5, (point[1].item() + 1) / 2 * H - 0.5
    total = torch.zeros(C, dtype=map_.dtype)
    for column in (math.floor(x), math.floor(x) + 1):
        for row in (math.floor(y), math.floor(y) + 1):
            share = (1 - abs(x - column)) * (1 - abs(y - row))
            total = total + share * map_[:, min(max(row, 0), H - 1), min(max(column, 0), W - 1)]
    return total


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a @ b) / (a.norm() * b.norm())


def plain_correspondence(features, points, visible) -> torch.Tensor:
    total, weights = 0.0, 0.0
    for b in range(B):
        for v in range(V):
            for t in range(T - 1):
                for p in range(P):
                    one = bilinear(features[b, v, t], points[b, v, t, p])
                    two = bilinear(features[b, v, t + 1], points[b, v, t + 1, p])
                    weight = visible[b, v, t, p] * visible[b, v, t + 1, p]
                    total, weights = total + weight * (1 - cosine(one, two)), weights + weight
    return total / max(weights, 1.0)


def plain_position(features, points, visible, temperature=0.07, delta=1 / 32) -> torch.Tensor:
    total, weights = 0.0, 0.0
    for b in range(B):
        for v in range(V):
            mean = features[b, v, 0].mean((1, 2))
            maps = features[b, v] - mean[:, None, None]
            for t in range(1, T):
                for p in range(P):
                    query = bilinear(maps[0], points[b, v, 0, p])
                    scores = torch.stack([cosine(query, maps[t, :, r, c]) for r in range(H) for c in range(W)])
                    share = (scores / temperature).softmax(0)
                    x = torch.tensor([(c + 0.5) / W * 2 - 1 for _ in range(H) for c in range(W)])
                    y = torch.tensor([(r + 0.5) / H * 2 - 1 for r in range(H) for _ in range(W)])
                    weight = visible[b, v, t, p] * visible[b, v, 0, p]
                    for found, true in (
                        (share @ x.double(), points[b, v, t, p, 0]),
                        (share @ y.double(), points[b, v, t, p, 1]),
                    ):
                        error = (found - true).abs()
                        huber = error.square() / 2 if error < delta else delta * (error - delta / 2)
                        total = total + weight * huber
                    weights += weight
    return total / max(weights, 1.0)


@pytest.mark.parametrize(
    ("fast", "plain"), [(correspondence_loss, plain_correspondence), (position_loss, plain_position)]
)
def test_track_losses_equal_their_plain_twins_with_gradients(scene, fast, plain):
    features, points, visible = scene
    gradients = []
    for loss in (fast, plain):
        leaf = features.clone().requires_grad_()
        value = loss(leaf, points, visible)
        value.backward()
        gradients.append((value.item(), leaf.grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-4)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("loss", [correspondence_loss, position_loss])
def test_hidden_points_do_not_count(scene, loss):
    features, points, visible = scene
    moved = points.clone()
    moved[0, 1, :, 2] = 0.9
    assert loss(features, moved, visible) == loss(features, points, visible)
    nothing = loss(features.clone().requires_grad_(), points, torch.zeros_like(visible))
    assert nothing == 0
    nothing.backward()


def test_soft_argmax_recovers_known_shifts_below_a_seventh_of_a_cell():
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(1, 256, 24, 24, generator=generator)
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1)
    first, shifted = smooth[..., 3:19, 3:19], smooth[..., 1:17, 6:22]
    features = torch.stack((first, shifted), 1)[:, None]
    cells = torch.randint(4, 12, (1, 1, 30, 2), generator=generator).double()
    points = (cells + 0.5) / 8 - 1
    found = soft_argmax(features, points.float())
    shift = (found[:, :, 1] - points) * 8
    assert (shift - torch.tensor([-3.0, 2.0])).abs().mean() < 0.15


def test_soft_argmax_of_a_flat_map_is_the_centre_and_a_common_vector_changes_nothing():
    points = torch.tensor([[[[0.3, -0.6]]]])
    assert soft_argmax(torch.ones(1, 1, 2, C, H, W), points).abs().max() < 1e-6
    features = torch.randn(1, 1, 2, C, H, W)
    moved = features + 5 * torch.randn(C)[:, None, None]
    torch.testing.assert_close(soft_argmax(moved, points), soft_argmax(features, points), atol=1e-4, rtol=1e-3)


def test_descriptors_are_read_at_cell_centres():
    features = torch.arange(H * W, dtype=torch.float32).view(1, H, W)
    centres = torch.tensor([[(c + 0.5) / W * 2 - 1, (r + 0.5) / H * 2 - 1] for r in range(H) for c in range(W)])
    torch.testing.assert_close(sample_descriptors(features[None], centres[None])[0, :, 0], features.flatten())


def test_pixels_map_to_the_cells_that_cover_them_at_any_resolution():
    """Average a ramp of pixel centres into cells: read back between cell centres it says where it was read."""
    ramp = (torch.arange(32) + 0.5).expand(1, 1, 1, 1, 32, 32)
    both = torch.cat((ramp, ramp.transpose(-1, -2)), dim=3)
    tracks = torch.rand(1, 1, 1, 50, 2, generator=torch.Generator().manual_seed(0)) * 24 + 4
    points, _ = weighted_points(tracks, torch.ones(1, 1, 1, 50), torch.ones(1, 1, 1, 1, 32, 32))
    for cells in (32, 16, 8, 4):
        features = torch.nn.functional.avg_pool2d(both.flatten(0, 2), 32 // cells)[None, None]
        torch.testing.assert_close(sample_descriptors(features, points), tracks)
    found = soft_argmax(torch.nn.functional.one_hot(torch.arange(64)).T.reshape(1, 1, 1, 64, 8, 8), points[:, :, 0])
    assert ((found[:, :, 0] - points[:, :, 0]).abs() <= 1 / 8 + 1e-3).all()


def test_points_beside_the_object_or_the_frame_weigh_nothing():
    mask = torch.zeros(1, 2, 1, 1, 8, 8)
    mask[0, 0, 0, 0, 2:5, 2:5] = 1
    tracks = torch.tensor([[3.5, 3.5], [6.5, 3.5], [-0.5, 3.5], [0.0, 0.0]]).expand(1, 2, 1, 4, 2)
    visible = torch.tensor([0.7, 1.0, 1.0, 0.0]).expand(1, 2, 1, 4)
    points, weight = weighted_points(tracks, visible, mask)
    torch.testing.assert_close(weight, torch.tensor([[[[0.7, 0, 0, 0]], [[0, 0, 0, 0]]]]))
    torch.testing.assert_close(points[0, 0, 0, 0], torch.tensor([-0.125, -0.125]))


@pytest.mark.parametrize("loss", [correspondence_loss, position_loss])
def test_a_view_without_points_leaves_the_others_as_they_are(scene, loss):
    features, points, visible = scene
    visible = visible.clone()
    visible[:, 1] = 0
    leaf = features.clone().requires_grad_()
    value = loss(leaf, points, visible)
    value.backward()
    assert value.item() == pytest.approx(loss(features[:, :1], points[:, :1], visible[:, :1]).item(), rel=1e-5)
    assert not leaf.grad[:, 1].any()
    assert leaf.grad[:, 0].any()


@pytest.mark.parametrize("loss", [correspondence_loss, position_loss])
def test_padding_for_missing_points_changes_nothing(scene, loss):
    features, points, visible = scene
    more = torch.cat((points, torch.full((B, V, T, 3, 2), -1.0, dtype=points.dtype)), dim=3)
    hidden = torch.cat((visible, torch.zeros(B, V, T, 3, dtype=points.dtype)), dim=3)
    assert loss(features, more, hidden).item() == pytest.approx(loss(features, points, visible).item(), rel=1e-6)


@pytest.mark.parametrize("loss", [correspondence_loss, position_loss])
def test_track_losses_stay_exact_under_autocast(scene, loss):
    features, points, visible = (tensor.float() for tensor in scene)
    exact = loss(features, points, visible)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(features, points, visible)
    assert value.dtype == torch.float32
    assert value == exact


def test_the_hidden_end_of_a_pair_hides_the_pair(scene):
    features, points, visible = scene
    for frame in range(T):
        gone = torch.ones_like(visible)
        gone[:, :, frame] = 0
        leaf = features.clone().requires_grad_()
        correspondence_loss(leaf, points, gone).backward()
        assert not leaf.grad[:, :, frame].any()


def test_frame_0_never_counts():
    shape = (1, 2, 3, 3, 8, 8)
    one, two = torch.randn(shape), torch.randn(shape)
    altered = one.clone()
    altered[:, :, 0] += 1
    mask = (torch.rand(1, 2, 3, 1, 8, 8) > 0.5).float()
    cells, weight = object_cells(mask, 8), torch.rand(1, 2, 3, 1, 8, 8)
    assert noise_loss(altered, two) == noise_loss(one, two)
    assert coarse_loss(altered, two) == coarse_loss(one, two)
    assert latent_loss(altered, two, cells, object_weight=3) == latent_loss(one, two, cells, object_weight=3)
    assert flow_loss(altered[:, :, :, :2], two[:, :, :, :2], weight) == flow_loss(
        one[:, :, :, :2], two[:, :, :, :2], weight
    )
    assert gate_loss(altered[:, :, :, :1], mask) == gate_loss(one[:, :, :, :1], mask)


def test_object_cells_are_those_touched_now_or_in_frame_0():
    mask = torch.zeros(1, 1, 2, 1, 4, 4)
    mask[0, 0, 0, 0, 0, 0] = 0.1
    mask[0, 0, 1, 0, 3, 3] = 1
    cells = object_cells(mask, 2)[0, 0, :, 0]
    assert cells[0].tolist() == [[1, 0], [0, 0]]
    assert cells[1].tolist() == [[1, 0], [0, 1]]


def test_flow_loss_is_the_l1_inside_as_a_share_of_each_clips_motion():
    flow, target = torch.zeros(2, 1, 2, 2, 2, 2), torch.zeros(2, 1, 2, 2, 2, 2)
    target[0, 0, 1, :, 0, 0] = torch.tensor([0.3, -0.1])
    target[1, 0, 1, :, 0, 0] = torch.tensor([0.0, 0.8])
    target[:, 0, 1, :, 1, 1] = 9.0
    flow[1, 0, 1, 1, 0, 0] = 0.6
    weight = torch.zeros(2, 1, 2, 1, 2, 2)
    weight[:, 0, 1, 0, 0] = 1.0
    shares = [0.2 / (0.2 + FLOW_FLOOR), 0.1 / (0.4 + FLOW_FLOOR)]
    assert flow_loss(flow, target, weight).item() == pytest.approx(sum(shares) / 2)
    assert flow_loss(flow, target, weight * 0) == 0


def test_gate_loss_is_least_where_the_gate_shows_the_object_grown_by_one():
    mask, grown = torch.zeros(1, 2, 3, 1, 8, 8), torch.zeros(1, 2, 3, 1, 8, 8)
    mask[..., 3:5, 2], grown[..., 2:6, 1:4] = 1, 1
    right = gate_loss((grown - 0.5) * 20, mask)
    assert right < 1e-3 < gate_loss((mask - 0.5) * 20, mask)
    assert gate_loss(torch.zeros_like(mask), mask) < gate_loss((0.5 - grown) * 20, mask)
    finer = torch.zeros(1, 2, 3, 1, 16, 16)
    finer[..., 6:10, 5] = 0.5
    finer[..., 7, 4] = finer[..., 9, 5] = 1
    assert gate_loss((grown - 0.5) * 20, (finer > 0).float()) == right
