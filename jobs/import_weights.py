#!/usr/bin/env python
"""Join weight files into a model folder: `python jobs/import_weights.py --base MVDREAM --out models/paper`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("import-weights", program="jobs/import_weights.py"))
