"""Several weight files as one network: which file gives which tensor, and what starts anew.

Later files cover earlier ones: base, motion, IP-Adapter, Animate3D; what none provides starts as the papers start it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path

import torch

from animate4d.core.errors import ModelError
from animate4d.models.census import meta_network
from animate4d.models.config import MVVDMConfig
from animate4d.models.fresh import fresh_tensor
from animate4d.models.import_config import ImportWeightsConfig
from animate4d.models.layouts.checkpoint import Checkpoint, read_checkpoint
from animate4d.models.layouts.groups import group_of
from animate4d.models.layouts.known import layout_of
from animate4d.models.layouts.layout import Renamed, Shapes, match
from animate4d.models.layouts.report import MatchReport
from animate4d.models.unet import MultiViewUNetMotionModel

FRESH = {
    "mv2v": "MV2V: to_q_i2v copies to_q, to_out_i2v is zero",
    "space_time": "spatial branches drawn anew, blends one half",
    "motion": "motion modules drawn anew behind a zero projection (no --motion)",
}
"""How the groups start that no file provides; the rest must come from a file."""


@dataclass(frozen=True, slots=True)
class Network(Mapping[str, torch.Tensor]):
    """Every tensor of the network to be, read or drawn when it is asked for.

    Attributes:
        empty: the network on the meta device.
        given: name -> the tensors of the file that provides it.
        files: name -> that file.
        shapes: name -> shape, in the network's order.
        seed: of what no file provides.
    """

    empty: MultiViewUNetMotionModel
    given: dict[str, Renamed]
    files: dict[str, Path]
    shapes: Shapes
    seed: int

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self.given:
            return self.given[name][name]
        return fresh_tensor(self.empty, name, self, self.seed)

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)

    def origin(self, name: str) -> str:
        """Return where a tensor comes from, for messages."""
        return str(self.files.get(name, "start"))

    def covered(self, reports: list[MatchReport]) -> list[tuple[str, int, int]]:
        """Return (option, tensors that stay, tensors it gave) of files that later ones cover in part."""
        used = Counter(self.files.values())
        return [
            (report.part, used[report.path], report.matched) for report in reports if used[report.path] < report.matched
        ]

    def fresh(self) -> dict[str, int]:
        """Return how many tensors of each group no file provides."""
        counts: dict[str, int] = {}
        for name in self.shapes:
            if name not in self.given:
                counts[group_of(name)] = counts.get(group_of(name), 0) + 1
        return counts


def open_base(path: Path | None) -> Checkpoint | None:
    """Open MVDream: a file, a U-Net folder, or a pipeline folder, whose camera embedding may be a part of its own."""
    if path is None:
        return None
    if not path.is_dir():
        return read_checkpoint(path)
    checkpoint = read_checkpoint(path / "unet" if (path / "unet").is_dir() else path)
    tensors = dict(checkpoint.tensors)
    if (path / "camera_proj").is_dir():
        camera = read_checkpoint(path / "camera_proj").tensors
        tensors |= {f"camera_proj.{name}": camera[name] for name in camera}
    return Checkpoint(path, tensors)


def join(config: ImportWeightsConfig, model: MVVDMConfig, base: Checkpoint | None) -> tuple[Network, list[MatchReport]]:
    """Match every given file with the network.

    Raises:
        ModelError: a file does not fit, or a part is missing that has no start of its own.
        ConfigError: the model is of another kind than the files.
    """
    empty = empty_network(model)
    shapes = shapes_of(empty)
    given: dict[str, Renamed] = {}
    files: dict[str, Path] = {}
    reports = []
    for option, path in (
        ("base", config.base),
        ("motion", config.motion),
        ("ip-adapter", config.ip_adapter),
        ("animate3d", config.animate3d),
    ):
        if path is None:
            continue
        checkpoint = base if option == "base" and base is not None else read_checkpoint(path)
        layout = layout_of(checkpoint, option)
        layout.require(model)
        tensors, report = match(layout, shapes, checkpoint)
        if not report.fits:
            report = replace(report, advice=layout.advise(report))
            print(report.table())
            raise ModelError(report.summary())
        reports.append(report)
        given |= dict.fromkeys(tensors, tensors)
        files |= dict.fromkeys(tensors, path)
    network = Network(empty, given, files, shapes, config.seed)
    lacking = [name for name in shapes if name not in given and group_of(name) not in FRESH]
    if lacking:
        raise ModelError(f"{len(lacking)} tensors come from no file (first {lacking[0]}): give --base and --ip-adapter")
    return network, reports


@lru_cache(maxsize=2)
def empty_network(model: MVVDMConfig) -> MultiViewUNetMotionModel:
    """Return a model's network on the meta device: names and shapes without memory; not to be changed."""
    return meta_network(model)


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor."""
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def parameters(shapes: Shapes) -> int:
    """Return how many numbers there are, fixed time encodings left out."""
    return sum(prod(shape) for name, shape in shapes.items() if not name.endswith(".pe"))
