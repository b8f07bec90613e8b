#!/usr/bin/env python
"""Find the layer whose features follow points best: `python jobs/probe_features.py --model DIR --data SHARDS`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("probe-features", program="jobs/probe_features.py"))
