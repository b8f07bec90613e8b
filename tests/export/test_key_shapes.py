"""Few shapes, no vertex farther off than the bound, and frame 0 to the bit."""

import numpy as np
import pytest

from animate4d.export.key_shapes import find_key_shapes


def blended(shapes, weights):
    return np.einsum("tk,knc->tnc", weights.astype(np.float64), shapes.astype(np.float64))


def largest(offsets, shapes, weights):
    return np.linalg.norm(blended(shapes, weights) - offsets, axis=-1).max()


def test_a_blend_of_three_shapes_with_both_signs_needs_four_with_one():
    rng = np.random.default_rng(0)
    weights = np.concatenate([np.zeros((1, 3)), rng.normal(size=(11, 3))])
    offsets = np.einsum("tk,knc->tnc", weights, rng.normal(size=(3, 50, 3)))
    shapes, found = find_key_shapes(offsets, 1e-4)
    assert len(shapes) == 4
    assert largest(offsets, shapes, found) < 1e-4
    assert (found[0] == 0).all()
    assert found.min() == 0
    assert found.max() <= 1


def test_a_single_shape_that_comes_and_goes_is_found_as_one():
    shape = np.random.default_rng(4).normal(size=(1, 30, 3))
    offsets = np.sin(np.linspace(0, np.pi, 9))[:, None, None] * shape
    for one in (offsets, -offsets):
        shapes, weights = find_key_shapes(one, 1e-4)
        assert len(shapes) == 1
        assert largest(one, shapes, weights) < 1e-4


def test_unrelated_frames_are_their_own_shapes():
    offsets = np.concatenate([np.zeros((1, 40, 3)), np.random.default_rng(5).normal(size=(6, 40, 3))])
    shapes, weights = find_key_shapes(offsets, 1e-4)
    assert len(shapes) == 6
    np.testing.assert_allclose(blended(shapes, weights), offsets, atol=1e-6)


@pytest.mark.parametrize("bound", [1e-3, 1e-2, 1e-1])
def test_the_bound_holds_for_every_vertex_and_a_looser_one_needs_fewer(bound):
    rng = np.random.default_rng(1)
    spectrum = 0.5 ** np.arange(15)
    offsets = np.einsum("tk,k,knc->tnc", rng.normal(size=(15, 15)), spectrum, rng.normal(size=(15, 80, 3)) / 5)
    offsets = np.concatenate([np.zeros((1, 80, 3)), offsets])
    shapes, weights = find_key_shapes(offsets, bound)
    assert largest(offsets, shapes, weights) <= bound * (1 + 1e-4)
    assert len(find_key_shapes(offsets, bound / 10)[0]) > len(shapes)


def test_weighting_up_the_worst_saves_a_shape():
    """One vertex moves on its own: least squares over many spends its shape elsewhere."""
    rng = np.random.default_rng(2)
    many = np.einsum(
        "tk,knc->tnc", rng.normal(size=(8, 3)), rng.normal(size=(3, 400, 3)) * [[[1.0]], [[0.3]], [[0.004]]]
    )
    many[:, 0] += rng.normal(size=(8, 3)) * 0.05
    offsets = np.concatenate([np.zeros((1, 400, 3)), many])
    moving = offsets[1:].reshape(8, -1)
    left, values, right = np.linalg.svd(moving, full_matrices=False)
    plain = next(
        k
        for k in range(9)
        if np.linalg.norm(((left[:, :k] * values[:k]) @ right[:k] - moving).reshape(8, -1, 3), axis=-1).max() <= 0.04
    )
    shapes, weights = find_key_shapes(offsets, 0.04)
    assert largest(offsets, shapes, weights) <= 0.04 * (1 + 1e-4)
    assert len(shapes) < plain + 1  # which, too, would need one more for its signs


def test_still_trajectories_need_none():
    shapes, weights = find_key_shapes(np.zeros((5, 7, 3)), 1e-3)
    assert shapes.shape == (0, 7, 3)
    assert weights.shape == (5, 0)
