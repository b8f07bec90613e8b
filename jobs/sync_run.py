#!/usr/bin/env python
"""Send MLflow what it missed of a training while it was away: `python jobs/sync_run.py RUN_FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("sync-run", program="jobs/sync_run.py"))
