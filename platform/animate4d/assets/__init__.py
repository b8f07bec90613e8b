"""Any 3D model in: read, pose, normalise to the canonical box, or generate."""
