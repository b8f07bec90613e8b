"""Spherical harmonics: the basis of the files, and coefficients that turn with their splat."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from animate4d.core.harmonics import SH0, harmonics, turn_harmonics


def directions(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, 3))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_basis_is_orthonormal_and_starts_as_the_files_do():
    polar, azimuth = np.meshgrid(
        np.arccos(np.polynomial.legendre.leggauss(12)[0]), np.arange(24) * np.pi / 12, indexing="ij"
    )
    weights = np.repeat(np.polynomial.legendre.leggauss(12)[1] * np.pi / 12, 24)
    sphere = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], -1)
    basis = harmonics(sphere.reshape(-1, 3), 16)
    np.testing.assert_allclose((basis * weights[:, None]).T @ basis, np.eye(16), atol=1e-10)
    np.testing.assert_allclose(
        harmonics(np.eye(3), 4),
        [[0.28209479, 0, 0, -0.48860251], [0.28209479, -0.48860251, 0, 0], [0.28209479, 0, 0.48860251, 0]],
    )


@pytest.mark.parametrize("count", [1, 4, 9, 16])
def test_fewer_coefficients_are_the_first_ones(count):
    where = directions(5).reshape(5, 1, 3)
    np.testing.assert_allclose(harmonics(where, count), harmonics(where, 16)[..., :count])
    assert harmonics(where, 1)[0, 0, 0] == SH0


@pytest.mark.parametrize("count", [1, 4, 9, 16])
@pytest.mark.parametrize("each", [False, True])
def test_turning_the_splat_is_turning_the_view_back(count, each):
    """What is seen along d of a turned splat is what was seen along R^T d before."""
    rng = np.random.default_rng(count)
    sh = rng.normal(size=(7, count, 3)).astype(np.float32)
    turns = Rotation.random(7, random_state=3).as_matrix() if each else Rotation.random(random_state=4).as_matrix()
    turned = turn_harmonics(sh, turns)
    assert turned.dtype == np.float32
    np.testing.assert_array_equal(turned[:, 0], sh[:, 0])
    views = directions(20, seed=1)
    before = views @ turns
    expected = np.einsum("...dk,nkc->ndc" if not each else "ndk,nkc->ndc", harmonics(before, count), sh)
    np.testing.assert_allclose(np.einsum("dk,nkc->ndc", harmonics(views, count), turned), expected, atol=2e-5)
    if count > 1:
        assert np.abs(turned - sh).max() > 0.1


def test_two_turns_are_one():
    sh = np.random.default_rng(0).normal(size=(3, 16, 3))
    first, second = Rotation.random(2, random_state=5).as_matrix()
    np.testing.assert_allclose(turn_harmonics(turn_harmonics(sh, first), second), turn_harmonics(sh, second @ first))


def test_large_clouds_are_turned_in_parts():
    sh = np.random.default_rng(0).normal(size=(20_000, 4, 3)).astype(np.float32)
    turn = Rotation.random(random_state=5).as_matrix()
    whole = turn_harmonics(sh, turn)
    np.testing.assert_allclose(whole[[0, 9000, 19_999]], turn_harmonics(sh[[0, 9000, 19_999]], turn), atol=1e-6)
