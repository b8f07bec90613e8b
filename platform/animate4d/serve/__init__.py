"""The HTTP service on Ray Serve over the same pipeline."""
