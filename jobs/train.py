#!/usr/bin/env python
"""Train MV-VDM: `python jobs/train.py --data SHARDS`, or `ray job submit -- python jobs/train.py --data SHARDS`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("train", program="jobs/train.py"))
