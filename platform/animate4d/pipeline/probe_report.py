"""What a probe found, as files and as a table to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from animate4d.data.store import ShardStore
from animate4d.io.atomic import write_json, write_text
from animate4d.io.images import save_png
from animate4d.models.mv_vdm import MVVDM
from animate4d.pipeline.probe import REFERENCE_PX, rank, read_clip
from animate4d.pipeline.probe_chart import draw_chart
from animate4d.pipeline.probe_config import ProbeConfig
from animate4d.pipeline.probe_picture import picture_of

Result = Mapping[str, Any]


def write_report(config: ProbeConfig, model: MVVDM, result: Result) -> None:
    """Write what `run_probe` found into `config.out`.

    probe.json has everything; probe.csv a row per tap, timestep, centring and matching, then the baselines; chart.png a
    bar per tap; points-<key>.png the clips that move most, followed with the best layer. Columns named "error" are
    shares of the picture's side, "px" the same in a picture of 256 px.
    """
    write_json(config.out / "probe.json", result)
    rows = [*result["rows"], *({"tap": name, **scores} for name, scores in result["baselines"].items())]
    rows = [{**row, "px": None if row["error"] is None else row["error"] * REFERENCE_PX} for row in rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in rows
    )
    write_text(config.out / "probe.csv", table.getvalue())
    chart = draw_chart(best_per_tap(result), result["baselines"], result["model"]["tap"])
    save_png(config.out / "chart.png", chart)
    for old in config.out.glob("points-*.png"):
        old.unlink()
    store = ShardStore(config.data, keep=config.keep_list)
    for number in telling_clips(result["clips"], config.pictures):
        picture = picture_of(config, model, read_clip(store, number, model), number, result["best"])
        save_png(config.out / f"points-{store.keys[number]}.png", picture)


def telling_clips(clips: Sequence[Mapping[str, Any]], count: int) -> list[int]:
    """Return the numbers of the clips that move most, no object twice while there are others."""
    order = sorted(range(len(clips)), key=lambda number: -clips[number]["motion"])
    first_of: dict[str, int] = {}
    for number in order:
        first_of.setdefault(clips[number]["object"], number)
    firsts = list(first_of.values())
    return [*firsts, *(number for number in order if number not in firsts)][:count]


def best_per_tap(result: Result) -> list[dict[str, Any]]:
    """Return for each tap, in network order, its best row of the configured matching."""
    best: dict[str, dict[str, Any]] = {}
    for row in result["rows"]:
        if row["match"] == result["match"] and (row["tap"] not in best or rank(row) < rank(best[row["tap"]])):
            best[row["tap"]] = row
    return list(best.values())


def probe_table(result: Result) -> str:
    """Return the table to print: each tap at its best noise level, then the baselines."""
    limits, match = result["thresholds_px"], result["match"]
    heads = ["px", "+-", "%", *(f"<={limit:g}px" for limit in limits), "moving", "floor", "centred", "plain"]
    lines = [" ".join([f"{'layer':<40}", f"{'map':>7}", f"{'noise':>5}", *(f"{head:>7}" for head in heads)])]
    either = {
        (row["tap"], row["timestep"], row["centred"]): row["error"] for row in result["rows"] if row["match"] == match
    }
    for row in best_per_tap(result):
        place = (row["tap"], row["timestep"])
        values = [*_values(row, limits), row["floor"], either[*place, True], either[*place, False]]
        mark = "*" if row["tap"] == result["model"]["tap"] else ""
        size = f"{row['height']}x{row['width']}"
        line = _line(row["tap"] + mark, size, str(row["timestep"]), values, len(limits))
        lines.append(line + ("  <- best" if row["tap"] == result["best"]["tap"] else ""))
    lines += [_line(name, "", "", _values(row, limits), len(limits)) for name, row in result["baselines"].items()]
    clips = result["clips"]
    lines += [
        "",
        f"{len(clips)} clips, {sum(clip['points'] for clip in clips)} points, visible ones only. * the layer that "
        "training supervises.",
        f"px: mean distance from the true point in a picture of {REFERENCE_PX} px, +- its standard error over clips, "
        "and as % of the side.",
        f"<=: % of points found so near. moving: px of points then over {result['moving_px']:g} px from their start.",
        "floor: px of the right cell's centre. centred, plain: px with frame 0's mean feature taken off, and without.",
        f"Positions are read by '{match}', each layer at the noise level and centring that suit it best.",
    ]
    return "\n".join(lines)


def _values(scores: Mapping[str, Any], limits: list[float]) -> list[float | None]:
    within = [scores.get(f"within_{limit:g}") for limit in limits]
    return [scores["error"], scores.get("error_se"), scores["error"], *within, scores.get("moving_error")]


def _line(name: str, size: str, noise: str, values: list[float | None], thresholds: int) -> str:
    """Format shares as px, the third value and those of the thresholds as per cent."""
    cells = []
    for place, value in enumerate(values):
        percent = 2 <= place < 3 + thresholds
        shown = "" if value is None else f"{100 * value:.1f}" if percent else f"{REFERENCE_PX * value:.2f}"
        cells.append(f"{shown:>7}")
    return " ".join([f"{name:<40}", f"{size:>7}", f"{noise:>5}", *cells]).rstrip()
