"""Arrays are read back only as what they are expected to be."""

import io
import zipfile

import numpy as np
import pytest

from animate4d.core.errors import ShardError
from animate4d.io.arrays import pack_arrays, unpack_arrays


def test_round_trip():
    arrays = {"xy": np.random.default_rng(0).random((3, 4), np.float32), "flag": np.arange(5, dtype=np.uint8)}
    back = unpack_arrays(pack_arrays(arrays), {"xy": ("float32", (3, 4)), "flag": ("uint8", (None,))})
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
        assert back[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (np.zeros((2, 3), np.float32), ("float32", (2, 4))),
        (np.zeros((2, 3), np.float32), ("float64", (2, 3))),
        (np.zeros((2, 3), ">f4"), ("float32", (2, 3))),
        (np.zeros((2, 3), np.float32), ("float32", (2,))),
        (np.asfortranarray(np.zeros((2, 3), np.float32)), ("float32", (2, 3))),
    ],
)
def test_other_shapes_and_types_are_refused(array, spec):
    with pytest.raises(ShardError, match="array 'a' is"):
        unpack_arrays(pack_arrays({"a": array}), {"a": spec})


def test_missing_names_are_refused():
    with pytest.raises(ShardError, match="'b' is missing"):
        unpack_arrays(pack_arrays({"a": np.zeros(1)}), {"b": ("float64", (1,))})


def test_pickles_are_not_opened(tmp_path):
    canary = tmp_path / "canary"

    class Bad:
        def __reduce__(self):
            return (canary.touch, ())

    stream = io.BytesIO()
    np.savez(stream, a=np.array([Bad()], dtype=object), allow_pickle=True)
    with pytest.raises(ShardError, match="array 'a' is object"):
        unpack_arrays(stream.getvalue(), {"a": ("float32", (1,))})
    assert not canary.exists()


def test_a_header_that_claims_more_than_there_is_costs_nothing():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"1234")
    with pytest.raises(ShardError, match="array 'a'"):
        unpack_arrays(stream.getvalue(), {"a": ("float32", (None,))})
    stream, header = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (100,)})
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", header.getvalue() + b"1234")
    with pytest.raises(ShardError, match="promises 400"):
        unpack_arrays(stream.getvalue(), {"a": ("float32", (None,))})


@pytest.mark.parametrize("data", [b"", b"hello", pack_arrays({"a": np.zeros(100)})[:60]])
def test_other_bytes_are_refused(data):
    with pytest.raises(ShardError, match="not a readable npz"):
        unpack_arrays(data, {"a": ("float64", (100,))})


def test_flipped_bits_are_noticed():
    data = bytearray(pack_arrays({"a": np.random.default_rng(0).random(1000)}))
    data[len(data) // 2] ^= 255
    with pytest.raises(ShardError, match="not a readable npz"):
        unpack_arrays(bytes(data), {"a": ("float64", (1000,))})
