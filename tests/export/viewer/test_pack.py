"""Arrays come out of a page as they went in."""

import numpy as np
import pytest

from animate4d.export.viewer.pack import pack, unpack

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "float32"])
@pytest.mark.parametrize("moving", [False, True])
def test_every_type_comes_back_to_the_bit(kind, moving):
    if kind == "float32":
        array, moving = RNG.normal(size=(5, 7, 3)).astype(np.float32), False
    else:
        limits = np.iinfo(kind)
        array = RNG.integers(limits.min, limits.max, (5, 7, 3), kind, endpoint=True)
    table, text = pack({"odd": np.arange(3, dtype=np.uint8), "it": array}, {"it"} if moving else set())
    assert table["it"]["at"] % 4 == 0
    found = unpack(table, text)
    np.testing.assert_array_equal(found["it"], array)
    assert found["it"].dtype == array.dtype
    np.testing.assert_array_equal(found["odd"], [0, 1, 2])


def test_trajectories_shrink():
    steps = RNG.integers(-3, 4, (60, 500, 3)).astype(np.int16)
    places = (RNG.integers(-30000, 30000, (1, 500, 3)) + steps.cumsum(0)).astype(np.int16)
    assert len(pack({"a": places}, {"a"})[1]) < 0.75 * len(pack({"a": places}, set())[1])


def test_foreign_types_are_refused():
    with pytest.raises(ValueError, match="a is float64"):
        pack({"a": np.zeros(3)}, set())
