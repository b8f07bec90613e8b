"""Point trackers behind one protocol: OpenCV and CoTracker3; queries and sampling of points."""
