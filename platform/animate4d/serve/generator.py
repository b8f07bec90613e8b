"""The generator: a Ray Serve deployment that holds the model once and makes the videos of several jobs in one batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import serve

from animate4d.core.errors import ModelError, UserError
from animate4d.pipeline.receipt import model_version
from animate4d.runs.registry import resolve_model
from animate4d.serve.batches import Batches
from animate4d.serve.shared_model import Order
from animate4d.videos.generate import generate_videos
from animate4d.videos.maker import GeneratedVideo

logger = logging.getLogger(__name__)

MODEL_SECONDS = 60.0
"""How often a registered model's alias is looked up again, between two batches: none is dropped for a new model."""

WAIT_SECONDS = 0.03
"""How long a batch that is not full waits for more: jobs that were submitted together come this close together."""

Made = tuple[GeneratedVideo, str]
"""A video, and the version of the model that made it."""


class Abandoned(Exception):
    """Nobody waits for these videos any more."""


class Generator:
    """Holds the model once per replica.

    Args:
        model: as in `runs.registry.resolve_model`; loaded at the first call, so that a missing one is told by `status`
            instead of letting Ray start replicas without end.
        tracking_uri: where registered models are looked up.
        threads: of torch.
        batch: most videos at once; halved when they do not fit into memory.
    """

    def __init__(self, model: str, tracking_uri: str | None, threads: int, batch: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.spec, self.tracking_uri = model, tracking_uri
        self.model: Any = None
        self.folder = Path()
        self.version = ""
        self.batches: Batches[Order, Made | Exception] = Batches(
            self._make, alike=lambda order: order.id if order.alone else order.config, most=batch, wait=WAIT_SECONDS
        )
        self._looked = -float("inf")
        self._loading, self._at_work = threading.Lock(), False
        self._steps: dict[str, tuple[int, int]] = {}

    async def generate(self, order: Order) -> Made | Exception:
        """Make a video, together with others that are sampled alike.

        What is wrong with the order, or that there is no model, is returned: raised, it would reach the caller with a
        trace in its text.
        """
        return await self.batches.submit(order)

    async def steps(self, order_id: str) -> tuple[int, int] | None:
        """Return (steps done, steps) of a video that is being made."""
        return self._steps.get(order_id)

    async def status(self) -> dict[str, str]:
        """Load the model if need be; returns what it is, or the `reason` why there is none. Waits for no batch."""
        return await asyncio.to_thread(self._status)

    def check_health(self) -> None:
        """Raise where the GPU has failed, which lasts as long as its process does, so that Ray starts another one."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def _status(self) -> dict[str, str]:
        try:
            with self._loading:
                if self.model is None or not self._at_work:
                    self._load()
        except ModelError as error:
            return {"reason": str(error)}
        return {"name": self.spec, "version": self.version}

    def _load(self) -> None:
        """Load the model, or a new one that has taken its name in the registry; the old one stays if that fails.

        Raises:
            ModelError: there is none, for whatever reason.
        """
        if self.model is not None and time.monotonic() - self._looked < MODEL_SECONDS:
            return
        if self.model is None or self.spec.startswith("models:"):
            try:
                folder = resolve_model(self.spec, uri=self.tracking_uri)
                if folder != self.folder:
                    self._read(folder)
            except Exception as error:
                if not isinstance(error, UserError):
                    logger.exception("the model %s cannot be loaded", self.spec)
                first = next(iter(str(error).splitlines()), type(error).__name__)
                if self.model is None:
                    raise ModelError(f"the model cannot be loaded: {first}") from error
                logger.warning("the model that went by %s before goes on: %s", self.spec, first)
        self._looked = time.monotonic()

    def _read(self, folder: Path) -> None:
        import torch

        from animate4d.models.mv_vdm import MVVDM

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = MVVDM.from_pretrained(folder).to(device).eval()
        self.folder, self.version = folder, model_version(folder)

    def _make(self, orders: list[Order], abandoned: Callable[[], bool]) -> Sequence[Made | Exception]:
        """Make the videos of a batch; where that fails, each alone, so that only the one that is to blame fails."""
        try:
            with self._loading:
                self._at_work = True  # from here to the end nobody replaces the model
                self._load()
            made = self._together(orders, abandoned)
            if isinstance(made, Exception) and len(orders) > 1 and not abandoned():
                tries = [self._together([order], abandoned) for order in orders]
                return [one if isinstance(one, Exception) else one[0] for one in tries]
            return [made] * len(orders) if isinstance(made, Exception) else made
        except ModelError as error:
            return [error.with_traceback(None)] * len(orders)
        finally:
            self._at_work = False

    def _together(self, orders: list[Order], abandoned: Callable[[], bool]) -> list[Made] | Exception:
        """Make videos in one batch, or return why that failed, without the trace that keeps its tensors alive."""
        import torch

        def progress(done: int, steps: int) -> None:
            if abandoned():
                raise Abandoned
            self._steps.update({order.id: (done, steps) for order in orders})

        try:
            videos = generate_videos(
                self.model,
                [order.first_frames.copy() for order in orders],  # those from the object store are read-only
                [order.rig for order in orders],
                [order.prompt for order in orders],
                seeds=[order.seed for order in orders],
                config=orders[0].config,
                progress=progress,
            )
        except (UserError, Abandoned) as error:
            return error.with_traceback(None)
        except Exception as error:
            logger.exception("%d videos in a batch failed", len(orders))
            if isinstance(error, torch.OutOfMemoryError):
                self.batches.most = max(1, len(orders) // 2)
            return RuntimeError(f"{type(error).__name__}: {error}")
        finally:
            self._steps.clear()
        return [(video, self.version) for video in videos]


SharedGenerator = serve.deployment(name="Generator", max_ongoing_requests=1000, health_check_timeout_s=60)(Generator)
