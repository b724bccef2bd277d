#!/usr/bin/env bash
# Ours beside what you would use instead, each as a ratio within one run; JSON lines go to runs/bench/. Needs `dnasm` on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p runs/bench
dnasm bench start --out runs/bench/start.jsonl
dnasm bench loader --out runs/bench/loader.jsonl
dnasm bench fftconv --out runs/bench/fftconv.jsonl
ls runs/bench
