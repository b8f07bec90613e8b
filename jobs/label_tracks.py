#!/usr/bin/env python
"""Track points on every clip of a folder of shards: `python jobs/label_tracks.py SHARDS`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("label-tracks", program="jobs/label_tracks.py"))
