#!/usr/bin/env python
"""Find the layer whose features follow points best: `python jobs/probe_features.py --model DIR --data SHARDS`.

To see what track supervision does to features, train each of a few seeds with and without it, on the same shards, and
probe every model on objects that none of them saw:

    python jobs/train.py --data shards --out runs/with-0 --seed 0 --steps 500
    python jobs/train.py --data shards --out runs/without-0 --seed 0 --steps 500 --correspondence 0 --position 0
    python jobs/probe_features.py --data held_out --model runs/with-0/model --out out/with-0
    python jobs/probe_features.py --data held_out --model runs/without-0/model --out out/without-0
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from animate4d.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("probe-features", program="jobs/probe_features.py"))
