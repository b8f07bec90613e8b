#!/usr/bin/env python
"""Score a model on held-out clips: `python jobs/evaluate.py --model DIR --data SHARDS`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("evaluate", program="jobs/evaluate.py"))
