"""Point metrics against cases small enough to work out by hand."""

import math

import numpy as np
import pytest

from animate4d.metrics.points import cell_centres, chance_error, nearest_cell, position_error, share_within

TRUE = np.array([[[0.0, 0.0], [10.0, 0.0], [5.0, 5.0]]])
FOUND = np.array([[[3.0, 4.0], [10.0, 1.0], [99.0, 99.0]]])
SEEN = np.array([[1.0, 1.0, 0.0]])


def test_error_is_the_mean_distance_of_points_that_count():
    assert position_error(FOUND, TRUE, SEEN) == pytest.approx((5 + 1) / 2)
    assert position_error(FOUND, TRUE, np.array([[1.0, 3.0, 0.0]])) == pytest.approx((5 + 3) / 4)


def test_hidden_points_change_nothing():
    moved = FOUND.copy()
    moved[0, 2] = -1e6
    assert position_error(moved, TRUE, SEEN) == position_error(FOUND, TRUE, SEEN)


@pytest.mark.parametrize(("threshold", "share"), [(0.5, 0.0), (1.0, 0.5), (4.9, 0.5), (5.0, 1.0)])
def test_share_within_counts_the_threshold_itself(threshold, share):
    assert share_within(FOUND, TRUE, SEEN, threshold) == share


def test_nothing_that_counts_gives_nan_not_zero():
    assert math.isnan(position_error(FOUND, TRUE, np.zeros((1, 3))))
    assert math.isnan(share_within(FOUND, TRUE, np.zeros((1, 3)), 4))


def test_cells_go_row_by_row_with_half_cell_centres():
    assert cell_centres(1, 2).tolist() == [[0.25, 0.5], [0.75, 0.5]]
    assert cell_centres(2, 2)[1].tolist() == [0.75, 0.25]


def test_nearest_cell_of_points_inside_on_the_rim_and_beside():
    points = np.array([[0.1, 0.1], [0.5, 0.49], [1.0, 1.0], [-0.2, 0.9]])
    assert nearest_cell(points, 2, 2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
    assert nearest_cell(np.array([0.9, 0.9]), 1, 4).tolist() == [0.875, 0.5]


def test_chance_is_the_mean_over_all_cells():
    true = np.array([[0.25, 0.25]])
    expected = (0 + 0.5 + 0.5 + math.sqrt(0.5)) / 4
    assert chance_error(true, np.ones(1), 2, 2) == pytest.approx(expected)
