"""`animate4d bench model`: FLOPs, times, share of the measured peak, memory, and the ratio to a plain loop of the same.

Everything is predicted first, on meta: what would not fit into memory or would take hours is left out with a sentence
that says what it needs. What has a plain counterpart is first checked to give the same result, then timed in turns
with it.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from animate4d.bench.clock import Timing, measure
from animate4d.bench.config import BenchModelConfig
from animate4d.bench.cost import count_bytes, count_flops, flops_by_part
from animate4d.bench.loops import compare_loops
from animate4d.bench.machine import free_memory, machine_facts
from animate4d.bench.memory import peak_bytes
from animate4d.bench.peak import matmul_peak
from animate4d.bench.report import show
from animate4d.bench.subject import resized
from animate4d.bench.works import CACHE_INTERVAL, DTYPES, FREE_INIT_ROUNDS, WORKS, Plan, training_plan
from animate4d.compute.device import pick_device
from animate4d.compute.paths import durable_path
from animate4d.io.atomic import write_json
from animate4d.models.config import model_preset

GUIDANCE = 2.0
"""Of the sampling rows of a preset that samples without guidance: what is timed is the two halves of a step."""

SAME = 1e-4
"""Largest difference to the plain result in fp32, as a share of its largest value, that counts as the same."""

LOOP_BLOCK = 3
"""Steps of one loop before the other has its turn."""

CHECK_STEPS = 4
"""Sampling steps that are compared; rounding grows with each."""

SLOW_SHARE = 0.2
"""Share of the peak that predictions of time assume."""

HEADROOM = 0.9
"""Share of the free memory that a row may be predicted to need."""

FP32_BYTES, ADAM_BYTES, EMA_BYTES = 4, 8, 4
"""Per parameter: a weight; AdamW's two moments; the moving average."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One row of the table before it is measured.

    Attributes:
        name: of `works.WORKS`, or "training loop".
        part: of the config that asks for it.
        plain: its plain counterpart.
        long: whether one run is many forward passes, so that fewer repeats do.
    """

    name: str
    part: str
    plain: str | None = None
    long: bool = False


ENTRIES = (
    Entry(name="forward", part="forward", plain="plain forward"),
    Entry(name="forward, guided", part="forward", plain="plain forward, guided"),
    Entry(name="training step", part="training"),
    Entry(name="training step, checkpointing", part="training"),
    Entry(name="training loop", part="loop", plain="training step"),
    Entry(name="sampling", part="sampling", plain="plain sampling", long=True),
    Entry(name="sampling, step cache", part="sampling", long=True),
    Entry(name="sampling, FreeInit", part="sampling", long=True),
    Entry(name="decode", part="sampling"),
)


@dataclass(kw_only=True, slots=True)
class Row:
    """One measured row; what was not measured is None, and `note` says why.

    Attributes:
        name: what was measured.
        flops: of the work, recomputation not counted.
        predicted_bytes: memory at the peak, weights included.
        timing: ours.
        share: of the measured matmul peak.
        bytes: measured memory at the peak.
        plain: the plain counterpart's time.
        plain_bytes: and memory.
        ratio: our median time as a share of the plain one's.
        cpu_ratio: the same of CPU time.
        difference: of the results, as a share of the largest value.
        note: what else there is to say.
    """

    name: str
    flops: int
    predicted_bytes: int
    timing: Timing | None = None
    share: float | None = None
    bytes: int | None = None
    plain: Timing | None = None
    plain_bytes: int | None = None
    ratio: float | None = None
    cpu_ratio: float | None = None
    difference: float | None = None
    note: str = ""


@dataclass(kw_only=True, slots=True)
class ModelReport:
    """All results, see `report.show` and `to_json`."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    parameters: int
    trained: int
    parts: dict[str, dict[str, int]]
    peak: float = 0.0
    rows: list[Row] = field(default_factory=list)


def bench_model(config: BenchModelConfig) -> int:
    """Run the bench, print its table and write its file; returns 1 if a plain counterpart gave another result."""
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    plan = make_plan(config, device)
    say(f"counting {config.preset} on meta")
    report = ModelReport(
        settings={
            **{
                name: value
                for name, value in plan.config.items()
                if name in ("preset", "views", "frames", "image_size")
            },
            "clips": plan.clips,
            "frames_per_step": training_plan(plan).frames,
            "steps": plan.steps,
            "guidance": plan.guidance,
            "precision": plan.precision,
            "execution": plan.execution,
            "repeats": config.repeats,
            "warmup": config.warmup,
            "seed": plan.seed,
        },
        machine=machine_facts(device),
        **network_facts(plan),
    )
    say("measuring the peak of matrix products")
    report.peak = matmul_peak(device, DTYPES[plan.precision])
    costs = Costs(plan)
    for part in dict.fromkeys(entry.part for entry in ENTRIES):
        entries = [entry for entry in ENTRIES if entry.part == part and part in config.parts]
        if plan.network.codec != "kl":
            entries = [entry for entry in entries if entry.name != "decode"]
        report.rows += measure_part(entries, config, plan, costs, report.peak)
    # A second look, because clocks fall and other work comes and goes while the bench runs.
    report.peak = max(report.peak, matmul_peak(device, DTYPES[plan.precision]))
    report.machine["load_average_at_end"] = round(os.getloadavg()[0], 2)
    for row in report.rows:
        if row.timing is not None:
            row.share = row.flops / (row.timing.ms / 1e3) / report.peak
    note_cache_gain(report.rows)
    print(show(report))
    out = durable_path(config.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, to_json(report))
    print(f"\n{out}")
    return 1 if any(row.note.startswith("NOT") for row in report.rows) else 0


def make_plan(config: BenchModelConfig, device: torch.device) -> Plan:
    """Return what every piece of work is built from."""
    network = resized(
        model_preset(config.preset), views=config.views, frames=config.frames, image_size=config.image_size
    )
    published = config.preset.startswith("paper")
    recipe = "paper" if published else config.preset
    plan = Plan(
        config=network.to_json(),
        recipe=recipe,
        clips=1,
        steps=config.steps or network.sample_steps,
        guidance=config.guidance or (network.guidance if network.guidance != 1 else GUIDANCE),
        device=device.type,
        precision=("bf16" if device.type == "cuda" else "fp32") if config.precision == "auto" else config.precision,
        execution=asdict(config.execution),
        seed=config.seed,
    )
    # The published batch is spread over as many GPUs as it has clips.
    return replace(plan, clips=config.batch or (1 if published else plan.training.optimizer.batch_size))


def network_facts(plan: Plan) -> dict[str, Any]:
    """Return parameters and the FLOPs of a forward pass by part, for one sample and for the two of guidance."""
    on_meta = replace(plan, device="meta")
    unet = on_meta.subject().model.unet
    totals = {}
    for title, work in (("batch 1", "forward"), ("batch 2", "forward, guided")):
        parts = flops_by_part(WORKS[work](on_meta))
        motion = parts.pop("motion attention")
        without = replace(plan.network, spatial_levels=(False,) * len(plan.network.spatial_levels))
        temporal_only = replace(on_meta, config=without.to_json())
        spatial = sum(parts.values()) + motion - count_flops(WORKS[work](temporal_only))
        totals[title] = {
            **parts,
            "motion attention along time": motion - spatial,
            "motion attention over space": spatial,
        }
    return {
        "parameters": sum(weight.numel() for weight in unet.parameters()),
        "trained": sum(weight.numel() for weight in unet.parameters() if weight.requires_grad),
        "parts": totals,
    }


class Costs:
    """FLOPs and predicted memory of the rows, counted on meta when asked for."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.on_meta = plan, replace(plan, device="meta")
        self._flops: dict[str, int] = {}
        self._bytes: dict[str, int] = {}

    def flops(self, name: str) -> int:
        """Return the FLOPs of a piece of work, layers that run twice counted once."""
        if name in ("training loop", "training step, checkpointing"):
            return self.flops("training step")
        if name.startswith("sampling"):
            steps, full = self.plan.steps, self.flops("forward, guided")
            if name == "sampling, FreeInit":
                return FREE_INIT_ROUNDS * steps * full
            if name == "sampling, step cache":
                complete = math.ceil(steps / CACHE_INTERVAL)
                return complete * full + (steps - complete) * self.flops("cached forward, guided")
            return steps * full
        if name not in self._flops:
            self._flops[name] = count_flops(WORKS[name](self.on_meta))
        return self._flops[name]

    def bytes(self, name: str) -> int:
        """Return the memory a piece of work should need: weights, what is made of them, and activations.

        On a GPU training runs under autocast: activations are counted in bf16, as are copies of the weights.
        """
        model = self.on_meta.subject(autoencoder=name == "decode").model
        weights = sum(weight.numel() for weight in model.parameters())
        if not name.startswith("training"):
            size = DTYPES[self.plan.precision].itemsize
            return weights * size + self._made("forward, guided" if name.startswith("sampling") else name)
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        step = self._made("training step" if name == "training loop" else name)
        kept = weights * FP32_BYTES
        if self.plan.training.optimizer.ema:
            kept += trained * EMA_BYTES
        if self.plan.device == "cpu":
            return kept + step
        states = trained * (FP32_BYTES + ADAM_BYTES)  # made within the step: gradients and moments
        return kept + states + weights * 2 + (step - states) // 2

    def _made(self, name: str) -> int:
        """Return the bytes a piece of work makes, counted once."""
        if name not in self._bytes:
            self._bytes[name] = count_bytes(WORKS[name](self.on_meta))
        return self._bytes[name]


def measure_part(entries: list[Entry], config: BenchModelConfig, plan: Plan, costs: Costs, peak: float) -> list[Row]:
    """Measure rows in turns with one another and their plain counterparts, or say why not."""
    device = torch.device(plan.device)
    rows = {
        entry: Row(name=entry.name, flops=costs.flops(entry.name), predicted_bytes=costs.bytes(entry.name))
        for entry in entries
    }
    repeats = max(5, config.repeats // 2) if any(entry.long for entry in entries) else config.repeats
    ready = []
    for entry, row in rows.items():
        runs = (repeats + config.warmup + 2) * (1 if entry.plain is None else 2)
        need = row.predicted_bytes * (1 if entry.plain is None else 2)
        row.note = obstacle(need, free_memory(device), runs * row.flops / (SLOW_SHARE * peak) / 60, config.minutes)
        if not row.note:
            ready.append(entry)
    together = sum(rows[entry].predicted_bytes * (1 if entry.plain is None else 2) for entry in ready)
    groups = [ready] if together < HEADROOM * free_memory(device) else [[entry] for entry in ready]
    for group in filter(None, groups):
        say(f"measuring {'; '.join(entry.name for entry in group)}")
        if [entry.name for entry in group] == ["training loop"]:
            loops = compare_loops(training_plan(plan), blocks=1 + max(2, repeats), steps=LOOP_BLOCK)
            timings = {"training loop": loops.ours, "training step": loops.plain}
            rows[group[0]].difference = loops.difference
        else:
            for entry in group:
                if entry.plain is not None:
                    rows[entry].difference = difference(entry.name, entry.plain, plan)
            works = {name: WORKS[name](plan) for entry in group for name in (entry.name, entry.plain) if name}
            warmup = min(config.warmup, 1) if any(entry.long for entry in group) else config.warmup
            timings = measure(works, device=device, repeats=repeats, warmup=warmup)
            works.clear()
        for entry in group:
            finish(rows[entry], entry, timings, plan)
    return list(rows.values())


def obstacle(need: int, free: int, minutes: float, allowed: float) -> str:
    """Return why something is not measured that takes so many bytes and minutes, or ""."""
    if need > HEADROOM * free:
        return f"left out: needs about {need / 1e9:.3g} GB, {free / 1e9:.3g} GB are free"
    if minutes > allowed:
        return f"left out: would take about {minutes:.0f} minutes here, --minutes allows {allowed:g}"
    return ""


def finish(row: Row, entry: Entry, timings: dict[str, Timing], plan: Plan) -> None:
    """Put times, ratios and memory into a row."""
    row.timing = timings[entry.name]
    row.bytes = peak_bytes(entry.name, plan)
    if entry.plain is None:
        return
    assert row.difference is not None
    if not row.difference <= SAME:
        row.note = f"NOT COMPARED: differs from its plain counterpart by {row.difference:.2g} of the largest value"
        return
    row.plain = timings[entry.plain]
    row.plain_bytes = peak_bytes(entry.plain, plan)
    row.ratio = row.timing.ms / row.plain.ms
    if row.timing.cpu_ms is not None and row.plain.cpu_ms is not None:
        row.cpu_ratio = row.timing.cpu_ms / row.plain.cpu_ms


def difference(ours: str, plain: str, plan: Plan) -> float:
    """Return the largest difference of two works' results in fp32, as a share of the largest value."""
    exact = replace(
        plan,
        precision="fp32",
        steps=min(plan.steps, CHECK_STEPS),
    )
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        wanted = WORKS[plain](exact)()
        return float((WORKS[ours](exact)() - wanted).abs().max() / wanted.abs().max())
    finally:
        torch.backends.cudnn.allow_tf32 = before


def note_cache_gain(rows: list[Row]) -> None:
    """Say what step caching saves: FLOPs, time, and the one as a share of the other."""
    by_name = {row.name: row for row in rows}
    full, cached = by_name.get("sampling"), by_name.get("sampling, step cache")
    if full is None or cached is None or full.timing is None or cached.timing is None:
        return
    saved_flops = 1 - cached.flops / full.flops
    measured = (full.timing.cpu_ms, cached.timing.cpu_ms)
    before, after = measured if None not in measured else (full.timing.ms, cached.timing.ms)
    assert before is not None
    assert after is not None
    saved_time = 1 - after / before
    cached.note = (
        f"saves {saved_flops:.1%} of the FLOPs and {saved_time:.1%} of the time "
        f"({saved_time / saved_flops:.0%} of what it could)"
    )


def to_json(report: ModelReport) -> dict[str, Any]:
    """Return the report as JSON values."""
    rows = []
    for row in report.rows:
        values = {name: getattr(row, name) for name in Row.__slots__}
        rows.append({key: value.to_json() if isinstance(value, Timing) else value for key, value in values.items()})
    return {
        "bench": "model",
        "settings": report.settings,
        "machine": report.machine,
        "parameters": report.parameters,
        "trained_parameters": report.trained,
        "forward_flops": report.parts,
        "matmul_peak_flops": report.peak,
        "rows": rows,
    }


def say(text: str) -> None:
    """Tell what takes time, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
