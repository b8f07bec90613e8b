"""Stage Two: splats and a multi-view video to the motion of one object. Knows no cluster."""
