"""The MV-Video release as it is downloaded: archives of MP4 files, a table of cameras and captions, a list of the best.

    multi_view_video_00.tar.gz ..   <UID>/<animation, two digits>/view_<k>.mp4, k = 0..15
    uid_info_dict.json              UID -> {url, anim: {"00": {angle: {elv, azi_start}, text_prompt}}}
    high_quality_uid.txt            one UID a line

Archives are read as streams, one animation (16 files, some 0.4 MB) in memory at a time: the files of one animation lie
side by side in them. An extracted folder of the same layout is read likewise.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from animate4d.core.errors import SourceError

INFO_NAME = "uid_info_dict.json"
GOOD_NAME = "high_quality_uid.txt"
VIDEO = re.compile(r"(?:^|/)([A-Za-z0-9_-]{1,100})/(\d{1,4})/view_(\d{1,3})\.mp4$")
MAX_VIDEO_BYTES = 64 * 1024**2
"""A video of the release has some 26 kB."""

SUFFIXES = (".tar.gz", ".tgz", ".tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shot:
    """What the table says about one animation.

    Attributes:
        caption: one sentence, not always right (MiniGPT4-Video).
        elevation_deg: of all cameras.
        azimuth_deg: of view 0.
        url: the object's page, with its licence.
    """

    caption: str
    elevation_deg: float
    azimuth_deg: float
    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceAnimation:
    """The videos of one animation.

    Attributes:
        uid: of the object.
        animation: number as written in the path.
        views: view number -> MP4 bytes.
        problem: why they cannot be read, one line; empty otherwise.
    """

    uid: str
    animation: str
    views: dict[int, bytes]
    problem: str = ""

    @property
    def name(self) -> str:
        """Return "<UID>/<animation>"."""
        return f"{self.uid}/{self.animation}"

    def sha256(self) -> str:
        """Return the hash of all videos, whatever their order in the archive."""
        digest = hashlib.sha256()
        for view, data in sorted(self.views.items()):
            digest.update(b"%d:%d:" % (view, len(data)))
            digest.update(data)
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A folder of the release, looked at but not read.

    Attributes:
        folder: where it is.
        archives: its tar files by name; empty where it is extracted.
        table: UID -> entry of `uid_info_dict.json`.
        only: UIDs to use, None for all.
    """

    folder: Path
    archives: tuple[Path, ...]
    table: dict[str, Any]
    only: frozenset[str] | None

    def wants(self, uid: str) -> bool:
        """Return whether an object is to be used."""
        return self.only is None or uid in self.only

    def expected_animations(self) -> int:
        """Return how many animations of the wanted objects the table lists."""
        entries = (entry for uid, entry in self.table.items() if self.wants(uid))
        return sum(len(entry["anim"]) for entry in entries if isinstance(entry, dict) and "anim" in entry)

    def shot(self, uid: str, animation: str) -> Shot:
        """Look an animation up.

        Raises:
            SourceError: it is not in the table, or its entry lacks something.
        """
        entry = self.table.get(uid)
        if entry is None:
            raise SourceError(f"{uid} is not in {INFO_NAME}")
        try:
            facts = entry["anim"][animation]
            angle = facts["angle"]
            shot = Shot(
                caption=" ".join(str(facts["text_prompt"]).split()),
                elevation_deg=float(angle["elv"]),
                azimuth_deg=float(angle["azi_start"]),
                url=str(entry.get("url", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(f"its entry in {INFO_NAME} lacks something ({type(error).__name__}: {error})") from error
        if not (-90 < shot.elevation_deg < 90 and abs(shot.azimuth_deg) <= 360):
            raise SourceError(f"its camera angles in {INFO_NAME} are impossible: {angle}")
        return shot


def open_release(folder: Path, *, info: Path | None = None, only: Path | None = None) -> Release:
    """Look at a folder of the release.

    Args:
        folder: holds the archives, or the extracted folders of objects.
        info: where `uid_info_dict.json` is; default in the folder.
        only: list of UIDs to use.

    Raises:
        SourceError: no such folder, no table, or a list that cannot be read.
    """
    if not folder.is_dir():
        raise SourceError(f"release is {folder}: there is no such folder")
    path = info or folder / INFO_NAME
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is missing: it is part of the release and holds the cameras (--info says where)"
        ) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(table, dict):
        raise SourceError(f"{path} is not a table of objects")
    archives = tuple(sorted(entry for entry in folder.iterdir() if entry.name.endswith(SUFFIXES) and entry.is_file()))
    return Release(folder=folder, archives=archives, table=table, only=None if only is None else read_uids(only))


def read_uids(path: Path) -> frozenset[str]:
    """Read a list of UIDs, one a line.

    Raises:
        SourceError: it cannot be read, or is empty.
    """
    try:
        uids = frozenset(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read as a list of UIDs ({error})") from error
    if not uids:
        raise SourceError(f"{path}: lists no UID")
    return uids


def read_archive(
    path: Path, wants: Callable[[str], bool], moved: Callable[[int], None] = lambda _bytes: None
) -> Iterator[SourceAnimation]:
    """Yield the animations of an archive, read once from its beginning to its end.

    Args:
        path: the tar file, compressed or not.
        wants: which UIDs to yield; the videos of others are passed over.
        moved: told how many bytes of the file have been read.

    Raises:
        SourceError: the archive is cut or damaged; raised after what could be read has been yielded.
    """
    try:
        with open(path, "rb") as file:
            counted = CountingReader(file, moved)
            # gzip itself notices a missing end; tarfile would take a file that ends after a member for a whole one.
            plain: Any = gzip.GzipFile(fileobj=counted) if is_gzip(path) else counted  # type: ignore[call-overload]
            stream = CountingReader(plain)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                yield from _grouped(_tar_videos(tar, wants))
            while stream.read(1 << 20):
                pass
            if stream.tail.strip(b"\0") or len(stream.tail) < tarfile.BLOCKSIZE:
                raise EOFError("its end is missing")
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise SourceError(f"{path.name} is cut or damaged ({error}): download it again") from error


def read_folder(folder: Path, wants: Callable[[str], bool]) -> Iterator[SourceAnimation]:
    """Yield the animations of an extracted release, by name."""

    def videos() -> Iterator[tuple[str, str, int, bytes | str]]:
        for place, folders, files in os.walk(folder):
            folders.sort()
            for name in sorted(files):
                path = Path(place) / name
                found = VIDEO.search(path.as_posix())
                if found and wants(found[1]):
                    try:
                        yield found[1], found[2], int(found[3]), path.read_bytes()
                    except OSError as error:
                        yield found[1], found[2], int(found[3]), f"{name} cannot be read ({error.strerror})"

    yield from _grouped(videos())


class CountingReader:
    """A binary stream that tells how far it has been read, and remembers its last block."""

    def __init__(self, stream: IO[bytes], moved: Callable[[int], None] = lambda _bytes: None) -> None:
        self._stream, self._moved = stream, moved
        self._count = 0
        self.tail = b""

    def read(self, size: int = -1) -> bytes:
        """Read and count."""
        data = self._stream.read(size)
        self._count += len(data)
        self.tail = (self.tail + data[-tarfile.BLOCKSIZE :])[-tarfile.BLOCKSIZE :]
        self._moved(self._count)
        return data


def is_gzip(path: Path) -> bool:
    """Return whether a file begins as gzip does, whatever its name."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _tar_videos(tar: tarfile.TarFile, wants: Callable[[str], bool]) -> Iterator[tuple[str, str, int, bytes | str]]:
    while (entry := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or a stream is remembered member by member
        found = VIDEO.search(entry.name)
        if not found or not entry.isfile() or not wants(found[1]):
            continue
        uid, animation, view = found[1], found[2], int(found[3])
        if entry.size > MAX_VIDEO_BYTES:
            yield uid, animation, view, f"view_{view}.mp4 claims {entry.size} bytes"
            continue
        body = tar.extractfile(entry)
        data = body.read() if body else b""
        if len(data) != entry.size:
            raise EOFError(f"{entry.name} is cut short")
        yield uid, animation, view, data


def _grouped(videos: Iterator[tuple[str, str, int, bytes | str]]) -> Iterator[SourceAnimation]:
    """Gather the videos that lie side by side into animations; a text in place of bytes says what is wrong."""
    current: tuple[str, str] | None = None
    views: dict[int, bytes] = {}
    problem = ""

    def gathered() -> Iterator[SourceAnimation]:
        if current is not None:
            yield SourceAnimation(uid=current[0], animation=current[1], views=views, problem=problem)

    try:
        for uid, animation, view, data in videos:
            if (uid, animation) != current:
                yield from gathered()
                current, views, problem = (uid, animation), {}, ""
            if isinstance(data, str):
                problem = data
            else:
                views[view] = data
    except (OSError, EOFError, tarfile.TarError, zlib.error):
        # The last animation may be whole; its missing views will be noticed where it is not.
        yield from gathered()
        raise
    yield from gathered()
