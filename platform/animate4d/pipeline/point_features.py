"""Diffusion features of an object's points (paper 001 eq. 6): what the video model sees where a point rests.

A point is projected from its place in frame 0 into the feature map of every view and frame; views that see it are
averaged, occluded projections are discarded by a ray cast. The maps are read once per object, and reduced to a few
principal components before anything is sampled: 1280 channels of 16 frames at 10 000 points would take 0.8 GB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from animate4d.core.clip import MultiViewVideo
from animate4d.core.errors import ConfigError
from animate4d.core.mesh import Mesh
from animate4d.models.mv_vdm import MVVDM
from animate4d.views.rays import Cameras, RayCaster

CHANNELS = 16
"""Principal components kept: as many as a plane has features, so that neither drowns the other."""

TOLERANCE = 0.02
"""Canonical units a point may lie behind the first surface and still be seen: splats sink by about their own radius."""

NOISE = 0.05
"""Noise level of the pass that features are read from, as a share of the schedule: slight, as in the papers' probe."""

COVERED = 0.25
"""Coverage from which a cell of a feature map counts as the object's."""


class PointFeatures:
    """Reads a clip's features once and hands them out by point."""

    def __init__(
        self, model: MVVDM, video: MultiViewVideo, mesh: Mesh, prompt: str, *, tap: str | None = None, seed: int = 0
    ) -> None:
        """Run the network.

        Args:
            model: in evaluation mode, on any device.
            video: of as many views as the model's.
            mesh: at rest, as in frame 0.
            prompt: the clip's caption.
            tap: where to read; default where the model was trained to track.
            seed: of the noise.

        Raises:
            ConfigError: the video has other views than the model, or the tap is unknown.
        """
        self.frames = video.rgb.shape[1]
        self.cameras = Cameras.of(video.camera_to_world, video.intrinsics, video.rgb.shape[2])
        self.caster = RayCaster(mesh.vertices, mesh.faces)
        maps, self.read = read_maps(model, video, prompt, tap or model.config.tap, seed)
        self.maps = principal(maps, video.alpha[:, self.read], CHANNELS)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Return `[T, P, CHANNELS]` float32 of rest points `[P, 3]`; each channel has mean 0 and variance 1."""
        xy, _ = self.cameras.project_all(points)
        seen = visible(points, self.cameras, self.caster)
        found = gathered(self.maps, xy / self.cameras.size, seen)
        hidden = ~seen.any(0)
        if hidden.any() and not hidden.all():
            nearest = cKDTree(points[~hidden]).query(points[hidden])[1]
            found[:, hidden] = found[:, ~hidden][:, nearest]
        found -= found.mean((0, 1))
        found /= np.maximum(found.std((0, 1)), 1e-6)
        # frames the model did not take lie between those it took
        at = np.interp(np.arange(self.frames), self.read, np.arange(len(self.read)))
        low = np.minimum(at.astype(int), len(self.read) - 2) if len(self.read) > 1 else np.zeros(self.frames, int)
        share = (at - low)[:, None, None].astype(np.float32)
        high = np.minimum(low + 1, len(self.read) - 1)
        return (1 - share) * found[low] + share * found[high]


@torch.no_grad()
def read_maps(model: MVVDM, video: MultiViewVideo, prompt: str, tap: str, seed: int) -> tuple[Tensor, np.ndarray]:
    """Return feature maps `[V, F, C, h, w]` float32 on the CPU and the F frames of the video they belong to."""
    config = model.config
    views, times = video.rgb.shape[:2]
    if views != config.views:
        raise ConfigError(f"features: the video has {views} views, the model takes {config.views}")
    device = next(model.parameters()).device
    read = np.linspace(0, times - 1, min(times, config.frames)).round().astype(np.int64)
    pictures = torch.from_numpy(video.on_grey()[:, read] * 2 - 1).permute(0, 1, 4, 2, 3).to(device)
    size = (config.image_size, config.image_size)
    clip = interpolate(pictures.flatten(0, 1), size=size, mode="area").unflatten(0, pictures.shape[:2])[None]
    generator = torch.Generator().manual_seed(seed)
    clean = model.encode(clip, generator)
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    scheduler: Any = model.scheduler  # diffusers finds its methods at run time
    step = torch.full((1,), round(NOISE * config.train_timesteps), device=device)
    noisy = scheduler.add_noise(clean.flatten(1, 2), noise.flatten(1, 2), step).view_as(clean)
    noisy[:, :, 0] = clean[:, :, 0]
    features = model.read_features(
        noisy,
        step,
        camera=torch.as_tensor(video.camera_to_world, dtype=torch.float32, device=device)[None],
        text=[prompt],
        frame_index=torch.arange(len(read), device=device)[None],
        first_frame=clean[:, :, 0],
        image_embeds=model.embed_image(clip[:, :, 0]),
        taps=[tap],
    )
    return features[tap][0].float().cpu(), read


def principal(maps: Tensor, alpha: np.ndarray, channels: int) -> Tensor:
    """Reduce maps `[V, F, C, h, w]` to the principal components `[V, F, channels, h, w]` of the object's own cells.

    Args:
        maps: features.
        alpha: `[V, F, H, W]` uint8 coverage; decides which cells are the object's.
        channels: to keep; those beyond what the maps have are zero.
    """
    height, width = maps.shape[-2:]
    coverage = interpolate(torch.from_numpy(alpha.astype(np.float32) / 255), size=(height, width), mode="area")
    own = coverage > COVERED
    cells = maps.permute(0, 1, 3, 4, 2)[own if bool(own.any()) else torch.ones_like(own)].double()
    mean = cells.mean(0)
    _, vectors = torch.linalg.eigh((cells - mean).T @ (cells - mean))
    kept = vectors.flip(1)[:, :channels]
    # a component's sign is arbitrary: its largest entry is made positive, so that runs agree
    kept = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
    reduced = torch.einsum("vfchw,ck->vfkhw", maps - mean.float()[:, None, None], kept.float())
    return torch.nn.functional.pad(reduced, (0, 0, 0, 0, 0, channels - reduced.shape[2]))


def visible(points: np.ndarray, cameras: Cameras, caster: RayCaster) -> np.ndarray:
    """Return `[V, P]` bool: points in the picture that no surface hides."""
    xy, depth = cameras.project_all(points)
    view = np.repeat(np.arange(cameras.views), len(points))
    hits = caster.cast(*cameras.rays(view, xy.reshape(-1, 2)))
    first = np.where(hits.face >= 0, hits.depth, np.inf).reshape(depth.shape)
    inside = ((xy >= 0) & (xy < cameras.size)).all(-1)
    return inside & (depth > 0) & (depth < first + TOLERANCE)


def gathered(maps: Tensor, xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return `[F, P, C]` float32: the mean over the views that see a point, zero where none does.

    Args:
        maps: `[V, F, C, h, w]`.
        xy: `[V, P, 2]` in shares of the picture.
        seen: `[V, P]` bool.
    """
    frames, count = maps.shape[1], xy.shape[1]
    grid = torch.from_numpy(2 * xy.astype(np.float32) - 1)
    weight = torch.from_numpy(seen.astype(np.float32))
    total = torch.zeros(frames, count, maps.shape[2])
    for view, sheet in enumerate(maps):
        places = grid[view].expand(frames, 1, count, 2)
        sampled = grid_sample(sheet, places, padding_mode="border", align_corners=False)[:, :, 0]
        total += sampled.mT * weight[view][:, None]
    return (total / weight.sum(0).clamp(min=1.0)[:, None]).numpy()
