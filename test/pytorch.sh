#!/bin/sh
# Runs PyTorch's own programs with ditrun run: DistributedDataParallel over gloo on four ranks of
# one host and of two (network namespaces, where they may be made), one that raises, one that hangs.
# No part of npm test, since PyTorch is large:  test/pytorch.sh [--install]
# PYTHON_EXEC names a Python that has PyTorch; --install gets Debian's python3-torch where it has none.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON_EXEC:-/usr/bin/python3}
if ! "$python" -c 'import torch' 2>/dev/null && [ "${1:-}" = --install ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-torch
fi
if ! "$python" -c 'import torch' 2>/dev/null; then
  echo "Skipped: $python has no PyTorch. Name another with PYTHON_EXEC, or give --install."
  exit 0
fi
PYTORCH_PYTHON=$python exec npx vitest run test/jobs/pytorch.test.ts
