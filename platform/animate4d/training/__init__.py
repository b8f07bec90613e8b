"""Objectives, the training step, DeepSpeed, checkpoints and the Ray Train entry."""
