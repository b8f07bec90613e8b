"""The video model as a judge of rendered clips: what it would make of them after a little noise (paper 001 eq. 11).

Frame 0 stays clean and conditions the rest, as in training. The clean estimate (z_t - sigma_t eps) / alpha_t is guided,
and part of it is brought back to the spread of the unguided one, because guidance makes clips too contrasty. One call
costs a network pass without gradient and an encoding of the pictures with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from animate4d.core.errors import ConfigError
from animate4d.models.mv_vdm import MVVDM, MVVDMOutput

RESCALE = 0.25
"""Share of the estimate that is brought back to the unguided spread (released code)."""


class ClipScore:
    """What an MV-VDM says of clips of one object with one prompt.

    Attributes:
        views: V the model was made for.
        frames: most frames it takes, frame 0 included.
        size: pixels on a side.
    """

    def __init__(self, model: MVVDM, prompt: str, *, guidance: float | None = None, negative: str = "") -> None:
        """Prepare the texts.

        Args:
            model: in evaluation mode, on any device.
            prompt: what the object does.
            guidance: default what the model was made for; 1 is none. The released code's 5 on top of the prompt is 6
                here.
            negative: what guidance steers away from.
        """
        self.model, self.guidance = model, model.config.guidance if guidance is None else guidance
        if not self.guidance >= 0:
            raise ConfigError(f"guidance is {self.guidance}: give a number >= 0")
        self.views, self.frames, self.size = model.config.views, model.config.frames, model.config.image_size
        with torch.no_grad():
            self._text = model.embed_text([prompt] if self.guidance == 1 else [negative, prompt])

    def __call__(
        self, images: Tensor, camera_to_world: Tensor, noise: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return latents of the frames after 0 and the clean estimate of them.

        Args:
            images: `[V, F, 3, S, S]` in [0, 1] on grey, evenly spaced in time, with gradient; frame 0 is the condition.
            camera_to_world: `[V, 4, 4]` OpenGL axes.
            noise: share of the model's schedule, in [0, 1).
            generator: of the noise and of the autoencoder's draw, on the CPU.

        Returns:
            latents `[V, F - 1, c, h, w]` with gradient, and the estimate of the same shape without.
        """
        video = (2 * images - 1)[None]
        latents = self.model.encode(video, generator)
        clean = latents.detach().float()
        estimate = self._estimate(video.detach(), clean, camera_to_world, noise, generator)
        return latents[0, :, 1:].float(), estimate[0, :, 1:]

    @torch.no_grad()
    def _estimate(
        self,
        video: Tensor,
        clean: Tensor,
        camera: Tensor,
        noise: float,
        generator: torch.Generator,
    ) -> Tensor:
        model, config = self.model, self.model.config
        scheduler: Any = model.scheduler  # diffusers finds its methods at run time
        step = min(max(round(noise * config.train_timesteps), 0), config.train_timesteps - 1)
        drawn = torch.randn(clean[:, :, 1:].shape, generator=generator).to(clean)
        level = float(scheduler.alphas_cumprod[step]) ** 0.5, float(1 - scheduler.alphas_cumprod[step]) ** 0.5
        moving = level[0] * clean[:, :, 1:] + level[1] * drawn
        noisy = torch.cat((clean[:, :, :1], moving), 2)
        halves = len(self._text.states)
        image = model.embed_image(video[:, :, 0])
        if image is not None and halves == 2:
            # IP-Adapter's unconditional half: no image is an embedding of zeros, before the projection
            image = torch.cat((torch.zeros_like(image), image))
        output = model(
            noisy.repeat(halves, 1, 1, 1, 1, 1),
            torch.full((halves,), step, device=clean.device),
            camera=camera[None].repeat(halves, 1, 1, 1),
            text=self._text,
            frame_index=torch.arange(clean.shape[2], device=clean.device).repeat(halves, 1),
            first_frame=clean[:, :, 0].repeat(halves, 1, 1, 1, 1),
            image_embeds=image,
            moved=halves == 1,
        )
        if halves == 1:
            return self._cleaned(output.prediction.float(), noisy, level)
        guided, plain = self._guided(output, clean, noisy, level)
        spread = plain[:, :, 1:].std() / guided[:, :, 1:].std().clamp(min=1e-12)
        return guided * (RESCALE * spread + 1 - RESCALE)

    def _guided(
        self, output: MVVDMOutput, clean: Tensor, noisy: Tensor, level: tuple[float, float]
    ) -> tuple[Tensor, Tensor]:
        """Return the guided estimate and that of the prompt alone; flows are mixed before anything is moved."""
        if output.flow is None or output.gate is None:
            unsaid, said = self._cleaned(output.prediction.float(), noisy, level).chunk(2)
            return torch.lerp(unsaid, said, self.guidance), said
        flows, gates, first = output.flow.chunk(2), output.gate.chunk(2), clean[:, :, 0]
        flow, gate = (torch.lerp(unsaid, said, self.guidance) for unsaid, said in (flows, gates))
        return self.model.moved_latents(first, flow, gate), self.model.moved_latents(first, flows[1], gates[1])

    def _cleaned(self, prediction: Tensor, noisy: Tensor, level: tuple[float, float]) -> Tensor:
        """Return the clean clip that a prediction stands for: z_0 = (z_t - sigma_t eps) / alpha_t."""
        signal, sigma = level
        if self.model.config.head == "epsilon":
            return (noisy - sigma * prediction) / signal
        if self.model.config.head == "v_prediction":
            return signal * noisy - sigma * prediction
        return prediction
