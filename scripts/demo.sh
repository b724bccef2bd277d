#!/usr/bin/env bash
# The whole path on real DNA: prepare, pretrain (at most 4 minutes), export, score, embed, report. Needs `dnasm` on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

run=${1:-runs/demo}
yeast=data/yeast_r64.fa.gz
human=data/human_chr20_sample.fa.gz
begun=$SECONDS

step() { printf '\n== %s\n' "$*" >&2; }

step "Prepare: letters become one byte a base, once for each genome"
dnasm prepare "$yeast"
dnasm prepare "$human"

step "Pretrain: a small Hyena from random weights, yeast chrVIII and the last 100 kb of the human sample held out"
dnasm pretrain --config configs/demo.yaml --out "$run" --force

step "Export: the last checkpoint as a model of its own (the best one is $run/model already)"
dnasm export --run "$run" --checkpoint last --out "$run/model-last" --force

step "Score: how much likelier does the model find each of the 4,109 variants than its reference, within 512 bases?"
dnasm score --model "$run/model" --genome "$human" --variants data/human_chr20_sample.vcf.gz --window 512 \
  --out "$run/scores.vcf.gz" --force

step "Embed: one vector for each short gene of yeast chrVIII"
dnasm embed --model "$run/model" --genome "$yeast" --regions data/yeast_chrVIII_genes.bed \
  --out "$run/genes.npz" --force

step "Report: one HTML page"
dnasm report --run "$run" --scores "$run/scores.vcf.gz" --out "$run/report.html" --force

step "Done in $((SECONDS - begun)) seconds. Where everything lies:"
cat <<END
$run/report.html     curves, comparison with Markov models, top variants: open it in a browser
$run/model           the model, for --model and dnasm.load
$run/model-last      the same from the last step
$run/scores.vcf.gz   the scored VCF (INFO/DNASM_LLR), with its index
$run/genes.npz       embeddings of the genes
$run/metrics.csv     training and validation, step by step; $run/tensorboard for TensorBoard
$run/baselines.json  bits per base of Markov orders 0 to 8 and of the model, on the same targets
$run/run.json        steps, tokens, seconds, versions, hashes of the inputs
END
