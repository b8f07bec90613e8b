"""Frame-0 views and a prompt to a multi-view video: the sampling loop."""
