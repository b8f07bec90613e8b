"""Matching of points in maps whose right answer is known."""

import pytest
import torch
from torch.nn.functional import grid_sample

from animate4d.pipeline.probe_match import find_points, similarity

CELLS = 16


def moved_maps(shifts, channels=64, cells=CELLS, seed=0):
    """One view: a smooth random map, and the same moved by (x, y) cells for each further frame."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((1, channels, cells, cells), generator=generator)
    kernel = torch.exp(-0.5 * torch.arange(-4, 5) ** 2 / 1.0**2)
    kernel = (kernel[:, None] * kernel / kernel.sum() ** 2).expand(channels, 1, 9, 9)
    base = torch.nn.functional.conv2d(noise, kernel, padding=4, groups=channels)
    axis = (torch.arange(cells) + 0.5) * 2 / cells - 1
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    frames = []
    for x, y in [(0.0, 0.0), *shifts]:
        grid = torch.stack([columns - 2 * x / cells, rows - 2 * y / cells], dim=-1)[None]
        frames.append(grid_sample(base, grid, align_corners=False, padding_mode="border"))
    return torch.stack(frames, dim=1)


QUERIES = 0.3 + 0.4 * torch.rand((1, 40, 2), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("match", "cells_off"), [("nearest", 0.6), ("refined", 0.3), ("window", 0.15)])
@pytest.mark.parametrize("shift", [(3.0, -2.0), (1.5, 2.5), (0.3, -0.7), (-3.25, 3.6)])
def test_a_moved_map_gives_moved_points(match, cells_off, shift):
    found = find_points(similarity(moved_maps([shift]), QUERIES, centred=True))[match]
    error = (found[:, 1] - (QUERIES + torch.tensor(shift) / CELLS)).norm(dim=-1).mean() * CELLS
    assert error < cells_off


def test_pixel_centres_sit_at_half_integers():
    # the point in the middle of cell (5, 3) is found exactly there, in every frame of a map that stands still
    maps = moved_maps([(0.0, 0.0)])
    query = torch.tensor([[[5.5 / CELLS, 3.5 / CELLS]]])
    found = find_points(similarity(maps, query, centred=False))
    assert torch.equal(found["nearest"][0, 1, 0], query[0, 0])
    for match in ("refined", "window"):
        torch.testing.assert_close(found[match][0, 1, 0], query[0, 0], atol=0.2 / CELLS, rtol=0)


def test_wide_maps_keep_x_and_y_apart():
    cosines = torch.zeros(1, 1, 1, 4, 8)
    cosines[..., 3, 6] = 1
    assert find_points(cosines)["nearest"].flatten().tolist() == [6.5 / 8, 3.5 / 4]


def test_a_parabola_finds_its_own_top_and_the_rim_stays():
    x = torch.arange(7.0)
    cosines = (1 - 0.1 * (x - 3.3) ** 2).expand(3, 7).clone()
    cosines[[0, 2]] -= 0.5
    found = find_points(cosines)["refined"]
    assert found.tolist() == pytest.approx([(3.3 + 0.5) / 7, 0.5])
    rim = find_points(torch.tensor([[1.0, 0.9, 0.0]]))["refined"]
    assert rim.tolist() == pytest.approx([0.5 / 3, 0.5])


def test_a_flat_map_has_no_slope_to_divide_by():
    found = find_points(torch.zeros(2, 5, 5))
    assert all(torch.isfinite(points).all() for points in found.values())


def test_a_second_peak_far_away_does_not_pull_the_window():
    cosines = torch.full((9, 9), -1.0)
    cosines[1, 1], cosines[7, 7] = 1.0, 0.999
    assert find_points(cosines)["window"].tolist() == pytest.approx([1.5 / 9, 1.5 / 9], abs=1e-3)


def test_centring_undoes_what_all_cells_share():
    maps = moved_maps([(2.0, 1.0)])
    shared = 20 * torch.randn(maps.shape[2], generator=torch.Generator().manual_seed(3))[:, None, None]
    plain = similarity(maps + shared, QUERIES, centred=False)
    assert plain.min() > 0.9  # everything looks alike
    torch.testing.assert_close(
        similarity(maps + shared, QUERIES, centred=True), similarity(maps, QUERIES, centred=True), atol=1e-4, rtol=0
    )
