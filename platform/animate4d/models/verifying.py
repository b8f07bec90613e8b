"""Proof that a finished model folder holds what was joined: tensor by tensor, and by one short forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from animate4d.core.errors import ModelError
from animate4d.models.layouts.checkpoint import Safetensors

CELLS = 8
"""Side of the latent map of the short forward pass: the smallest that four resolution levels halve to one cell."""

SPARE = 1.2
"""Memory of the short forward pass, in multiples of the weights."""


def verify_stored(
    file: Path,
    prefix: str,
    network: Mapping[str, torch.Tensor],
    dtype: Callable[[str], torch.dtype],
    progress: Callable[[int], None],
) -> None:
    """Read a weight file back and compare it with where it came from.

    Raises:
        ModelError: a tensor is missing, surplus or different; the disk or the memory is faulty.
    """
    stored = Safetensors(file)
    if set(stored) != {prefix + name for name in network}:
        raise ModelError(f"{file}: holds {len(stored)} tensors instead of {len(network)}; the disk may be faulty")
    done = 0
    for name in network:
        value = stored[prefix + name]
        if not torch.equal(value, network[name].to(dtype(name)).reshape(value.shape)):
            raise ModelError(f"{file}: {name} reads back differently; the disk or the memory may be faulty")
        done += value.nbytes
        progress(done)


def forward_once(folder: Path, weights: int) -> str:
    """Load the folder as any job would and run one small forward pass.

    Args:
        folder: a complete model folder.
        weights: bytes of network and frozen parts in float32.

    Returns:
        A line that says how it went, or why it was left out.

    Raises:
        ModelError: the folder does not load, or the result is not finite.
    """
    needed, free = SPARE * weights, available_memory()
    if free is not None and free < needed:
        return f"no forward pass: it needs about {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free"
    from animate4d.models.mv_vdm import MVVDM

    begun = time.monotonic()
    model = MVVDM.from_pretrained(folder)
    config = model.config
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 2, 2, config.latent_channels, CELLS, CELLS, generator=generator)
    picture = torch.zeros(1, 2, 3, CELLS * config.codec_factor, CELLS * config.codec_factor)
    with torch.no_grad():
        output = model(
            latents,
            torch.tensor([500]),
            camera=torch.eye(4).expand(1, 2, 4, 4),
            text=["a fox walking"],
            frame_index=torch.arange(2)[None],
            first_frame=latents[:, :, 0],
            image_embeds=model.embed_image(picture),
        ).prediction
        decoded = model.decode(latents[:, :1, :1])
    if not (torch.isfinite(output).all() and torch.isfinite(decoded).all()):
        raise ModelError(f"{folder}: a forward pass gives NaN or infinite numbers; one of the files is damaged")
    return (
        f"forward pass: 2 views of 2 frames at {CELLS}x{CELLS} latents, standard deviation {output.std():.3f}, "
        f"loaded and run in {time.monotonic() - begun:.1f} s"
    )


def available_memory() -> int | None:
    """Return the bytes a process may still take on this machine, or None where the kernel does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None
