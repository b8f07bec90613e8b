#!/usr/bin/env python
"""Render animated assets into WebDataset shards: `python jobs/build_shards.py ASSETS --out DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("build-shards", program="jobs/build_shards.py"))
