"""A layout: what a published file calls the tensors of our network, used in both directions.

A layout states one thing only, the table from our names to theirs. Import looks every one of our names up in it, export
reads the same table, so the two cannot drift apart. Several of our tensors may share one of theirs (AnimateDiff keeps
one time encoding for two attentions).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from animate4d.core.errors import ConfigError, ModelError
from animate4d.models.config import MVVDMConfig
from animate4d.models.layouts.checkpoint import Checkpoint
from animate4d.models.layouts.report import MatchReport

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One published layout.

    Attributes:
        name: short name for the command line.
        title: what people call it.
        option: the option it is given as ("base", "motion", ...).
        table: from all names of our network to `{our name: their name}` of what this layout holds.
        signature: expressions that must all occur in a file's names for it to have this layout.
        ignored: (expression, reason) of names in their files that are knowingly left out.
        pointwise: expression for their names whose matrices are stored as 1x1 convolutions.
        computed: expression for our tensors that follow from a formula, so that a file may lack them.
        needs: what a model's configuration must say for this layout to describe its network.
        advise: from a report that does not fit to what the reason looks like.
    """

    name: str
    title: str
    option: str
    table: Callable[[Collection[str]], dict[str, str]]
    signature: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...] = ()
    pointwise: str = r"(?!)"
    computed: str = r"(?!)"
    needs: tuple[tuple[str, Any], ...] = ()
    advise: Callable[[MatchReport], str] = lambda report: ""

    def signs(self, names: Collection[str]) -> bool:
        """Whether a file with these names has this layout."""
        return all(any(re.search(sign, name) for name in names) for sign in self.signature)

    def require(self, config: MVVDMConfig) -> None:
        """Check that a model is of the kind this layout describes.

        Raises:
            ConfigError: a field of its configuration says otherwise.
        """
        for name, wanted in self.needs:
            value = getattr(config, name)
            if value != wanted and not (wanted is True and isinstance(value, tuple) and all(value)):
                raise ConfigError(f"model.{name} is {value}: {self.title} needs {wanted} (see the preset paper)")

    def foreign_shape(self, theirs: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape their file has for a tensor of ours."""
        return (*shape, 1, 1) if len(shape) == 2 and re.search(self.pointwise, theirs) else shape


class Renamed(Mapping[str, torch.Tensor]):
    """Tensors of a file under other names and shapes, still read only when asked for."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], table: Mapping[str, str], shapes: Shapes) -> None:
        self._tensors, self._table, self._shapes = tensors, table, shapes

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[self._table[name]].reshape(self._shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)


def match(layout: Layout, network: Shapes, checkpoint: Checkpoint) -> tuple[Renamed, MatchReport]:
    """Compare a file with what it should provide.

    Args:
        layout: how to read it.
        network: name -> shape of every tensor of our network.
        checkpoint: the file.

    Returns:
        The tensors that fit, under our names, and the report.

    Raises:
        ModelError: the file holds integers in a weight's place.
    """
    table = layout.table(network.keys())
    found: dict[str, str] = {}
    missing, misshaped = [], []
    for ours, theirs in table.items():
        if theirs not in checkpoint.tensors:
            missing += [] if re.search(layout.computed, ours) else [theirs]
            continue
        value = checkpoint.tensors[theirs]
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise ModelError(f"{checkpoint.path}: {theirs} is stored as {kind}; give weights that are not quantised")
        wanted, shape = layout.foreign_shape(theirs, network[ours]), tuple(value.shape)
        if wanted == shape:
            found[ours] = theirs
        else:
            misshaped.append((theirs, wanted, shape))
    known, ignored, unexpected = set(table.values()), dict[str, int](), []
    for name in checkpoint.tensors:
        if name in known:
            continue
        reason = next((reason for pattern, reason in layout.ignored if re.search(pattern, name)), None)
        if reason is None:
            unexpected.append(name)
        else:
            ignored[reason] = ignored.get(reason, 0) + 1
    report = MatchReport(
        part=layout.option,
        layout=layout.title,
        path=checkpoint.path,
        matched=len(found),
        parameters=sum(prod(network[name]) for name in found),
        expected=len(table),
        elsewhere=len(network) - len(table),
        missing=tuple(dict.fromkeys(missing)),
        unexpected=tuple(unexpected),
        misshaped=tuple(dict.fromkeys(misshaped)),
        ignored=ignored,
    )
    return Renamed(checkpoint.tensors, found, {name: network[name] for name in found}), report


def to_foreign(layout: Layout, tensors: Mapping[str, torch.Tensor]) -> Renamed:
    """Return our tensors under their names and in their shapes.

    Args:
        layout: how to name them.
        tensors: every tensor of a network of ours.

    Raises:
        ModelError: two of our tensors would share one of theirs but differ.
    """
    table: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for ours, theirs in layout.table(tensors.keys()).items():
        if theirs in table:
            if not torch.equal(tensors[table[theirs]], tensors[ours]):
                raise ModelError(
                    f"{layout.title} keeps one {theirs} for {table[theirs]} and {ours}, which differ in this model; "
                    "choose another layout"
                )
            continue
        table[theirs] = ours
        shapes[theirs] = layout.foreign_shape(theirs, tuple(tensors[ours].shape))
    return Renamed(tensors, table, shapes)
