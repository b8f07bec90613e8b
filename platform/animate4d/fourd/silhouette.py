"""The pull into the silhouette: splats outside the mask go back to it, pixels of the mask call the nearest splat.

Tiny splats have no colour gradient across a gap; this carries a limb that moved further than its own width.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from animate4d.fourd.photometric import Pictures

CALLERS = 300
"""Mask pixels per view and frame that may call a splat (300 in the study)."""


class Silhouette:
    """Masks of all frames, ready to pull."""

    def __init__(self, pictures: Pictures, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        masks = pictures.frames[:, :, 3].numpy() > 0.5
        self._size = pictures.size
        distance = np.zeros(masks.shape, np.float32)
        callers = np.zeros((*masks.shape[:2], CALLERS, 2), np.float32)
        calling = np.zeros(masks.shape[:2], np.float32)
        # where the object leaves the picture (left, top; right, bottom), nobody knows how far
        self._low = torch.from_numpy(~np.stack([masks[..., 0].any(-1), masks[..., 0, :].any(-1)], -1))
        self._high = torch.from_numpy(~np.stack([masks[..., -1].any(-1), masks[..., -1, :].any(-1)], -1))
        for frame, view in np.ndindex(*masks.shape[:2]):
            mask = masks[frame, view]
            if not mask.any():
                continue
            distance[frame, view] = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            inside = np.argwhere(mask)
            callers[frame, view] = inside[rng.integers(len(inside), size=CALLERS)][:, ::-1] + 0.5
            calling[frame, view] = 1.0
        self._distance, self._callers = torch.from_numpy(distance), torch.from_numpy(callers)
        self._calling = torch.from_numpy(calling)

    def pull(self, xy: Tensor, frames: Tensor) -> Tensor:
        """Return `[B]`: mean squared distances, in image widths, of splats to the mask and of mask pixels to splats.

        Args:
            xy: `[B, V, N, 2]` projected splats, pixels.
            frames: `[B]` int64.
        """
        batch, views, count = xy.shape[:3]
        height, width = self._size
        end = xy.new_tensor([float(width), float(height)])
        grid = (xy / end * 2 - 1).reshape(batch * views, 1, count, 2)
        field = self._distance[frames].view(batch * views, 1, height, width)
        outside = F.grid_sample(field, grid, padding_mode="border", align_corners=False).view(batch, views, count)
        # beyond the border the field is flat: the distance to the image keeps a slope back into it
        low, high = self._low[frames][:, :, None], self._high[frames][:, :, None]
        outside = outside + ((-xy).clamp(min=0) * low + (xy - end).clamp(min=0) * high).sum(-1)
        callers = self._callers[frames]
        nearest = torch.from_numpy(_nearest(callers.flatten(0, 1).numpy(), xy.detach().flatten(0, 1).numpy()))
        called = torch.gather(xy, 2, nearest.view(batch, views, CALLERS, 1).expand(-1, -1, -1, 2)) - callers
        far = called.square().sum(-1) * self._calling[frames][..., None]
        return (outside.square().mean((1, 2)) + far.mean((1, 2))) / width**2


def _nearest(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return `[K, Q]` int64: for each of K sets, the point `[K, N, 2]` nearest to each query `[K, Q, 2]`.

    Trees take a sixth of the time of comparing all pairs (1.6 against 9 ms for four sets of 2000 points, 300 queries).
    """
    return np.stack(
        [
            cKDTree(places, balanced_tree=False, compact_nodes=False).query(asked)[1]
            for asked, places in zip(queries, points, strict=True)
        ]
    )
