"""The training objective: one noisy forward pass and the weighted sum of its loss terms (paper 001 eq. 3 to 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from animate4d.models.mv_vdm import MVVDM, MVVDMOutput
from animate4d.training.losses import (
    coarse_loss,
    correspondence_loss,
    flow_loss,
    gate_loss,
    latent_loss,
    noise_loss,
    object_cells,
    position_loss,
    weighted_points,
)
from animate4d.training.recipe import ObjectiveConfig

if TYPE_CHECKING:
    from animate4d.data.batch import TrainingBatch


class Objective:
    """Callable loss. Returns each term unweighted and their weighted sum under "loss"."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.config = config

    def __call__(
        self, model: nn.Module, batch: TrainingBatch, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of one batch.

        Args:
            model: an `MVVDM`, or a data-parallel wrapper with the model under `module`.
            batch: frame 0 first along T, `frame_index` holding true frame numbers.
            generator: source of noise, timesteps and dropped captions (CPU).

        Returns:
            0-dimensional tensors "loss", "diffusion", "correspondence", "position", and for the warp head "flow",
            "coarse", "gate".
        """
        network = cast(MVVDM, getattr(model, "module", model))
        clean = network.encode(batch.video, generator) if batch.latents is None else batch.latents
        timesteps = self._timesteps(clean.shape[0], network, generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = network.scheduler.add_noise(clean.flatten(1, 2), noise.flatten(1, 2), timesteps).view_as(clean)
        first = clean[:, :, 0]
        level = first_frame_level(self.config, timesteps, network.scheduler.betas, generator)
        noisy[:, :, 0] = first + level.to(first).view(-1, 1, 1, 1, 1) * noise[:, :, 0]
        dropped = torch.rand(len(batch.captions), generator=generator) < self.config.drop_text
        captions = ["" if drop else caption for drop, caption in zip(dropped.tolist(), batch.captions, strict=True)]
        tap = network.config.tap
        output: MVVDMOutput = model(
            noisy,
            timesteps,
            camera=batch.camera,
            text=captions,
            frame_index=batch.frame_index,
            first_frame=first,
            image_embeds=network.embed_image(batch.video[:, :, 0]),
            taps=(tap,) if self.config.correspondence > 0 or self.config.position > 0 else (),
        )
        terms = self._picture_terms(network, output, batch, clean, noise, timesteps)
        if tap in output.features:
            points, visible = weighted_points(batch.tracks, batch.visible, batch.mask)
            terms["correspondence"] = correspondence_loss(output.features[tap], points, visible)
            terms["position"] = position_loss(output.features[tap], points, visible)
        weights = {"diffusion": 1.0} | {name: getattr(self.config, name) for name in terms if name != "diffusion"}
        total = torch.stack([weights[name] * value for name, value in terms.items() if weights[name] > 0]).sum()
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def _timesteps(self, count: int, network: MVVDM, generator: torch.Generator | None) -> torch.Tensor:
        drawn = torch.rand(count, generator=generator)
        if self.config.noisy_bias:
            drawn = 1 - drawn.square()
        steps = network.config.train_timesteps
        return (drawn * steps).long().clamp_max(steps - 1)

    def _picture_terms(
        self,
        network: MVVDM,
        output: MVVDMOutput,
        batch: TrainingBatch,
        clean: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        if network.config.head == "epsilon":
            return {"diffusion": noise_loss(output.prediction, noise)}
        if network.config.head == "v_prediction":
            velocity = network.scheduler.get_velocity(clean.flatten(1, 2), noise.flatten(1, 2), timesteps)
            return {"diffusion": noise_loss(output.prediction, velocity.view_as(clean))}
        assert output.flow is not None
        assert output.gate is not None
        cells = object_cells(batch.mask, clean.shape[-1])
        terms = {
            "diffusion": latent_loss(output.prediction, clean, cells, object_weight=self.config.object_weight),
            "coarse": coarse_loss(network.decode(output.prediction), batch.video),
            "gate": gate_loss(output.gate, batch.mask),
        }
        if batch.flow is not None and batch.flow_mask is not None:
            terms["flow"] = flow_loss(output.flow, batch.flow, batch.flow_mask)
        return terms


def first_frame_level(
    config: ObjectiveConfig, timesteps: torch.Tensor, betas: torch.Tensor, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Return the standard deviation `[B]` of the noise on frame 0; see `ObjectiveConfig.first_frame_noise`.

    Args:
        config: which schedule.
        timesteps: `[B]` int64.
        betas: those of the noise schedule.
        generator: source of the draw of schedule "time" (CPU).
    """
    if config.first_frame_noise == "clean":
        return torch.zeros(timesteps.shape, device=timesteps.device)
    if config.first_frame_noise == "beta":
        return betas.to(timesteps.device)[timesteps]
    elapsed = timesteps.float() / (len(betas) - 1)
    drawn = torch.randn(timesteps.shape, generator=generator).to(timesteps.device)
    centre = 2 * elapsed**config.first_frame_noise_power - 1
    return config.first_frame_noise_max * (centre + drawn).sigmoid()
