"""Pictures of the results with the lowest scores: where to look first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from animate4d.batch.report import RowResult

COUNT = 10


def write_worst(folder: Path, out: Path, results: Sequence[RowResult]) -> list[Path]:
    """Write the middle frame of the worst results' thumbnails as PNG, which MLflow's page shows; worst first.

    Args:
        folder: for the pictures; must exist.
        out: the batch's folder.
        results: of all rows.
    """
    scored = [(result.score, result.row.id) for result in results if result.score is not None]
    written = []
    for place, (score, row_id) in enumerate(sorted(scored)[:COUNT], 1):
        thumb = out / row_id / "thumb.webp"
        if thumb.is_file():
            path = folder / f"{place:02d}-{score:.2f}-{row_id}.png"
            with Image.open(thumb) as picture:
                picture.seek(getattr(picture, "n_frames", 1) // 2)
                picture.convert("RGB").save(path)
            written.append(path)
    return written
