from __future__ import annotations

import torch

from animate4d.models.warp import GATE_START, split_head, warp_first_frame


def open_gate(flow: torch.Tensor) -> torch.Tensor:
    return torch.ones(len(flow), 1, *flow.shape[2:])


def test_no_flow_shows_frame_0():
    first = torch.randn(2, 3, 16, 16)
    flow = torch.zeros(2, 2, 4, 4)
    torch.testing.assert_close(warp_first_frame(first, flow, open_gate(flow)), first, atol=1e-5, rtol=1e-4)


def test_flow_points_to_the_source_in_half_images():
    """A surface point seen at pixel p came from p + flow; x right, y down; unit = half the image side."""
    first = torch.randn(1, 1, 16, 16)
    flow = torch.zeros(1, 2, 4, 4)
    flow[:, 0], flow[:, 1] = 3 / 8, -2 / 8
    moved = warp_first_frame(first, flow, open_gate(flow))
    torch.testing.assert_close(moved[0, 0, 2:, :13], first[0, 0, :14, 3:], atol=1e-5, rtol=1e-4)
    assert not moved[0, 0, :2].any()


def test_pictures_need_not_be_square():
    """x in half widths, y in half heights; every pixel spelled out."""
    first = torch.arange(4.0 * 8).view(1, 1, 4, 8)
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0], flow[:, 1] = 2 / 4, 1 / 2
    moved = warp_first_frame(first, flow, open_gate(flow))
    expected = torch.zeros(4, 8)
    for y in range(3):
        for x in range(6):
            expected[y, x] = first[0, 0, y + 1, x + 2]
    torch.testing.assert_close(moved[0, 0], expected, atol=1e-4, rtol=1e-5)
    coarse = torch.zeros(1, 2, 2, 4)
    coarse[:, 0], coarse[:, 1] = 2 / 4, 1 / 2
    torch.testing.assert_close(warp_first_frame(first, coarse, open_gate(coarse)), moved)


def test_a_closed_gate_shows_background():
    first, flow = torch.randn(1, 3, 8, 8), torch.zeros(1, 2, 8, 8)
    assert not warp_first_frame(first, flow, torch.zeros(1, 1, 8, 8)).any()


def test_head_output_is_split_into_cells():
    output = torch.zeros(1, 2, 12, 3, 3)
    output[..., 0:4, :, :] = torch.arange(4.0).view(4, 1, 1)
    output[..., 8:, :, :] = 1.0
    flow, gate = split_head(output, 2)
    assert flow.shape == (1, 2, 2, 6, 6)
    assert gate.shape == (1, 2, 1, 6, 6)
    assert flow[0, 0, 0, :2, :2].tolist() == [[0, 1], [2, 3]]
    assert not flow[:, :, 1].any()
    assert (gate == 1 + GATE_START).all()
