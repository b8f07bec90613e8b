#!/usr/bin/env python
"""Animate a manifest: `python jobs/animate_batch.py manifest.csv --out DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("animate-batch", program="jobs/animate_batch.py"))
