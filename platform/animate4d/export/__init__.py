"""A motion to what people open: animated GLB, splats, video, thumbnail, gallery page."""
