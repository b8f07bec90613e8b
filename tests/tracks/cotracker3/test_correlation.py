import pytest
import torch
from torch.nn import functional as F

from animate4d.tracks.cotracker3.correlation import FeatureMaps, correlate, pyramid, query_looks


def sampled(features: torch.Tensor, xy: torch.Tensor, radius: int) -> torch.Tensor:
    """The plain way: 49 bilinear samples `[49, C]` of one `[h, w, C]` map around one point."""
    offsets = torch.arange(-radius, radius + 1.0)
    x, y = torch.meshgrid(xy[0] + offsets, xy[1] + offsets, indexing="ij")
    height, width = features.shape[:2]
    grid = torch.stack([2 * x.flatten() / (width - 1) - 1, 2 * y.flatten() / (height - 1) - 1], dim=-1)
    found = F.grid_sample(features.permute(2, 0, 1)[None], grid[None, None], align_corners=True, padding_mode="border")
    return found[0, :, 0].T


@pytest.fixture
def features():
    return torch.randn(2, 3, 9, 12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()


POINTS = torch.tensor(
    [[[4.3, 5.7], [0.0, 0.0], [-2.5, 30.0], [11.0, 8.0]], [[10.9, 0.2], [11.4, 4.0], [3.0, 8.9], [-40.0, -7.3]]]
)


def test_looks_are_bilinear_samples_with_a_repeated_border(features):
    frames = torch.tensor([[0, 1, 2, 2], [1, 0, 0, 2]])
    looks = query_looks(FeatureMaps((features, features)), frames, POINTS, 3)
    for clip in range(2):
        for point in range(4):
            image = features[clip, frames[clip, point]]
            for level in range(2):
                plain = sampled(image, POINTS[clip, point] / 2**level, 3)
                assert torch.allclose(looks[level][clip, point], plain, atol=1e-4)


def test_correlations_are_all_products_of_both_neighbourhoods(features):
    look = torch.randn(2, 4, 9, 5, generator=torch.Generator().manual_seed(1))
    xy = POINTS[:, :, None] + torch.tensor([[0.0, 0.0], [0.4, -1.3], [-0.9, 2.2]])
    products = correlate(features, look, xy, 1)
    assert products.shape == (2, 4, 3, 81)
    for clip in range(2):
        for point in range(4):
            for frame in range(3):
                target = sampled(features[clip, frame], xy[clip, point, frame], 1)
                plain = (target @ look[clip, point].T).flatten()
                assert torch.allclose(products[clip, point, frame], plain, atol=1e-4)


def test_pyramid_averages_and_drops_an_odd_border(features):
    maps = pyramid(features, 3)
    assert [tuple(level.shape[2:4]) for level in maps.levels] == [(9, 12), (4, 6), (2, 3)]
    assert torch.allclose(maps.levels[1][1, 2, 3, 5], features[1, 2, 6:8, 10:12].mean((0, 1)), atol=1e-6)
    assert (maps.clips, maps.frames) == (2, 3)
    held = maps.held_to(5)
    assert torch.equal(held.levels[2][:, 4], maps.levels[2][:, 2])
    assert torch.equal(maps.between(0, 1).followed_by(maps.between(1, 3)).levels[0], features)
