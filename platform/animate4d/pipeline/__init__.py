"""The one-object story end to end: asset, views, video, motion, files. No Ray."""
