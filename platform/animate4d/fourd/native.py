"""Our C kernels (splats, Hex-planes): compiled once per machine with the system's compiler, loaded by ctypes.

The library goes to a per-user cache under a name that hashes sources and flags, so a new version or another processor
builds its own, and two processes that build at once only replace one good file by another. Compiling takes a second.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

log = logging.getLogger("animate4d")

SOURCES = tuple(Path(__file__).with_name(name) for name in ("raster.c", "field.c", "vectors.h"))
NEAR = 0.01
"""Splats nearer than this to the camera plane are not drawn (gsplat's default near plane)."""
EPS2D = 0.3
"""Added to the diagonal of the 2D covariance, square pixels (gsplat's default)."""
MAX_ALPHA = 0.999
"""Clamp of one splat's alpha in gsplat 1.5.3; keep opacities below it and every backend agrees."""
MIN_ALPHA = 1.0 / 255.0
MIN_TRANSMITTANCE = 1e-4

FLOATS = ctypes.POINTER(ctypes.c_float)


def cache_folder() -> Path:
    """Return the per-user folder of compiled libraries (`XDG_CACHE_HOME`, else `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "animate4d"


def compile_flags() -> list[str]:
    """Return the flags for this processor: AVX2 with FMA where it has them, which is worth a factor of seven."""
    flags = ["-O3", "-std=gnu11", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"]
    features = Path("/proc/cpuinfo")
    if platform.machine() in ("x86_64", "AMD64") and features.exists():
        words = set(features.read_text().split())
        if {"avx2", "fma"} <= words:
            flags += ["-mavx2", "-mfma"]
    constants = {"NEAR": NEAR, "EPS2D": EPS2D, "MAX_ALPHA": MAX_ALPHA, "MIN_ALPHA": MIN_ALPHA}
    constants["MIN_TRANSMITTANCE"] = MIN_TRANSMITTANCE
    return flags + [f"-D{name}={value!r}f" for name, value in constants.items()]


def build(folder: Path | None = None) -> Path:
    """Compile `SOURCES` unless the cache holds it already; return the library's path.

    Raises:
        OSError: no compiler was found, it failed, or the cache cannot be written.
    """
    folder = folder or cache_folder()
    flags = compile_flags()
    text = b"".join(source.read_bytes() for source in SOURCES)
    identity = hashlib.sha256(text + " ".join([*flags, platform.machine()]).encode()).hexdigest()[:16]
    library = folder / f"kernels-{identity}.so"
    if library.exists():
        return library
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise OSError("no C compiler (cc, gcc or clang) on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        fresh = Path(scratch) / library.name
        # Compilers without an OpenMP runtime (clang on its own) still make a good library of one thread.
        for threading in (["-fopenmp"], []):
            units = [str(source) for source in SOURCES if source.suffix == ".c"]
            command = [compiler, *flags, *threading, *units, "-o", str(fresh), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                fresh.replace(library)
                return library
    raise OSError(
        f"{compiler} could not compile the kernels: {(done.stderr.strip().splitlines() or ['no message'])[0]}"
    )


@cache
def load() -> ctypes.CDLL | None:
    """Return the compiled library, or None (with one line in the log) on a machine that cannot build it."""
    try:
        library = ctypes.CDLL(str(build()))
    except OSError as error:
        log.warning(
            "splats are drawn in plain torch, about 150 times slower, because the C kernels are absent: %s", error
        )
        return None
    library.splat_forward.restype = ctypes.c_void_p
    library.splat_forward.argtypes = [ctypes.c_int] * 7 + [FLOATS] * 7
    library.splat_backward.restype = ctypes.c_int
    library.splat_backward.argtypes = [ctypes.c_void_p] + [FLOATS] * 11
    library.splat_free.restype = None
    library.splat_free.argtypes = [ctypes.c_void_p]
    library.hex_forward.argtypes = [ctypes.c_int] * 7 + [ctypes.c_void_p] * 5
    library.hex_backward.argtypes = [ctypes.c_int] * 7 + [ctypes.c_void_p] * 7
    library.heads_forward.argtypes = [ctypes.c_int64] + [ctypes.c_int] * 4 + [ctypes.c_void_p] * 4
    library.heads_backward.argtypes = [ctypes.c_int64] + [ctypes.c_int] * 4 + [ctypes.c_void_p] * 7
    return library


class Drawing:
    """One forward pass of F frames by V views and what its backward pass needs.

    Args:
        means: `[F, N, 3]`; all arrays are C-contiguous float32.
        factors: `[F, N, 3, 3]`, covariance = M M^T.
        opacities: `[N]`.
        colors: `[N, 3]`, or `[F, N, 3]` where they change.
        viewmats: `[V, 4, 4]` world-to-camera, OpenCV axes.
        intrinsics: `[V, 3, 3]`.
        size: (height, width).
        threads: OpenMP threads; the result does not depend on it.

    Attributes:
        image: `[F, V, 4, H, W]` float32 premultiplied r, g, b and alpha, without background.
    """

    def __init__(
        self,
        means: np.ndarray,
        factors: np.ndarray,
        opacities: np.ndarray,
        colors: np.ndarray,
        viewmats: np.ndarray,
        intrinsics: np.ndarray,
        size: tuple[int, int],
        threads: int,
    ) -> None:
        library = load()
        assert library is not None
        self._library, self._handle = library, None
        self._inputs = (means, factors, opacities, colors, viewmats, intrinsics)
        frames, count = means.shape[:2]
        views, (height, width) = len(viewmats), size
        tinted = colors.ndim == 3
        palette = (frames, count, 3) if tinted else (count, 3)
        shapes = ((frames, count, 3), (frames, count, 3, 3), (count,), palette, (views, 4, 4), (views, 3, 3))
        for array, shape in zip(self._inputs, shapes, strict=True):
            if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise ValueError(f"expected C-contiguous float32 {shape}, got {array.dtype} {array.shape}")
        self.image = np.empty((frames, views, 4, height, width), np.float32)
        arrays = (*self._inputs, self.image)
        self._handle = library.splat_forward(
            frames, views, count, width, height, tinted, threads, *(_pointer(array) for array in arrays)
        )
        if not self._handle:
            raise MemoryError(f"no memory to draw {count} splats in {frames * views} images of {width}x{height}")

    def pull(self, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the gradients of `sum(image * cotangent)` for means, factors, opacities and colors."""
        means, factors, opacities, colors, viewmats, intrinsics = self._inputs
        if cotangent.shape != self.image.shape or cotangent.dtype != np.float32 or not cotangent.flags.c_contiguous:
            raise ValueError(
                f"expected C-contiguous float32 {self.image.shape}, got {cotangent.dtype} {cotangent.shape}"
            )
        gradients = (np.empty_like(means), np.empty_like(factors), np.empty_like(opacities), np.empty_like(colors))
        arrays = (means, factors, colors, viewmats, intrinsics, self.image, cotangent, *gradients)
        if self._library.splat_backward(self._handle, *(_pointer(array) for array in arrays)):
            raise MemoryError("no memory for the gradients of the splats")
        return gradients

    def __del__(self) -> None:
        if self._handle:
            self._library.splat_free(self._handle)
            self._handle = None


def _pointer(array: np.ndarray) -> ctypes._Pointer:
    return array.ctypes.data_as(FLOATS)
