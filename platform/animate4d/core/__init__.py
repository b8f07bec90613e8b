"""Nouns only: cameras, meshes, clips, tracks, splats, motion, errors and hashes. numpy, no files, no learning."""
