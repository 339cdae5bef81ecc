#!/usr/bin/env bash
# Everything that is to be measured on one GPU, in at most 8 minutes: benchmarks/gpu.py says what. No network is needed.
#   benchmarks/gpu.sh                 into benchmarks/results/gpu.json
#   benchmarks/gpu.sh --install       first installs this package and JAX for CUDA 12 into .venv-gpu, from the network
#   PYTHON=...                        the Python that has both (default: python3, or that of .venv-gpu where it is)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ${1-} == --install ]]; then
  shift
  python3 -m venv .venv-gpu
  .venv-gpu/bin/pip install -q -c constraints.txt -e '.[cuda12]'
fi
if [[ -x .venv-gpu/bin/python ]]; then PYTHON=${PYTHON:-.venv-gpu/bin/python}; fi
export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92} TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
