"""The rows of a PLY file, binary or text: scalar properties as structured arrays, list properties as counts and values.

Rows whose lists all have one length (triangles, as a rule) are read at once; mixed ones row by row.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from animate4d.core.errors import AssetError

BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyList:
    """A list property of every row of an element.

    Attributes:
        counts: `[rows]` int64 lengths.
        values: `[counts.sum()]` the lists one after another.
    """

    counts: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class PlyElement:
    """What the header says of one element; a property is (name, type, type of the list length or None)."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def scalar_dtype(self) -> list[tuple[str, str]]:
        """Record layout of the scalar properties."""
        return [(name, kind) for name, kind, length in self.properties if length is None]

    @property
    def smallest_row(self) -> int:
        """Bytes of a binary row whose lists are all empty."""
        return sum(np.dtype(length or kind).itemsize for _, kind, length in self.properties)


class BinaryBody:
    """Reads rows off a binary body, one element after another."""

    def __init__(self, path: Path, data: bytes, offset: int, encoding: str) -> None:
        self._path, self._data, self._offset, self._order = path, data, offset, BYTE_ORDERS[encoding]

    def check_room(self, element: PlyElement) -> None:
        """Raise `AssetError` unless the rows an element declares can be there at all; nothing is allocated yet."""
        left = len(self._data) - self._offset
        if element.count * element.smallest_row > left:
            raise _cut(self._path, element, f"{left} bytes")

    def read(self, element: PlyElement) -> tuple[np.ndarray, dict[str, PlyList]]:
        """Return the next rows: scalar properties, and list properties by name."""
        if all(length is None for _, _, length in element.properties):
            return self._table([(name, kind) for name, kind, _ in element.properties], element.count), {}
        lengths = self._first_lengths(element)
        layout = _uniform_layout(element, lengths)
        size = np.dtype([(name, self._order + kind, shape) for name, kind, shape in layout]).itemsize * element.count
        if self._offset + size <= len(self._data):
            start = self._offset
            table = self._table(layout, element.count)
            if all((table[f"{name}#"] == length).all() for name, length in lengths.items()):
                return _split_uniform(table, element, lengths)
            self._offset = start
        return self._read_ragged(element)

    def _table(self, layout: list, count: int) -> np.ndarray:
        dtype = np.dtype([(column[0], self._order + column[1], *column[2:]) for column in layout])
        table = np.frombuffer(self._data, dtype, count, self._offset)
        self._offset += table.nbytes
        return table

    def _first_lengths(self, element: PlyElement) -> dict[str, int]:
        """Return the list lengths of the first row."""
        offset, lengths = self._offset, {}
        for name, kind, length in element.properties if element.count else []:
            if length is not None:
                lengths[name] = self._length(element, length, kind, offset)
                offset += np.dtype(length).itemsize + lengths[name] * np.dtype(kind).itemsize
            else:
                offset += np.dtype(kind).itemsize
        return lengths or {name: 0 for name, _, length in element.properties if length is not None}

    def _length(self, element: PlyElement, length: str, kind: str, offset: int) -> int:
        """Return one list length, checked against the bytes that are left."""
        dtype = np.dtype(self._order + length)
        if offset + dtype.itemsize > len(self._data):
            raise _cut(self._path, element, "less")
        value = int(np.frombuffer(self._data, dtype, 1, offset)[0])
        if value < 0 or offset + dtype.itemsize + value * np.dtype(kind).itemsize > len(self._data):
            raise _cut(self._path, element, "less")
        return value

    def _read_ragged(self, element: PlyElement) -> tuple[np.ndarray, dict[str, PlyList]]:
        """Read rows whose lists differ in length, one row at a time (a few microseconds each)."""
        table = np.zeros(element.count, element.scalar_dtype)
        counts: dict[str, list[int]] = {name: [] for name, _, length in element.properties if length is not None}
        values: dict[str, list[np.ndarray]] = {name: [] for name in counts}
        for row in range(element.count):
            for name, kind, length in element.properties:
                dtype = np.dtype(self._order + kind)
                amount = 1
                if length is not None:
                    amount = self._length(element, length, kind, self._offset)
                    self._offset += np.dtype(length).itemsize
                if self._offset + amount * dtype.itemsize > len(self._data):
                    raise _cut(self._path, element, "less")
                found = np.frombuffer(self._data, dtype, amount, self._offset)
                self._offset += found.nbytes
                if length is None:
                    table[name][row] = found[0]
                else:
                    counts[name].append(amount)
                    values[name].append(found)
        return table, {name: _joined(counts[name], values[name]) for name in counts}


class AsciiBody:
    """Reads rows off a text body, one element after another."""

    def __init__(self, path: Path, body: bytes) -> None:
        self._path, self._bytes = path, len(body)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # numpy's sign of text that is no number
                self._numbers = np.fromstring(body.decode("ascii"), dtype=np.float64, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise AssetError(f"{path}: its text data holds something that is not a number") from error
        self._at = 0

    def check_room(self, element: PlyElement) -> None:
        """Raise `AssetError` unless the rows an element declares can be there at all; nothing is allocated yet."""
        left = len(self._numbers) - self._at
        if element.count * len(element.properties) > left:
            raise _cut(self._path, element, f"{left} numbers")

    def read(self, element: PlyElement) -> tuple[np.ndarray, dict[str, PlyList]]:
        """Return the next rows: scalar properties, and list properties by name."""
        numbers = self._numbers[self._at :]
        lengths: dict[str, int] = {}
        width = 0
        for name, _, length in element.properties:
            if length is not None and element.count:
                lengths[name] = self._length(element, numbers, width)
            width += 1 + lengths.get(name, 0)
        starts = np.cumsum([0, *(1 + lengths.get(name, 0) for name, _, _ in element.properties)])
        block = numbers[: width * element.count]
        uniform = len(block) == width * element.count
        block = block.reshape(-1, width) if uniform and width else block
        heads = {name: int(start) for (name, _, _), start in zip(element.properties, starts, strict=False)}
        if not uniform or not all((block[:, heads[name]] == length).all() for name, length in lengths.items()):
            return self._read_ragged(element, numbers)
        self._at += width * element.count
        table = np.zeros(element.count, element.scalar_dtype)
        lists = {}
        for name, kind, length in element.properties:
            if length is None:
                table[name] = _cast(block[:, heads[name]], kind)
            else:
                size = lengths.get(name, 0)
                found = block[:, heads[name] + 1 : heads[name] + 1 + size].reshape(-1)
                lists[name] = PlyList(counts=np.full(element.count, size, np.int64), values=_cast(found, kind))
        return table, lists

    def _length(self, element: PlyElement, numbers: np.ndarray, at: int) -> int:
        if at >= len(numbers) or not 0 <= numbers[at] <= len(numbers) - at - 1:
            raise _cut(self._path, element, "less")
        return int(numbers[at])

    def _read_ragged(self, element: PlyElement, numbers: np.ndarray) -> tuple[np.ndarray, dict[str, PlyList]]:
        table = np.zeros(element.count, element.scalar_dtype)
        counts: dict[str, list[int]] = {name: [] for name, _, length in element.properties if length is not None}
        values: dict[str, list[np.ndarray]] = {name: [] for name in counts}
        at = 0
        for row in range(element.count):
            for name, kind, length in element.properties:
                if length is None:
                    if at >= len(numbers):
                        raise _cut(self._path, element, "less")
                    table[name][row] = _cast(numbers[at : at + 1], kind)[0]
                    at += 1
                else:
                    amount = self._length(element, numbers, at)
                    counts[name].append(amount)
                    values[name].append(_cast(numbers[at + 1 : at + 1 + amount], kind))
                    at += 1 + amount
        self._at += at
        return table, {name: _joined(counts[name], values[name]) for name in counts}


def _cut(path: Path, element: PlyElement, left: str) -> AssetError:
    return AssetError(
        f"{path}: the header declares {element.count} rows of {element.name}, but {left} are left; the file is cut"
    )


def _uniform_layout(element: PlyElement, lengths: dict[str, int]) -> list[tuple[str, str, tuple[int, ...]]]:
    """Return the record layout of rows whose lists all have the lengths of the first row."""
    layout: list[tuple[str, str, tuple[int, ...]]] = []
    for name, kind, length in element.properties:
        if length is not None:
            layout.append((f"{name}#", length, ()))
        layout.append((name, kind, () if length is None else (lengths[name],)))
    return layout


def _split_uniform(
    table: np.ndarray, element: PlyElement, lengths: dict[str, int]
) -> tuple[np.ndarray, dict[str, PlyList]]:
    """Separate scalar and list columns of a uniform table."""
    scalars = np.zeros(element.count, element.scalar_dtype)
    for name, _ in element.scalar_dtype:
        scalars[name] = table[name]
    return scalars, {
        name: PlyList(counts=np.full(element.count, length, np.int64), values=table[name].reshape(-1))
        for name, length in lengths.items()
    }


def _joined(counts: list[int], values: list[np.ndarray]) -> PlyList:
    return PlyList(
        counts=np.array(counts, np.int64), values=np.concatenate(values) if values else np.zeros(0, np.int64)
    )


def _cast(numbers: np.ndarray, kind: str) -> np.ndarray:
    """Convert float64 numbers of a text file to a property's type."""
    with np.errstate(invalid="ignore", over="ignore"):
        return numbers.astype(kind)
