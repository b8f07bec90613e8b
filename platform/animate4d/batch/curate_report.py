"""What a curation says: keep.txt for the trainer, clips.csv and curation.json for people, borderline.png to look at."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from animate4d.batch.report import safe_cell
from animate4d.batch.shard_contact import spread
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.io.atomic import write_json, write_text
from animate4d.io.images import composite_grey, contact_sheet, save_png
from animate4d.io.shards import ShardInfo, iterate_shard
from animate4d.pipeline.curation import ClipFacts, Finding, nearest_view

CELL = 96
"""Pixels per side of a picture in the sheet."""

MOMENTS = 4
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

MEASURED = (
    "ssim_quarter",
    "ssim_half",
    "side_quarter",
    "side_half",
    "border",
    "empty",
    "motion",
    "magnitude",
    "magnitude_object",
    "mask_confidence",
)
COLUMNS = ("key", "object", "animation", "caption", "decision", "reasons", *MEASURED, "percentile", "duplicate_of")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What becomes of a clip.

    Attributes:
        facts: what was measured.
        findings: of all rules; it stays if none of them drops it.
        duplicate_of: key of the clip that shows the same and stays, empty if there is none.
    """

    facts: ClipFacts
    findings: tuple[Finding, ...]
    duplicate_of: str

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return not any(finding.dropped for finding in self.findings)


def write_keep_list(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the keys of the clips that stay, one a line; people may add or strike some."""
    head = "# Clips to train on, one key a line; what follows a # is left out.\n"
    write_text(path, head + "".join(f"{verdict.facts.key}\n" for verdict in verdicts if verdict.kept))


def write_table(path: Path, verdicts: Sequence[Verdict]) -> None:
    """Write one line per clip: decision, reasons, numbers; percentile is that of m among the clips that stay."""
    kept = np.sort([verdict.facts.magnitude or 0.0 for verdict in verdicts if verdict.kept])
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for verdict in verdicts:
        facts = verdict.facts
        reasons = [f"{finding.rule}: {finding.text}" for finding in verdict.findings if finding.dropped]
        cells: dict[str, Any] = {
            "key": facts.key,
            "object": safe_cell(facts.object),
            "animation": safe_cell(facts.animation),
            "caption": safe_cell(facts.caption),
            "decision": "keep" if verdict.kept else "drop",
            "reasons": safe_cell("; ".join(reasons)),
            "duplicate_of": verdict.duplicate_of,
        }
        cells |= {name: rounded(getattr(facts, name)) for name in MEASURED}
        if len(kept) and facts.magnitude is not None:
            cells["percentile"] = round(100 * float(np.searchsorted(kept, facts.magnitude)) / len(kept), 1)
        writer.writerow(cells)
    write_text(path, stream.getvalue())


def write_summary(path: Path, verdicts: Sequence[Verdict], settings: dict[str, Any]) -> None:
    """Write settings, how many clips each rule drops, and the quantiles of m among those that stay."""
    kept = [verdict.facts for verdict in verdicts if verdict.kept]
    quantiles = {
        name: {
            f"{share:.0%}": float(np.quantile([getattr(facts, name) for facts in kept], share)) for share in QUANTILES
        }
        for name in ("magnitude", "magnitude_object")
        if kept
    }
    content = {
        "settings": settings,
        "clips": len(verdicts),
        "kept": len(kept),
        "dropped": dropped_by_rule(verdicts),
        "quantiles": quantiles,
    }
    write_json(path, content)


def dropped_by_rule(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """Return how many clips each rule drops, most first; a clip may fail several."""
    counts: dict[str, int] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            if finding.dropped:
                counts[finding.rule] = counts.get(finding.rule, 0) + 1
    return dict(sorted(counts.items(), key=lambda pair: -pair[1]))


def rounded(value: float | None) -> float | str:
    """Return five significant digits, or an empty cell."""
    return "" if value is None else float(f"{value:.5g}")


def borderline(verdicts: Sequence[Verdict], count: int) -> list[tuple[str, str]]:
    """Choose the clips nearest to each threshold, `count` on either side, and pairs of duplicates.

    A rule that drops nothing shows nothing: its nearest clips may be far from it. Nor does a clip that has nothing at
    all of what a rule counts.

    Returns:
        (key, text) by rule, from what clearly stays to what clearly goes.
    """
    chosen: list[tuple[str, str]] = []
    rules = [rule for rule in dropped_by_rule(verdicts) if rule not in ("duplicate", "damaged")]
    for rule in rules:
        sides: dict[bool, list[tuple[float, str, str]]] = {False: [], True: []}
        for verdict in verdicts:
            for finding in verdict.findings:
                if finding.rule == rule and finding.value:
                    distance = abs(finding.value - finding.threshold)
                    sides[finding.dropped].append((distance, verdict.facts.key, finding.text))
        stay, go = (sorted(sides[dropped])[:count] for dropped in (False, True))
        chosen += [(key, f"{rule}, stays: {text}") for _, key, text in reversed(stay)]
        chosen += [(key, f"{rule}, DROPPED: {text}") for _, key, text in go]
    for verdict in [verdict for verdict in verdicts if verdict.duplicate_of][:count]:
        chosen.append((verdict.duplicate_of, "duplicate, stays"))
        chosen.append((verdict.facts.key, "duplicate, DROPPED: shows the same as the one above"))
    return chosen


def write_borderline(path: Path, shards: Path, infos: Sequence[ShardInfo], chosen: Sequence[tuple[str, str]]) -> None:
    """Write a row per chosen clip: front and side view at four times. An older sheet goes when nothing is chosen."""
    wanted = {key for key, _ in chosen}
    pictures: dict[str, tuple[str, list[np.ndarray]]] = {}
    for info in infos:
        if wanted.isdisjoint(info.keys):
            continue
        for key, members in iterate_shard(shards / info.name):
            if key in wanted:
                pictures[key] = clip_row(members)
    rows = [(f"{text}   ({pictures[key][0]})", pictures[key][1]) for key, text in chosen if key in pictures]
    if rows:
        save_png(path, contact_sheet(rows, columns_per_group=MOMENTS))
    else:
        path.unlink(missing_ok=True)


def clip_row(members: dict[str, bytes]) -> tuple[str, list[np.ndarray]]:
    """Return caption and name of a clip, and its front and side view at four times `[CELL, CELL, 3]`."""
    meta = decode_meta(members)
    views = [nearest_view(meta.camera_to_world, azimuth) for azimuth in (0.0, 90.0)]
    video = decode_clip(
        {name: data for name, data in members.items() if not name.endswith(".npz")},
        views=views,
        frames=spread(len(meta.times), MOMENTS),
    ).video
    shown = composite_grey(np.concatenate([video.rgb, video.alpha[..., None]], axis=-1)).reshape(
        -1, meta.size, meta.size, 3
    )
    way = cv2.INTER_AREA if meta.size > CELL else cv2.INTER_NEAREST
    cells = [cv2.resize(picture, (CELL, CELL), interpolation=way) for picture in shown]
    cells += [np.full_like(cells[0], 40)] * (2 * MOMENTS - len(cells))
    return f"{meta.caption}; {meta.object}: {meta.animation}", cells
