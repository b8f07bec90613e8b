#!/usr/bin/env python
"""Write a model's weights for other code: `python jobs/export_weights.py MODEL --layout animate3d --out FILE`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("export-weights", program="jobs/export_weights.py"))
