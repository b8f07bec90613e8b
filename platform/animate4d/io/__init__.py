"""Bytes in and out: atomic writes, shards, images, video, PLY and glTF containers. Not what they mean for a user."""
