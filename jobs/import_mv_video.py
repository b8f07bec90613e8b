#!/usr/bin/env python
"""Turn the MV-Video release into WebDataset shards: `python jobs/import_mv_video.py RELEASE --out DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("import-mv-video", program="jobs/import_mv_video.py"))
