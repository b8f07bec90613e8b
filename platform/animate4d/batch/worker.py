"""The Ray actor that animates rows, whole ones or a step of each.

It loads the model once and works on one object at a time. Outcomes come back as plain dictionaries instead of
exceptions, so that what failed and whose fault it was is decided where it happened; an exception that does reach the
driver means that the process is gone, or the answer.
"""

from __future__ import annotations

import shutil
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from animate4d.core.errors import ExportError, UserError
from animate4d.pipeline.config import Request

if TYPE_CHECKING:
    from animate4d.pipeline.steps import Work

CONCURRENT_CALLS = 2
"""`stage` answers while a row is worked on."""

ANIMATE, BEGIN, IMAGINE, FIT = "animate", "begin", "imagine", "fit"
"""The steps, by the names of their methods; the last two are also the states of an outcome whose row goes on so."""

Step = tuple[dict[str, Any], "Work | None"]
"""What a step returns: its outcome, and the work for the next one. An outcome has a `state`: "done" with the receipt,
"failed" with kind, message and trace, or the next step."""


class RowWorker:
    """Animates objects, as an actor of `batch.pool`.

    A call that comes while another is at work waits for it: the driver asks again where an answer may be lost. A row
    that is done already is told again without the work.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self._version = ""
        self._device: Any = None
        self._stage = "starting"
        self._alone = threading.Lock()

    def prepare(self, model: str | None, version: str, threads: int, on_gpu: bool) -> dict[str, Any]:
        """Load the model, if one is needed; must be called before any step.

        Args:
            model: its folder.
            version: of the model, for the receipts.
            threads: for torch.
            on_gpu: whether this worker holds a share of a GPU, and so computes on it.
        """
        import torch

        from animate4d.compute.device import pick_device

        torch.set_num_threads(threads)
        self._version, self._device = version, pick_device("auto" if on_gpu else "cpu")
        if model is None:
            return {"state": "done"}
        from animate4d.models.mv_vdm import MVVDM
        from animate4d.videos.generate import LocalModel

        try:
            loaded = MVVDM.from_pretrained(Path(model))
        except Exception as error:  # noqa: BLE001  # classified and reported by the driver
            return describe_failure(error)
        self._model = LocalModel(loaded.to(self._device).eval(), version)
        return {"state": "done"}

    def animate(self, request: Request, folder: str) -> Step:
        """Animate one object into `folder`, which appears whole or not at all."""
        return self._step(self._animate, request, Path(folder))

    def begin(self, request: Request, folder: str) -> Step:
        """Read an object and look at it."""
        return self._step(self._begin, request, Path(folder))

    def imagine(self, request: Request, folder: str, work: Work) -> Step:
        """Make the next clip's video of an object that was begun."""
        return self._step(self._imagine, request, Path(folder), work)

    def fit(self, request: Request, folder: str, work: Work) -> Step:
        """Fit the motion to the newest video and, after the last one, write the bundle."""
        return self._step(self._fit, request, Path(folder), work)

    def stage(self) -> str:
        """Return the stage the current object is in."""
        return self._stage

    def _step(self, step: Any, *given: Any) -> Step:
        with self._alone:
            try:
                return step(*given)
            except Exception as error:  # noqa: BLE001  # one object must not end the batch; the trace goes to the ledger
                return describe_failure(error), None
            finally:
                return_gpu_memory()

    def _animate(self, request: Request, folder: Path) -> Step:
        from animate4d.pipeline.animate import animate

        if receipt := _looked_at(request, folder, self._version):
            return {"state": "done", "receipt": receipt}, None
        result = animate(request, self._model, folder, progress=self._tell, device=self._device)
        return {"state": "done", "receipt": result.receipt}, None

    def _begin(self, request: Request, folder: Path) -> Step:
        from animate4d.pipeline.stage_report import StageReport
        from animate4d.pipeline.steps import begin

        if receipt := _looked_at(request, folder, self._version):
            return {"state": "done", "receipt": receipt}, None
        work = begin(request, StageReport(progress=self._tell))
        return {"state": FIT if work.first is None else IMAGINE}, work

    def _imagine(self, request: Request, _folder: Path, work: Work) -> Step:
        from animate4d.pipeline.stage_report import StageReport
        from animate4d.pipeline.steps import imagine

        report = StageReport(progress=self._tell, clock=work.clock)
        return {"state": FIT}, imagine(request, work, self._model, report)

    def _fit(self, request: Request, folder: Path, work: Work) -> Step:
        from animate4d.io.atomic import atomic_folder
        from animate4d.pipeline.animate import kept_beside
        from animate4d.pipeline.receipt import matching_receipt
        from animate4d.pipeline.stage_report import StageReport
        from animate4d.pipeline.steps import finish, fit

        if receipt := matching_receipt(folder, request, self._version):
            return {"state": "done", "receipt": receipt}, None
        report, kept = StageReport(progress=self._tell, clock=work.clock), kept_beside(folder)
        work = fit(request, work, report, kept=kept, device=self._device)
        while work.first is None and len(work.targets) < request.options.clips:
            work = fit(request, work, report, kept=kept, device=self._device)
        if work.first is not None:
            return {"state": IMAGINE}, work
        with atomic_folder(folder) as place:
            receipt = finish(request, work, place, report)
        shutil.rmtree(kept, ignore_errors=True)
        return {"state": "done", "receipt": receipt}, None

    def _tell(self, stage: str, _share: float) -> None:
        self._stage = stage


def _looked_at(request: Request, folder: Path, version: str) -> dict[str, Any] | None:
    """Return the receipt of a result that is there already; else make sure that the asset does no harm."""
    from animate4d.assets.guarded import check_untrusted
    from animate4d.pipeline.receipt import matching_receipt

    receipt = matching_receipt(folder, request, version)
    if receipt is None:
        check_untrusted(request.asset)
    return receipt


def return_gpu_memory() -> None:
    """Give back what torch keeps of the GPU for later, so that a neighbour on the same GPU can have it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def describe_failure(error: Exception) -> dict[str, Any]:
    """Say whose fault an error is: bad input, a resource that ran out, the infrastructure, or a bug of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UserError):
        kind = "bug" if isinstance(error, ExportError) else "bad input"
        return {"state": "failed", "kind": kind, "message": text, "trace": ""}
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        message = f"ran out of memory ({text[:200]}): use fit=draft, or a machine with more memory"
        return {"state": "failed", "kind": "resource", "message": message, "trace": trace}
    if isinstance(error, OSError):
        return {
            "state": "failed",
            "kind": "infrastructure",
            "message": f"reading or writing failed: {text}",
            "trace": trace,
        }
    message = f"animate4d failed on this object ({type(error).__name__}: {text[:300]}); the trace is in ledger.jsonl"
    return {"state": "failed", "kind": "bug", "message": message, "trace": trace}
