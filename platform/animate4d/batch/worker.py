"""The Ray actor that animates rows: it loads the model once and works on one object at a time.

Outcomes come back as plain dictionaries instead of exceptions, so that what failed and whose fault it was is decided
where it happened; an exception that does reach the driver means the process is gone.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from animate4d.core.errors import ExportError, UserError
from animate4d.pipeline.config import Request

CONCURRENT_CALLS = 2
"""`stage` answers while `animate` runs."""


class RowWorker:
    """Animates objects, as an actor of `batch.pool`."""

    def __init__(self) -> None:
        self._model: Any = None
        self._version = ""
        self._stage = "starting"

    def prepare(self, model: str | None, version: str, threads: int) -> dict[str, Any]:
        """Load the model, if one is needed; must be called before `animate`."""
        import torch

        torch.set_num_threads(threads)
        self._version = version
        if model is None:
            return {"state": "done"}
        from animate4d.models.mv_vdm import MVVDM
        from animate4d.videos.generate import LocalModel

        try:
            loaded = MVVDM.from_pretrained(Path(model))
        except Exception as error:  # noqa: BLE001  # classified and reported by the driver
            return describe_failure(error)
        self._model = LocalModel(loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval(), version)
        return {"state": "done"}

    def animate(self, request: Request, folder: str) -> dict[str, Any]:
        """Animate one object into `folder`; returns its state with the receipt, or with kind, message and trace.

        Asked again after its answer was lost, it gives the same one without the work.
        """
        from animate4d.assets.guarded import check_untrusted
        from animate4d.pipeline.animate import animate
        from animate4d.pipeline.receipt import matching_receipt

        def progress(stage: str, _share: float) -> None:
            self._stage = stage

        try:
            if receipt := matching_receipt(Path(folder), request, self._version):
                return {"state": "done", "receipt": receipt}
            check_untrusted(request.asset)
            result = animate(request, self._model, Path(folder), progress=progress)
        except Exception as error:  # noqa: BLE001  # one object must not end the batch; the trace goes into the ledger
            return describe_failure(error)
        finally:
            return_gpu_memory()
        return {"state": "done", "receipt": result.receipt}

    def stage(self) -> str:
        """Return the stage the current object is in."""
        return self._stage


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
