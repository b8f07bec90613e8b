"""The gallery of a batch: one `index.html` that opens from disk and shows every object moving in four views.

Everything a manifest or an asset says is escaped. The page may run only its own script and load only files beside it:
the content security policy names both by hash.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from animate4d.batch.forecast import duration
from animate4d.batch.manifest import Manifest
from animate4d.batch.report import LINKS, RowResult, best_of_seeds, links_of
from animate4d.io.atomic import write_text
from animate4d.io.pages import escape, part, policy

AT_ONCE = 60
"""Entries that a browser lays out when the page opens; ten thousand would keep it busy for a minute."""

LINK_NAMES = {"glb": ("GLB", "animated.glb"), "ply": ("PLY", "splats.ply"), "mp4": ("MP4", "views.mp4")}


def write_gallery(path: Path, manifest: Manifest, results: Sequence[RowResult]) -> None:
    """Write the page atomically; result folders are expected beside it, named by row id."""
    style, script = (part("animate4d.batch", name) for name in ("gallery.css", "gallery.js"))
    done = [result for result in results if result.state == "done"]
    others = [result for result in results if result.state != "done"]
    best = best_of_seeds(results)
    seeds = Counter(result.row.group for result in results)
    page = Template(part("animate4d.batch", "gallery.html")).substitute(
        policy=policy(style, script, "img-src 'self' data:; media-src 'self'"),
        title=escape(manifest.path.stem),
        summary=escape(_summary(results)),
        style=style,
        script=script,
        all=len(results),
        done=len(done),
        failed=len(others),
        best=len(best),
        best_hidden="" if best else "hidden",
        cards=_some([_card(result, result.row.id in best, seeds[result.row.group]) for result in done]),
        problems=_problems(others),
    )
    write_text(path, page)


def _summary(results: Sequence[RowResult]) -> str:
    counts = {state: sum(result.state == state for result in results) for state in ("done", "failed", "skipped")}
    parts = [f"{counts['done']} animated"]
    parts += [f"{counts[state]} {state}" for state in ("failed", "skipped") if counts[state]]
    seconds = sum(sum(result.receipt["seconds"].values()) for result in results if result.state == "done")
    return " · ".join([*parts, f"{duration(seconds)} of work"])


def _card(result: RowResult, best: bool, seeds: int) -> str:
    """Return one card; `best` of so many `seeds` of one row."""
    row, receipt = result.row, result.receipt
    request, folder = receipt["request"], quote(row.id)
    seconds = receipt["seconds"]
    stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items())
    truth_given = request["video"] == "ground-truth"
    clip = f" · clip {request['clip'] or 0}" if truth_given else ""
    name, quality, share, explained = _quality(receipt)
    links = [
        f'<a href="{folder}/{LINKS[key]}" download="{escape(row.id)}-{file}">{text}</a>'
        for key, (text, file) in LINK_NAMES.items()
        if key in links_of(receipt)
    ]
    if "viewer" in links_of(receipt):
        links.insert(0, f'<a class="view" href="{folder}/{LINKS["viewer"]}">View in 3D</a>')
    links.append(f'<a href="{folder}/{LINKS["receipt"]}">Receipt</a>')
    return Template(part("animate4d.batch", "gallery_card.html")).substitute(
        text=escape(f"{row.id} {row.asset} {row.prompt}".lower()),
        still=f"{folder}/still.webp",
        views=f"{folder}/views.mp4",
        video=f"{folder}/{request['video']}.mp4",
        thumb=f"{folder}/thumb.webp",
        video_title="the asset's own clip" if truth_given else "the generated video",
        alt=escape(f"{request['asset']}: four views"),
        prompt=escape(row.prompt or f"{request['asset']}: its own clip"),
        asset=escape(request["asset"]),
        origin=escape(f" · own animation{clip}" if truth_given else ""),
        quality_name=name,
        quality=quality,
        quality_share=f"{share:.3f}",
        quality_title=escape(explained),
        seconds=duration(sum(seconds.values())),
        seconds_title=escape(stages),
        seed=request["seed"],
        seeds=f" of {seeds}" if seeds > 1 else "",
        badge='<b class="badge">best seed</b>' if best else "",
        best=int(best),
        score=f"{result.score or 0:.4f}",
        work=f"{sum(seconds.values()):.1f}",
        notes=_notes(result),
        links="".join(links),
    )


def _quality(receipt: dict) -> tuple[str, str, float, str]:
    """Return name, value, share of the meter, and explanation of how good the fit is."""
    truth, overlap = receipt["truth"], receipt["fit"]["mask_iou"]
    if truth is None or truth["ratio"] is None:
        return "Fit", f"{overlap:.0%}", overlap, "overlap of the moved model's outline with the video's"
    explained = (
        f"mean vertex error {truth['e_fit']:.2%} of the object's diameter; standing still: {truth['e_static']:.2%}; "
        f"ratio {truth['ratio']:.2f}"
    )
    recovered = min(max(1.0 - truth["ratio"], 0.0), 1.0)
    return "Motion recovered", f"{recovered:.0%}", recovered, explained


def _notes(result: RowResult) -> str:
    notes = result.notes
    lost = result.receipt["fit"]["lost_frames"]
    if lost:
        notes.insert(0, f"The fit lost the video in frame{'s' if len(lost) > 1 else ''} {', '.join(map(str, lost))}.")
    if not notes:
        return ""
    return '<ul class="notes">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"


def _problems(results: Sequence[RowResult]) -> str:
    if not results:
        return ""
    entries = [
        f'<div class="problem" data-state="{result.state}" '
        f'data-text="{escape(f"{result.row.id} {result.row.asset} {result.row.prompt} {result.message}".lower())}">'
        f'<div class="what"><p><bdi>{escape(Path(result.row.asset).name or result.row.id)}</bdi></p>'
        f'<p class="kind">{escape(result.kind or result.state)} · line {result.row.line}</p></div>'
        f'<p dir="auto">{escape(result.message)}</p>'
        f'<p class="asked" dir="auto">{escape(result.row.prompt)}</p></div>'
        for result in results
    ]
    return (
        '<section class="problems" aria-label="Rows not done"><h3>Not done</h3>'
        f'<div class="list">{_some(entries)}</div><p class="left"></p></section>'
    )


def _some(entries: Sequence[str]) -> str:
    """Return the first entries as they are and the rest in a template, from which the page's script takes them."""
    rest = "".join(entries[AT_ONCE:])
    return "".join(entries[:AT_ONCE]) + (f"<template>{rest}</template>" if rest else "")
