"""Assets to calibrated multi-view images, masks and exact point tracks, ray-cast with Embree."""
