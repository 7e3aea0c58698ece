#!/usr/bin/env bash
# The whole pipeline of "Scaling Properties of Diffusion Models for Perceptual Tasks" at a size that
# two cores can train, on procedural worlds: a VAE, class-conditional pretraining in its latents, a
# generalist with one input convolution a task, upcycled to a mixture of experts. Last, the dense
# generalist from scratch with the compute of the stages together, and a table of them all.
#
#     scripts/paper-pipeline.sh [FOLDER]     (default runs/paper-pipeline; 23 minutes on two idle cores)
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-runs/paper-pipeline}"
here=(--codec.path "$out/vae/vae")
perception=("${here[@]}" --training.latents "$out/latents/perception")

uv run train.py --config configs/vae-tiny.yaml --run-dir "$out/vae"
uv run train.py --config configs/pretrain-scenes.yaml "${here[@]}" \
    --training.latents "$out/latents/image" --run-dir "$out/pretrain"
uv run train.py --config configs/pipeline/generalist.yaml "${perception[@]}" \
    --init-from "$out/pretrain" --run-dir "$out/generalist"
uv run stepsight convert upcycle --checkpoint "$out/generalist" --experts 4 --top-k 2 \
    --out "$out/upcycled"
uv run train.py --config configs/pipeline/upcycled.yaml "${perception[@]}" \
    --init-from "$out/upcycled" --run-dir "$out/experts"
uv run train.py --config configs/pipeline/generalist.yaml "${perception[@]}" \
    --training.images 44800 --training.validate-every 22400 --training.checkpoint-every 22400 --run-dir "$out/scratch"
uv run stepsight compare "$out/pretrain" "$out/generalist" "$out/experts" "$out/scratch" \
    --out "$out/stages.md"
