"""animate4d: animate any static 3D model from a sentence, at scale."""

__version__ = "0.1.0"
