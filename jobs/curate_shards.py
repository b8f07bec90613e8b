#!/usr/bin/env python
"""Decide which clips of a folder of shards to train on: `python jobs/curate_shards.py SHARDS`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("curate-shards", program="jobs/curate_shards.py"))
