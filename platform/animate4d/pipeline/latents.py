"""Encode the clips of shards ahead: moments of the posterior of a model's autoencoder, kept beside the shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from animate4d.core.errors import ConfigError, ModelError, ShardError
from animate4d.data.decode import clip_pixels
from animate4d.data.latents import latent_files, pack_latents
from animate4d.data.schema import decode_clip, decode_meta
from animate4d.models.codec import KLCodec, codec_id, make_codec
from animate4d.models.config import MVVDMConfig
from animate4d.models.mv_vdm import CONFIG_FILE, paths_in


def read_latent_model(folder: Path) -> MVVDMConfig:
    """Read the configuration of a model whose pictures are worth encoding ahead; its weights are not needed.

    Raises:
        ModelError: no model folder.
        ConfigError: its codec is lossless.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(f"{folder}: not a model folder, {CONFIG_FILE} is missing")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error})") from error
    config = paths_in(MVVDMConfig.from_json(content), folder)
    if config.codec != "kl":
        raise ConfigError(
            f"{folder}: its codec {config.codec} is lossless and only moves pixels around: latents kept ahead would "
            "gain nothing; train without --latents"
        )
    return config


class LatentEncoder:
    """Encodes what is missing in a folder of latents.

    Args:
        model: model folder.
        folder: of all latents.
        device: where; default the GPU if there is one.

    Raises:
        ModelError: the model or its autoencoder is missing.
        ConfigError: the codec is lossless, or the folder cannot be made.
    """

    def __init__(self, model: Path, folder: Path, *, device: str | None = None) -> None:
        config = read_latent_model(model)
        codec = make_codec(config)
        assert isinstance(codec, KLCodec)
        self._size, self._codec_id = config.image_size, codec_id(codec)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._codec = codec.to(self._device).eval()
        self._files = latent_files(folder, self._codec_id, self._size)
        self._files.make_folder()

    @property
    def folder(self) -> Path:
        """Where the latents of this codec and size are kept."""
        return self._files.folder

    def keep(self, members: Mapping[str, bytes], views: Sequence[int]) -> bool:
        """See that latents of these views are kept; a damaged file is replaced.

        Returns:
            Whether they had to be made.

        Raises:
            ShardError: a member is missing, cannot be decoded, or is too small.
        """
        meta = decode_meta(members)
        if meta.size < self._size:
            raise ShardError(f"has {meta.size} px, less than the {self._size} px of the model: build larger shards")
        with suppress(ShardError):
            if self._files.has(members, views):
                return False
        clip = decode_clip(_pictures(members), views=views, frames=range(len(meta.times)))
        video, _ = clip_pixels(clip, self._size)
        # One view at a time: memory is that of T frames, whatever the group.
        with torch.inference_mode():
            moments = [self._codec.moments(torch.from_numpy(view).to(self._device)) for view in video]
        mean, std = (torch.stack(values).float().cpu().numpy() for values in zip(*moments, strict=True))
        self._files.write(members, views, pack_latents(members, views, mean, std, self._codec_id, self._size))
        return True


def _pictures(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in members.items() if not name.endswith(".npz")}
