#!/usr/bin/env bash
# Everything that needs a GPU, in at most nine minutes on one: GPU tests, training steps, experts,
# sampling, a Marigold-sized U-Net beside diffusers, a VAE, two default runs. Each step has its own
# time limit and fails alone. Writes benchmarks/results/<date>-<gpu>.md and gpu.json.
#
#     scripts/gpu-check.sh [--tiny] [--out FOLDER] [--only STEP ...]
#
# --tiny: the same on a CPU at sizes that mean nothing, to see that it runs. On a machine that has
# torch but neither network nor this project's other requirements, carry them along in wheels/:
#
#     uv run --no-project --with pip python -m pip download --no-deps --only-binary :all: \
#         --python-version 3.12 --dest wheels diffusers omegaconf antlr4-python3-runtime tyro \
#         typeguard docstring-parser rich markdown-it-py mdurl pygments scipy matplotlib contourpy \
#         cycler fonttools kiwisolver pyparsing python-dateutil six importlib-metadata zipp pytest \
#         pluggy iniconfig
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python3}"
[ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ] && python=.venv/bin/python
path="$PWD/src:$PWD/benchmarks"
if compgen -G "wheels/*.whl" >/dev/null; then
    unpacked="$PWD/.cache/wheels"
    rm -rf "$unpacked" && mkdir -p "$unpacked/stepsight.dist-info"
    for wheel in wheels/*.whl; do "$python" -m zipfile -e "$wheel" "$unpacked"; done
    { echo "Metadata-Version: 2.1"; echo "Name: stepsight"; sed -n 's/^version = "\(.*\)"/Version: \1/p' pyproject.toml; } \
        >"$unpacked/stepsight.dist-info/METADATA"
    path="$path:$unpacked"
fi
export PYTHONPATH="$path${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" benchmarks/gpu_check.py "$@"
