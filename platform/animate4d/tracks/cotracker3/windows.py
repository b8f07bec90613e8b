"""The online layout: windows of a few frames, each starting from what the window before it found.

Successive windows share half their frames. For points queried before a window's second half, the shared frames start
from the earlier window's result and the others from its last frame; points met later start at their query. Until a
window reaches a point's query frame the point takes part without a look, as in training of the released weights; what
is found of it before its query frame means little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from animate4d.tracks.cotracker3.correlation import FeatureMaps
from animate4d.tracks.cotracker3.model import CoTracker3, Estimate, Queries, State, absent_points, start_state


class WindowRun:
    """Tracks of clips that arrive piece by piece, in pieces of any length.

    Features are computed once per frame and let go when no later window needs them. Nothing of a run stays in the
    model, so any number of them may be open.

    Args:
        model: an online network.
        queries: `[B, N, 3]` as for `CoTracker3.forward`; frames are counted from the first one pushed.
        valid: `[B, N]` bool; the others are padding. None: all are.
        iterations: refinements per window.
    """

    def __init__(self, model: CoTracker3, queries: Tensor, *, valid: Tensor | None = None, iterations: int = 6) -> None:
        self._model = model
        self._window = model.config.window
        self._step = self._window // 2
        self._queries = queries
        self._absent = absent_points(valid)
        self._iterations = iterations
        self._looks: list[Tensor] = []
        self._start = 0  # of the next window, and of the maps kept
        self._maps: FeatureMaps | None = None
        self._settled: list[State] = []
        self._latest: State | None = None

    @torch.inference_mode()
    def push(self, video: Tensor | FeatureMaps, *, last: bool = False) -> Estimate | None:
        """Add frames, and track in the windows they fill.

        Args:
            video: `[B, T, 3, H, W]` as for `CoTracker3.encode`, or what it returned.
            last: no frames follow; what is left is tracked in a window filled up with the last frame.

        Returns:
            Tracks over all frames that a window has covered so far, where the newest half window may still change;
            None before the first window is full.
        """
        new = video if isinstance(video, FeatureMaps) else self._model.encode(video)
        self._maps = new if self._maps is None else self._maps.followed_by(new)
        frames = self._start + self._maps.frames
        while self._maps.frames >= self._window:
            self._run(self._maps.between(0, self._window))
            self._maps = self._maps.between(self._step, self._maps.frames)
        covered = 0 if self._latest is None else self._start + self._step
        if last and frames > covered:
            self._run(self._maps.held_to(self._window))
        if self._latest is None:
            return None
        parts = [*self._settled, self._latest]
        cells, logits = (torch.cat(found, dim=2)[:, :, :frames] for found in zip(*parts, strict=True))
        return State(cells, logits).estimate()

    def _run(self, maps: FeatureMaps) -> None:
        start, window, step = self._start, self._window, self._step
        asked = self._ask(maps)
        state = start_state(asked, window)
        if self._latest is not None:
            self._settled.append(State(*(found[:, :, :step] for found in self._latest)))
            known = (asked.frames < start + window - step)[..., None, None]
            carried = (
                torch.cat([found[:, :, step:], found[:, :, -1:].expand(-1, -1, step, -1)], dim=2)
                for found in self._latest
            )
            state = State(*(torch.where(known, old, fresh) for old, fresh in zip(carried, state, strict=True)))
        self._latest = self._model.refine(maps, asked, state, self._absent, self._iterations)
        self._start += step

    def _ask(self, maps: FeatureMaps) -> Queries:
        """Look at the queries that this window is the first to reach."""
        frames = self._queries[..., 0].long()
        here = frames - self._start
        within = here.clamp(0, self._window - 1)[..., None]
        looked = self._model.ask(maps, torch.cat([within, self._queries[..., 1:]], dim=-1))
        new = (here < self._window) & ((here >= self._window - self._step) | (self._start == 0))
        old = self._looks or [torch.zeros_like(look) for look in looked.looks]
        self._looks = [torch.where(new[..., None, None], *pair) for pair in zip(looked.looks, old, strict=True)]
        return Queries(frames, looked.cells, self._looks)


def track_windows(
    model: CoTracker3, video: Tensor | FeatureMaps, queries: Tensor, *, valid: Tensor | None = None, iterations: int = 6
) -> Estimate:
    """Track points through whole clips of any length with an online network; arguments as for `CoTracker3.forward`."""
    estimate = WindowRun(model, queries, valid=valid, iterations=iterations).push(video, last=True)
    assert estimate is not None
    return estimate
