"""Which clips are worth training on: Diffusion4D's rules (paper 003 section 3.2), what they need measured, and judging.

Measuring looks at pictures and is done once; judging compares numbers with thresholds and costs nothing, so thresholds
can be tried. The paper renders times 0, T/4 and T/2 from the front and discards a clip when both similarities to time 0
are above 0.95 (it moves too little) or one is below 0.4 (it falls apart), and when alpha touches the border in any
frame. It does not say which window, background and resolution the similarity has; those are options, and stored. From
the front a slim animal that walks looks still: `Thresholds.side` looks at it from the side as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import cKDTree

from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ConfigError, ShardError
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.io.images import composite
from animate4d.metrics.magnitude import motion_magnitude
from animate4d.metrics.ssim import Window, ssim

BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}

LOOK_SIDE, LOOK_FRAMES = 8, 4
"""A clip's look: front and side view at this many times, averaged down to this many pixels a side. 1.5 kB."""

LOOK_NOISE = 12.0
"""Rounding to bytes moves a look by sqrt(1536 / 12) = 11 steps; what is nearer cannot be told apart."""

SKETCH = 16
"""Numbers of a look that candidates for duplicates are searched by; projecting never makes a distance larger."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureOptions:
    """What the numbers depend on.

    Attributes:
        window: of the similarity.
        background: behind the object in it.
        border_px: how far from the edge of the picture the object must stay.
        border_alpha: coverage (0..255) from which a pixel counts there.
    """

    window: Window = "uniform7"
    background: str = "white"
    border_px: int = 1
    border_alpha: int = 8

    def __post_init__(self) -> None:
        for name, good, wanted in [
            ("window", self.window in ("uniform7", "gaussian11"), "uniform7 or gaussian11"),
            ("background", self.background in BACKGROUNDS, " or ".join(BACKGROUNDS)),
            ("border_px", self.border_px >= 1, "at least 1"),
            ("border_alpha", 0 <= self.border_alpha < 255, "from 0 to 254"),
        ]:
            if not good:
                raise ConfigError(f"{name} is {getattr(self, name)}: give {wanted}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipFacts:
    """What was measured of one clip; numbers are None where it cannot be decoded.

    Attributes:
        key: of the sample.
        object: of its meta.
        animation: of its meta.
        caption: of its meta.
        start: seconds into the animation.
        problem: why it cannot be decoded, empty if it can.
        ssim_quarter: similarity of the front view at times 0 and T/4.
        ssim_half: the same for T/2.
        side_quarter: as ssim_quarter, of the side view.
        side_half: as ssim_half, of the side view.
        border: share of all views' frames in which the object touches the border.
        empty: share of all views' frames that show nothing.
        motion: mean vertex displacement as a share of the diameter, None where only videos are known.
        magnitude: Diffusion4D's m, mean over all elements.
        magnitude_object: the same over the region of the object.
        mask_confidence: of its meta.
        digest: sha256 of the stored pictures.
    """

    key: str
    object: str = ""
    animation: str = ""
    caption: str = ""
    start: float = 0.0
    problem: str = ""
    ssim_quarter: float | None = None
    ssim_half: float | None = None
    side_quarter: float | None = None
    side_half: float | None = None
    border: float | None = None
    empty: float | None = None
    motion: float | None = None
    magnitude: float | None = None
    magnitude_object: float | None = None
    mask_confidence: float | None = None
    digest: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Thresholds:
    """Where clips are dropped.

    Attributes:
        max_ssim: dropped as too still when both similarities are above.
        min_ssim: dropped as distorted when one is below.
        side: look from the side, too: still only where both views are, distorted where one is.
        max_border: dropped when the object touches the border in a larger share of frames.
        min_motion: dropped when the vertices move less, where that is known.
        min_magnitude: dropped when m is smaller.
        min_mask_confidence: dropped when the masks are less certain.
        duplicates: dropped when the difference to another clip is smaller than this share of the clip's own motion.
    """

    max_ssim: float = 0.95
    min_ssim: float = 0.4
    side: bool = False
    max_border: float = 0.0
    min_motion: float = 0.005
    min_magnitude: float = 0.0
    min_mask_confidence: float = 0.5
    duplicates: float = 0.1

    def __post_init__(self) -> None:
        for name in ("max_ssim", "min_ssim"):
            if not -1 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number from -1 to 1")
        for name in ("max_border", "min_motion", "min_mask_confidence", "duplicates"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a share from 0 to 1")
        if self.min_magnitude < 0:
            raise ConfigError(f"min_magnitude is {self.min_magnitude}: give 0 or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One rule's word on one clip.

    Attributes:
        rule: its name.
        value: what was measured.
        threshold: what it was compared with.
        dropped: whether the clip fails.
        text: the reason, for people.
    """

    rule: str
    value: float
    threshold: float
    dropped: bool
    text: str


def measure_clip(key: str, members: Mapping[str, bytes], options: MeasureOptions) -> tuple[ClipFacts, np.ndarray]:
    """Measure one sample; some 0.1 CPU-seconds for 16 views x 16 frames of 64 px.

    Returns:
        The facts, and the clip's look `[LOOK_FRAMES, 2, LOOK_SIDE, LOOK_SIDE, 3]` uint8 (zeros if undecodable).
    """
    try:
        meta = decode_meta(members)
        count = len(meta.times)
        video = decode_clip(_pictures(members), views=range(len(meta.camera_to_world)), frames=range(count)).video
    except ShardError as error:
        return ClipFacts(key=key, problem=str(error)), np.zeros((LOOK_FRAMES, 2, LOOK_SIDE, LOOK_SIDE, 3), np.uint8)
    front, side = (nearest_view(video.camera_to_world, azimuth) for azimuth in (0.0, 90.0))
    colour = BACKGROUNDS[options.background]
    times = [0, count // 4, count // 2]
    likeness = []
    for view in (front, side):
        start, *later = (_shown(video, view, time, colour).astype(np.float32) / 255.0 for time in times)
        likeness += [ssim(start, picture, window=options.window) for picture in later]
    solid = video.alpha > options.border_alpha
    rim = options.border_px
    inner = solid[..., rim:-rim, rim:-rim].sum((-1, -2))
    covered = solid.sum((-1, -2))
    magnitude = motion_magnitude(video)
    facts = ClipFacts(
        key=key,
        object=meta.object,
        animation=meta.animation,
        caption=meta.caption,
        start=float(meta.times[0]),
        ssim_quarter=likeness[0],
        ssim_half=likeness[1],
        side_quarter=likeness[2],
        side_half=likeness[3],
        border=float((covered > inner).mean()),
        empty=float((covered == 0).mean()),
        motion=meta.motion,
        magnitude=magnitude.picture,
        magnitude_object=magnitude.object,
        mask_confidence=meta.mask_confidence,
        digest=digest_of(members),
    )
    moments = [time * count // LOOK_FRAMES for time in range(LOOK_FRAMES)]
    look = [[_shown(video, view, time, BACKGROUNDS["white"]) for view in (front, side)] for time in moments]
    small = [
        [cv2.resize(picture, (LOOK_SIDE, LOOK_SIDE), interpolation=cv2.INTER_AREA) for picture in row] for row in look
    ]
    return facts, np.array(small)


def judge(facts: ClipFacts, limits: Thresholds) -> list[Finding]:
    """Return what every rule says of a clip, except duplicates."""
    if facts.problem:
        return [Finding(rule="damaged", value=1, threshold=0, dropped=True, text=facts.problem)]
    pairs = [facts.ssim_quarter, facts.ssim_half] + [facts.side_quarter, facts.side_half] * limits.side
    least = min(value or 0.0 for value in pairs)
    seen = "SSIM " + ", ".join(f"{value:.3f}" for value in pairs)
    # (rule, value, threshold, whether larger is worse, text)
    rules = [
        ("still", least, limits.max_ssim, True, seen),
        ("distorted", least, limits.min_ssim, False, seen),
        ("border", facts.border, limits.max_border, True, "touches the border in {:.1%} of frames"),
        ("empty", facts.empty, 0.0, True, "nothing to be seen in {:.1%} of frames"),
        ("motion", facts.motion, limits.min_motion, False, "moves by {:.2%} of its diameter"),
        ("magnitude", facts.magnitude, limits.min_magnitude, False, "motion magnitude {:.2g}"),
        ("mask", facts.mask_confidence, limits.min_mask_confidence, False, "mask confidence {:.2f}"),
    ]
    return [
        Finding(
            rule=rule,
            value=value,
            threshold=limit,
            dropped=value > limit if upwards else value < limit,
            text=text.format(value),
        )
        for rule, value, limit, upwards, text in rules
        if value is not None
    ]


def find_duplicates(facts: list[ClipFacts], looks: np.ndarray, share: float) -> dict[str, str]:
    """Find clips that show the same as an earlier one under another name.

    Two clips are the same when their stored pictures are, or when their looks differ by less than `share` of what the
    less moving one moves by: two idles of one creature look alike and are not the same. Clips of one animation of one
    object that begin at different times are never duplicates of one another.

    Args:
        facts: of N clips, in order.
        looks: `[N, ...]` uint8, as `measure_clip` gives them.
        share: of a clip's own motion; 0 finds only equal pictures.

    Returns:
        Key of a duplicate -> key of the earlier clip that stays.
    """
    if not facts:
        return {}
    moments = looks.reshape(len(looks), looks.shape[1], -1).astype(np.float32)
    own = np.sqrt(np.square(moments - moments[:, :1]).sum((1, 2)))
    flat = moments.reshape(len(moments), -1)
    reach = np.maximum(share * own, LOOK_NOISE) if share else np.zeros(len(flat))
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((flat.shape[1], SKETCH)))[0].astype(np.float32)
    sketch = flat @ basis
    tree = cKDTree(sketch) if share else None
    first: dict[str, int] = {}
    found: dict[str, str] = {}
    for number, fact in enumerate(facts):
        same = first.setdefault(fact.digest, number)
        near: Iterable[int] = [same] if same != number else []
        if tree is not None and not near:
            near = sorted(tree.query_ball_point(sketch[number], reach[number]))
        for other in near:
            if other >= number:
                break
            earlier = facts[other]
            siblings = (earlier.object, earlier.animation) == (fact.object, fact.animation)
            apart = float(np.linalg.norm(flat[number] - flat[other]))
            equal = earlier.digest == fact.digest
            if earlier.key in found or (siblings and earlier.start != fact.start):
                continue
            if equal or apart < min(reach[number], reach[other]):
                found[fact.key] = earlier.key
                break
    return found


def nearest_view(camera_to_world: np.ndarray, azimuth_deg: float) -> int:
    """Return which of `[V, 4, 4]` cameras stands nearest to an azimuth."""
    position = camera_to_world[:, :2, 3]
    wanted = np.radians(azimuth_deg)
    towards = position @ np.array([np.cos(wanted), np.sin(wanted)]) / np.maximum(np.linalg.norm(position, axis=1), 1e-9)
    return int(np.argmax(towards.round(6)))


def digest_of(members: Mapping[str, bytes]) -> str:
    """Return the sha256 of a sample's pictures as hex."""
    digest = hashlib.sha256()
    for name, data in sorted(_pictures(members).items()):
        if name != "meta.json":
            digest.update(data)
    return digest.hexdigest()


def _pictures(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if not name.endswith(".npz")}


def _shown(video: MultiViewVideo, view: int, frame: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Return one picture `[H, W, 3]` uint8 on a background."""
    return composite(np.concatenate([video.rgb[view, frame], video.alpha[view, frame][..., None]], axis=-1), colour)
