#!/usr/bin/env python
"""Encode every clip of a folder of shards: `python jobs/encode_latents.py SHARDS --model DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("encode-latents", program="jobs/encode_latents.py"))
