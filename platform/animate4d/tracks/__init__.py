"""Point trackers behind one protocol: exact, OpenCV; queries and sampling of points."""
