#!/usr/bin/env bash
# Create .venv with firstspike and its development tools. Run again after pyproject.toml changes.
#
#   PYTHON=python3.12 scripts/setup.sh         another interpreter (3.10 or newer)
#   TORCH="torch==2.9.0" scripts/setup.sh      another build of torch: any arguments for pip install
#
# torch goes in first: the project accepts a range of releases, and whatever is installed by then
# stays. Without a GPU the CPU build is asked for, since the default build on Linux brings several
# gigabytes of CUDA libraries along.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "setup: Python 3.10 or newer is needed, $("$python" --version) is not; set PYTHON=..." >&2
    exit 1
}
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip="$PWD/.venv/bin/python -m pip --disable-pip-version-check --no-input --quiet"
install="$pip install --no-compile" # modules are compiled when first imported: 50 s less

has_torch() { .venv/bin/python -c 'import torch' 2>/dev/null; }
if ! has_torch; then
    if [ -n "${TORCH:-}" ]; then
        # shellcheck disable=SC2086  # several arguments on purpose
        $install $TORCH
    elif command -v nvidia-smi >/dev/null 2>&1 || [ "$(uname -s)" != Linux ]; then
        $install torch
    else
        $install "torch==2.13.0+cpu" 2>/dev/null || {
            echo "setup: pip finds no CPU build of torch here. Choose one, for instance with" >&2
            echo '       TORCH="torch --index-url URL-OF-THE-CPU-BUILDS" make demo' >&2
            exit 1
        }
    fi
fi
$install --editable ".[dev]"
touch .venv/ready
