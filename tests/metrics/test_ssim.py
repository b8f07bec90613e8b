"""Structural similarity against its definition and against values of scikit-image."""

import numpy as np
import pytest

from animate4d.metrics.ssim import ssim


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(7)
    first = rng.random((40, 33, 3))
    return first, np.clip(0.8 * first + 0.15 * rng.random((40, 33, 3)), 0, 1)


def plain(x, y, weights, unbiased):
    """Window by window, as Wang et al. 2004 eq. 13 is written."""
    side, values = len(weights), []
    for row in range(x.shape[0] - side + 1):
        for column in range(x.shape[1] - side + 1):
            a, b = (image[row : row + side, column : column + side] for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a = unbiased * (weights * (a - mean_a) ** 2).sum()
            var_b = unbiased * (weights * (b - mean_b) ** 2).sum()
            both = unbiased * (weights * (a - mean_a) * (b - mean_b)).sum()
            c1, c2 = 0.01**2, 0.03**2
            values.append(
                (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )
    return np.mean(values)


def test_scikit_image_says_the_same(pair):
    # structural_similarity of scikit-image 0.26.0: default, and gaussian_weights=True, use_sample_covariance=False
    assert ssim(*pair) == pytest.approx(0.9604657553814125, abs=1e-12)
    assert ssim(*pair, window="gaussian11") == pytest.approx(0.9597107514210288, abs=1e-12)
    assert ssim(pair[0][..., 0], pair[1][..., 0]) == pytest.approx(0.9594039600549424, abs=1e-12)


def test_the_definition_says_the_same(pair):
    x, y = (image[:20, :18, 1] for image in pair)
    assert ssim(x, y) == pytest.approx(plain(x, y, np.full((7, 7), 1 / 49), 49 / 48))
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    bell = np.outer(bell, bell) / bell.sum() ** 2
    assert ssim(x, y, window="gaussian11") == pytest.approx(plain(x, y, bell, 1.0))


@pytest.mark.parametrize("window", ["uniform7", "gaussian11"])
def test_equal_is_one_and_the_order_does_not_matter(pair, window):
    assert ssim(pair[0], pair[0], window=window) == pytest.approx(1)
    assert ssim(*pair, window=window) == pytest.approx(ssim(*pair[::-1], window=window))
    assert ssim(pair[0], 1 - pair[0], window=window) < 0


@pytest.mark.parametrize("shapes", [((8, 8), (8, 9)), ((6, 40), (6, 40)), ((8,), (8,))])
def test_pictures_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(ValueError, match="two pictures"):
        ssim(*(np.zeros(shape) for shape in shapes))
