"""The C kernels of the motion field as differentiable torch functions on CPU tensors of float32.

Their twins in plain torch are `hexplane.sample_planes` and `heads.apply_heads`, which also say what the numbers mean.
10 000 points in 15 frames, forward and backward on one core: 22 ms for one scale of planes, 40 ms for two heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from animate4d.fourd import native

LANES = 8
"""Channels, inputs and hidden units come in multiples of this."""


def hex_features(points: Tensor, times: Tensor, extra: Tensor | None, planes: tuple[Tensor, ...]) -> Tensor:
    """Return features `[T, N, channels + d]` of points `[N, 3]` at times `[T]`.

    Args:
        points: in [-1, 1]; no gradient goes to them.
        times: in [-1, 1].
        extra: `[T, N, d]` constants to append.
        planes: spatial `[3, R, R, C]` and temporal `[3, S, R, C]` of each scale in turn.
    """
    return _Hex.apply(points, times, extra, *planes)


def head_outputs(inputs: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return relu(x first_k) second_k, `[R, K, 8]`, of inputs `[R, I]`, first `[K, I, H]` and second `[K, H, 8]`."""
    return _Heads.apply(inputs, first, second)


class _Hex(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, times: Tensor, extra: Tensor | None, *planes: Tensor) -> Tensor:
        _check(points, times, *planes)
        width = sum(plane.shape[-1] for plane in planes[::2])
        features = torch.empty(len(times), len(points), width + (0 if extra is None else extra.shape[-1]))
        if extra is not None:
            features[..., width:] = extra
        offset = 0
        for spatial, temporal in zip(planes[::2], planes[1::2], strict=True):
            sizes = _sizes(times, points, spatial, temporal, features)
            _run("hex_forward", *sizes, points, times, spatial, temporal, features, offsets={4: offset})
            offset += spatial.shape[-1]
        ctx.save_for_backward(points, times, *planes)
        return features

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        points, times, *planes = ctx.saved_tensors
        cotangent = cotangents[0].contiguous()
        gradients, offset = [torch.empty_like(plane) for plane in planes], 0
        for spatial, temporal, *pulls in zip(planes[::2], planes[1::2], gradients[::2], gradients[1::2], strict=True):
            sizes = _sizes(times, points, spatial, temporal, cotangent)
            arrays = (points, times, spatial, temporal, cotangent, *pulls)
            _run("hex_backward", *sizes, *arrays, offsets={4: offset})
            offset += spatial.shape[-1]
        return None, None, None, *gradients


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> Tensor:
        inputs, first, second = (tensor.contiguous() for tensor in arguments)
        _check(inputs, first, second)
        rows, (heads, width, hidden) = len(inputs), first.shape
        outputs = torch.empty(rows, heads, LANES)
        _run("heads_forward", rows, width, hidden, heads, torch.get_num_threads(), inputs, first, second, outputs)
        ctx.save_for_backward(inputs, first, second)
        return outputs

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        inputs, first, second = ctx.saved_tensors
        rows, (heads, width, hidden) = len(inputs), first.shape
        gradients = tuple(torch.empty_like(tensor) for tensor in (inputs, first, second))
        arrays = (inputs, first, second, cotangents[0].contiguous(), *gradients)
        _run("heads_backward", rows, width, hidden, heads, torch.get_num_threads(), *arrays)
        return gradients


def _sizes(times: Tensor, points: Tensor, spatial: Tensor, temporal: Tensor, rows: Tensor) -> tuple[int, ...]:
    _, side, _, channels = spatial.shape
    return len(times), len(points), side, temporal.shape[1], channels, rows.shape[-1], torch.get_num_threads()


def _check(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(f"expected contiguous float32 on the CPU, got {tensor.dtype} {tuple(tensor.shape)}")
    for tensor in tensors[2:]:
        if tensor.shape[-1] % LANES:
            raise ValueError(f"expected a last axis in multiples of {LANES}, got {tuple(tensor.shape)}")


def _run(name: str, *arguments: int | Tensor, offsets: dict[int, int] | None = None) -> None:
    """Call a kernel; `offsets` moves the address of the n-th tensor by so many floats."""
    library = native.load()
    assert library is not None
    numbers = [value for value in arguments if not isinstance(value, Tensor)]
    tensors = [value for value in arguments if isinstance(value, Tensor)]
    places = [tensor.data_ptr() + 4 * (offsets or {}).get(n, 0) for n, tensor in enumerate(tensors)]
    if getattr(library, name)(*numbers, *places):
        raise MemoryError(f"no memory for {name.replace('_', ' ')}")
