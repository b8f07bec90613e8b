#!/usr/bin/env bash
# Start a one-machine Ray cluster that only this user can use. Run it from anywhere:
#
#   source .venv/bin/activate
#   cluster/start-local.sh                 # then: ray job submit -- python jobs/train.py --data shards
#
# Whoever is let in by a Ray cluster can run code on it, so: its page on loopback only, and a token for everything (made
# once, kept in ~/.ray). Ray's other ports listen on all addresses; keep them behind a firewall all the same.
# Extra arguments go to `ray start`, for example --num-gpus 1.
set -euo pipefail
cd "$(dirname "$0")/.."   # jobs without --working-dir run in the folder the head was started from
command -v ray >/dev/null || { echo "error: no 'ray' on PATH: source .venv/bin/activate first" >&2; exit 1; }
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate >/dev/null
ray start --head --node-ip-address 127.0.0.1 --dashboard-host 127.0.0.1 --dashboard-port 8265 \
  --metrics-export-port 8081 --object-store-memory 1000000000 "$@"
echo "Ray's page: http://127.0.0.1:8265 (log in with the output of: ray get-auth-token)"
