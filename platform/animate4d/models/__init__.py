"""MV-VDM, the multi-view video diffusion model: network, codec, text encoder, model folder."""
