"""What the bench fits every clip with: the preset as it is and, to see what each part is worth, without one at a time.

A new ingredient gets a row by one more entry here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from animate4d.bench.fourd_config import BenchFourDConfig
from animate4d.core.errors import ConfigError, ModelError
from animate4d.fourd.config import PRESETS, Body, FitConfig
from animate4d.fourd.field_config import FieldConfig
from animate4d.pipeline.target import MODEL_FLOW, NO_TRACKER
from animate4d.tracks.build import EXACT, WEIGHTLESS, check_tracker

AS_IS = "as is"

WITHOUT: Mapping[str, dict[str, Any]] = {
    "no rigidity": {"rigidity": 0.0},
    "no masks": {"silhouette": 0.0, "coverage": 0.0},
    "no silhouette pull": {"silhouette": 0.0},
    "no warm start": {"starts": ("rest",), "backward_steps": 0},
    "no competing starts": {"starts": ("neighbour",), "backward_steps": 0},
    "no way back": {"backward_steps": 0},
    "no rigid starts": {"rigid_starts": False},
    "no stiff start": {"stiffness": 1.0},
    "no image levels": {"levels": 1},
    "no joint steps": {"joint_steps": 0},
    "no fine level": {"fine_steps": 0},
    "no extra rigidity at the fine level": {"fine_rigidity": 1.0},
    "no bias removal": {"bias_steps": 0},
    "bias removal": {"bias_steps": 60},
}
"""Changes of `FitConfig`, by the name of the row; those that a preset has anyway get none."""

LIGHT: dict[str, Any] = {"frames": "light", "head_rate": 1e-3}
"""Of `FieldFitConfig`: two frames a step and faster heads, a quarter of the time and nearer to the truth."""

BODIES: Mapping[str, tuple[Body, dict[str, Any]]] = {
    "field, light": ("field", LIGHT),
    "field, papers' rates": ("field", {"frames": "light"}),
    "graph and field": ("both", LIGHT),
}
"""Other bodies at the preset's sizes, and changes of their `FieldFitConfig`, by the name of the row."""

LAMPS: Mapping[str, tuple[Body, dict[str, Any]]] = {
    "lamps: graph": ("graph", {}),
    "lamps: field, light": ("field", LIGHT),
    "lamps: field, light, colours held": ("field", LIGHT | {"field": FieldConfig(color_terms=1)}),
    "lamps: graph and field": ("both", LIGHT),
    "lamps: graph and field, colours held": ("both", LIGHT | {"field": FieldConfig(color_terms=1)}),
}
"""Bodies under lamps that stand still: what colours that move in time (4D spherical harmonics) are worth there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to fit.

    Attributes:
        name: of the row.
        fit: settings.
        tracker: "none" or one of `tracks.build.TRACKERS`.
        checkpoint: weights of a learned tracker.
        around: whether splats are coloured from more sides than the video's.
        features: whether a field is given the shipped model's features of the object's points.
        distilled: whether its refinement distils from the shipped model.
        lamps: whether surfaces change colour as they turn under lamps that stand still.
    """

    name: str
    fit: FitConfig
    tracker: str
    checkpoint: Path | None = None
    around: bool = True
    features: bool = False
    distilled: bool = False
    lamps: bool = False


def choose_variants(config: BenchFourDConfig) -> list[Variant]:
    """Return the variants asked for, the preset as it is first.

    Raises:
        ConfigError: a name in `only` is no variant, or the tracker does not go with its checkpoint.
        ModelError: the checkpoint is missing.
    """
    preset = PRESETS[config.preset]()
    learned = config.tracker_checkpoint if config.tracker.startswith("cotracker3") else None
    if config.tracker in ("auto", MODEL_FLOW):
        raise ConfigError(f"tracker is {config.tracker!r}: perfect videos have no model's flow: give exact or none")
    if config.tracker != NO_TRACKER:
        check_tracker(config.tracker, learned)
    if config.tracker_checkpoint is not None and not config.tracker_checkpoint.is_file():
        raise ModelError(f"{config.tracker_checkpoint}: there is no such file: give the tracker's weights")
    first = Variant(name=AS_IS, fit=preset, tracker=config.tracker, checkpoint=learned)
    if not config.ablate:
        return [first]
    changed = {name: replace(preset, **changes) for name, changes in WITHOUT.items()}
    rows = [replace(first, name=name, fit=fit) for name, fit in changed.items() if fit != preset]
    rows.append(replace(first, name="no views around", around=False))
    for name, (body, changes) in BODIES.items():
        field = replace(preset.field, **changes)
        rows.append(replace(first, name=name, fit=replace(preset, body=body, field=field)))
        if changes is LIGHT:
            rows.append(replace(rows[-1], name=f"{name}, features", features=True))
            rows.append(replace(rows[-2], name=f"{name}, distilled", distilled=True))
    for name, (body, changes) in LAMPS.items():
        field = replace(preset.field, **changes)
        fit = replace(preset, body=body, field=field)
        rows.append(replace(first, name=name, fit=fit, tracker=NO_TRACKER, checkpoint=None, lamps=True))
    trackers: dict[str, Path | None] = dict.fromkeys((NO_TRACKER, *WEIGHTLESS, EXACT))
    if config.tracker_checkpoint is not None:
        trackers["cotracker3"] = config.tracker_checkpoint
    rows += [
        replace(first, name=f"tracks: {name}", tracker=name, checkpoint=path)
        for name, path in trackers.items()
        if name != config.tracker
    ]
    unknown = set(config.only) - {row.name for row in rows}
    if unknown:
        names = ", ".join(row.name for row in rows)
        raise ConfigError(f"only names {sorted(unknown)[0]!r}, which is no variant: give some of {names}")
    return [first, *(row for row in rows if not config.only or row.name in config.only)]
