#!/usr/bin/env bash
# Ours beside what you would use instead, each as a ratio within one run; JSON lines go to runs/bench/. Needs `dnasm` on PATH.
# On a GPU the peers are timed that can be imported: flashfftconv, subquadratic_ops_torch, HyenaDNA's standalone_hyenadna.py.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p runs/bench
for what in start loader fftconv train generate models; do
    dnasm bench "$what" --out "runs/bench/$what.jsonl"
done
ls runs/bench
