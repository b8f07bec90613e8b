"""The C kernels of the 4D fit against their twins: the same inputs, the same results, one run, a ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from animate4d.bench.clock import Timing, measure
from animate4d.bench.kernels_config import BenchKernelsConfig
from animate4d.bench.machine import machine_facts
from animate4d.core.cameras import Rig, world_to_camera_cv
from animate4d.core.errors import ToolError
from animate4d.fourd import native
from animate4d.fourd.field import MotionField, frame_times
from animate4d.fourd.field_config import FieldConfig, paper, released
from animate4d.fourd.render import draw_splats
from animate4d.io.atomic import write_json

AGREEMENT = 2e-3
"""Relative difference of results and gradients above which a ratio would compare two different things."""

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelRow:
    """One kernel beside its twin, forward and backward.

    Attributes:
        name: what was computed.
        native: of the C kernel.
        torch: of the twin.
        difference: largest relative difference of result and gradients.
    """

    name: str
    native: Timing
    torch: Timing
    difference: float

    @property
    def ratio(self) -> float:
        """How many times the kernel's CPU time the twin takes: hardly depends on what else the machine does."""
        return (self.torch.cpu_ms or 0.0) / max(self.native.cpu_ms or 0.0, 1e-9)


def bench_kernels(config: BenchKernelsConfig) -> int:
    """Print the table and write the file; returns the exit code.

    Raises:
        ToolError: the kernels cannot be built, or a kernel and its twin disagree.
    """
    if native.load() is None:
        raise ToolError("the C kernels cannot be built on this machine: install a C compiler (cc, gcc or clang)")
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = run_kernels(config)
        facts = machine_facts(CPU)
    finally:
        torch.set_num_threads(before)
    print(show(rows, facts))
    write_json(config.out, {"machine": facts, "settings": settings_of(config), "rows": [to_json(row) for row in rows]})
    print(f"\nall numbers: {config.out}")
    return 0


def run_kernels(config: BenchKernelsConfig) -> list[KernelRow]:
    """Measure every kernel beside its twin."""
    works = {
        f"splats, {config.splats} in {config.views} x {config.size} px": splat_works(config),
        f"field, {config.points} x {config.frames}, one scale": field_works(config, paper().field),
        f"field, {config.points} x {config.frames}, two scales": field_works(config, released().field),
    }
    return [compare(name, pair, config) for name, pair in works.items()]


def compare(name: str, works: dict[str, Callable[[], list[Tensor]]], config: BenchKernelsConfig) -> KernelRow:
    """Time a kernel and its twin in turns, after making sure that they agree.

    Raises:
        ToolError: they do not.
    """
    pairs = zip(works["native"](), works["torch"](), strict=True)
    difference = max(float((ours - twin).norm() / twin.norm().clamp(min=1e-20)) for ours, twin in pairs)
    if not difference < AGREEMENT:
        raise ToolError(f"{name}: the C kernel and plain torch differ by {difference:.1e}: a ratio would say nothing")
    timings = measure(works, device=CPU, repeats=config.repeats, warmup=config.warmup)
    return KernelRow(name=name, native=timings["native"], torch=timings["torch"], difference=difference)


def splat_works(config: BenchKernelsConfig) -> dict[str, Callable[[], list[Tensor]]]:
    """Return what draws splats forward and backward, by backend: splats on a sphere, as on the surface of an object."""
    generator = torch.Generator().manual_seed(config.seed)
    places = torch.nn.functional.normalize(torch.randn(config.splats, 3, generator=generator), dim=-1)
    spacing = (4 * torch.pi / config.splats) ** 0.5
    tensors = [
        0.8 * places[None],
        torch.randn(1, config.splats, 4, generator=generator),
        0.8 * 0.55 * spacing * (0.5 + torch.rand(1, config.splats, 3, generator=generator)),
        0.5 + 0.45 * torch.rand(config.splats, generator=generator),
        torch.rand(config.splats, 3, generator=generator),
    ]
    rig = Rig.even(config.views)
    viewmats = torch.from_numpy(world_to_camera_cv(rig.camera_to_world())).float()
    intrinsics = torch.from_numpy(rig.intrinsics(config.size)).float()
    cotangent = torch.randn(1, config.views, 4, config.size, config.size, generator=generator)

    def work(backend: str) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        means, quats, scales, opacities, colors = leaves
        image = draw_splats(means, quats, scales, opacities, colors, viewmats, intrinsics, config.size, backend=backend)
        return [image.detach(), *torch.autograd.grad(image, leaves, cotangent)]

    return {backend: partial(work, backend) for backend in ("native", "torch")}


def field_works(config: BenchKernelsConfig, field: FieldConfig) -> dict[str, Callable[[], list[Tensor]]]:
    """Return what asks a field for all offsets, forward and backward, by backend."""
    generator = torch.Generator().manual_seed(config.seed)
    made = MotionField(field, 0, generator)
    with torch.no_grad():
        for layer in made.second:
            layer.copy_(0.1 * torch.randn(layer.shape, generator=generator))
    points = 1.6 * torch.rand(config.points, 3, generator=generator) - 0.8
    times = frame_times(torch.arange(1, config.frames + 1), config.frames + 1)
    shape = (config.frames, config.points)
    pulls = [torch.randn(*shape, width, generator=generator) for width in (3, 4, 3)]
    leaves = [*made.planes.parameters(), *made.first, *made.second]

    def work(backend: str) -> list[Tensor]:
        found = made(points, times, body=config.points, sizes=True, backend=backend)
        assert found.size is not None
        results = [found.position, found.rotation, found.size]
        return [*(result.detach() for result in results), *torch.autograd.grad(results, leaves, pulls)]

    return {backend: partial(work, backend) for backend in ("native", "torch")}


def show(rows: list[KernelRow], facts: dict[str, Any]) -> str:
    """Return the table as text."""
    head = f"{facts['cpu']}, torch {facts['torch']}, {facts['threads']} threads, load {facts['load_average']}"
    lines = [f"{'forward + backward':<36}{'C ms':>9}{'CPU':>9}{'torch ms':>11}{'CPU':>9}{'ratio':>8}{'differ':>10}"]
    lines += [
        f"{row.name:<36}{row.native.ms:>9.1f}{row.native.cpu_ms or 0:>9.1f}{row.torch.ms:>11.1f}"
        f"{row.torch.cpu_ms or 0:>9.1f}{row.ratio:>8.1f}{row.difference:>10.0e}"
        for row in rows
    ]
    return "\n".join([head, "", *lines, "", "ms are medians, both sides in turns; ratio is that of CPU times."])


def to_json(row: KernelRow) -> dict[str, Any]:
    """Return a row as JSON values."""
    times = {"native": row.native.to_json(), "torch": row.torch.to_json()}
    return {"name": row.name, **times, "ratio": round(row.ratio, 2), "difference": row.difference}


def settings_of(config: BenchKernelsConfig) -> dict[str, Any]:
    """Return the settings as JSON values."""
    return asdict(config) | {"out": str(config.out)}
