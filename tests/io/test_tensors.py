import io
import json

import numpy as np
import pytest
import safetensors.numpy

from animate4d.core.errors import ShardError
from animate4d.io.tensors import MAX_HEADER_BYTES, pack_tensors, read_note, unpack_tensors

ARRAYS = {"xy": np.arange(12, dtype=np.float32).reshape(3, 4), "flag": np.array([1, 0, 1], np.uint8)}


def test_arrays_and_note_come_back():
    data = pack_tensors({**ARRAYS, "turned": ARRAYS["xy"].T}, "of me")
    back, note = unpack_tensors(
        data, {"xy": ("float32", (3, 4)), "flag": ("uint8", (None,)), "turned": ("float32", (None, 3))}
    )
    for name, array in ARRAYS.items():
        assert np.array_equal(back[name], array)
    assert np.array_equal(back["turned"], ARRAYS["xy"].T)
    assert note == read_note(io.BytesIO(data)) == "of me"
    assert len({pack_tensors(ARRAYS, "of me") for _ in range(20)}) == 1


def test_the_note_is_read_without_the_arrays():
    data = pack_tensors({"a": np.zeros(10**6)}, "short")
    stream = io.BytesIO(data)
    assert read_note(stream) == "short"
    assert stream.tell() < 1000
    with pytest.raises(ShardError, match="its header says"):
        read_note(io.BytesIO(data[:-1]))


@pytest.mark.parametrize(
    "spec", [("float64", (3, 4)), ("float32", (3,)), ("float32", (4, 4)), ("float32", (None, 3, None))]
)
def test_another_dtype_or_shape_is_refused(spec):
    with pytest.raises(ShardError, match="'xy' is float32"):
        unpack_tensors(pack_tensors(ARRAYS, ""), {"xy": spec})


def test_a_missing_array_is_named():
    with pytest.raises(ShardError, match="'b' is missing"):
        unpack_tensors(pack_tensors(ARRAYS, ""), {"b": ("float64", (1,))})


@pytest.mark.parametrize("place", range(1, 60, 7))
def test_a_flipped_bit_in_any_array_is_seen(place):
    data = bytearray(pack_tensors(ARRAYS, ""))
    data[-place] ^= 16
    with pytest.raises(ShardError):
        unpack_tensors(bytes(data), {"flag": ("uint8", (3,))})


def header(content: object) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        pack_tensors(ARRAYS, "")[:-1],
        pack_tensors(ARRAYS, "") + b"x",
        safetensors.numpy.save(ARRAYS),
        safetensors.numpy.save(ARRAYS, metadata={"note": "without a checksum"}),
        header([]),
        header({"__metadata__": None}),
        header(b"[" * 50_000),
        header(b"\xff" * 8),
        (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b" " * 10,
        b"\xff" * 8,
        header(
            {
                "__metadata__": {"note": "", "crc32": ""},
                "xy": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]},
            }
        ),
        header({"__metadata__": {"note": "00000000"}, "xy": {"dtype": "F6", "shape": [0], "data_offsets": [0, 0]}}),
    ],
)
def test_what_is_damaged_or_lies_is_refused_in_one_line(data):
    with pytest.raises(ShardError) as error:
        unpack_tensors(data, {"xy": ("float32", (3, 4))})
    assert "\n" not in str(error.value)
