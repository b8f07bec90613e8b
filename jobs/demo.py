#!/usr/bin/env python
"""The whole road on this machine; `make demo` calls it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("demo", program="jobs/demo.py"))
