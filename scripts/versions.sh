#!/usr/bin/env bash
# Test the versions that pyproject.toml claims, each in an environment of its own under .versions/:
# Python 3.10 to 3.13 with the newest releases, and the oldest release of every dependency.
#
#   scripts/versions.sh                        all of them, the fast tests
#   scripts/versions.sh 3.13 oldest            some of them
#   scripts/versions.sh 3.12 -- tests/codes    other tests: what follows -- is pytest's
#
# PYTHON3_12=/path/to/python names an interpreter; otherwise python3.12 is looked for in PATH and
# among those of pyenv. TORCH chooses the build of torch beside the newest releases; by default the
# CPU build of setup.sh, or where there is none the newest of all. What was tested and how it went
# is appended to .versions/report.txt; a missing interpreter fails as a test does.
set -uo pipefail
cd "$(dirname "$0")/.."

wanted=() tests=()
while [ $# -gt 0 ]; do
    if [ "$1" = -- ]; then shift; tests=("$@"); break; fi
    wanted+=("$1"); shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(3.10 3.11 3.12 3.13 oldest)

interpreter() { # the path of Python $1
    local given="PYTHON${1/./_}" at
    for at in "${!given:-}" "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
        [ -n "$at" ] || continue
        if "$at" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
            echo "$at"; return
        fi
    done
}

oldest() { # "torch>=2.4" in the dependencies is torch==2.4.* here
    "$1" - <<'PYTHON'
import re
block = open("pyproject.toml").read().split("dependencies = [")[1].split("]")[0]
print(*(f"{name}=={version}.*" for name, version in re.findall(r'"([\w-]+)>=([\d.]+)"', block)))
PYTHON
}

failed=0
mkdir -p .versions
for name in "${wanted[@]}"; do
    version=$name
    [ "$name" != oldest ] || version=${OLDEST_PYTHON:-3.10}
    python=$(interpreter "$version") versions=
    folder=.versions/$name said="no interpreter of Python $version"
    if [ -n "$python" ]; then
        [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
        install="$folder/bin/python -m pip --disable-pip-version-check -q install --no-compile"
        if [ "$name" = oldest ]; then
            torch=$(oldest "$python")
        elif [ -n "${TORCH:-}" ] || ! $install "torch==2.13.0+cpu" 2>/dev/null; then
            torch=${TORCH:-torch}
        else
            torch=
        fi
        # shellcheck disable=SC2086  # several requirements on purpose
        if { [ -z "$torch" ] || $install $torch; } && $install --editable '.[dev]' $torch; then
            quiet=() # what old releases say of themselves is not ours to mend
            [ "$name" != oldest ] || quiet=(-W default::DeprecationWarning -W default::FutureWarning)
            said=$(OMP_NUM_THREADS=1 "$folder/bin/python" -m pytest -q -p no:cacheprovider \
                "${quiet[@]}" "${tests[@]:--n2}" 2>&1 | tee "$folder.log" | tail -1)
        else
            said="cannot be installed"
        fi
        versions=$("$folder/bin/python" -c "import sys, torch, numpy, numba; print('Python', \
sys.version.split()[0], 'torch', torch.__version__, 'numpy', numpy.__version__, 'numba', numba.__version__)")
    fi
    [[ $said == *passed* && $said != *failed* && $said != *error* ]] || failed=1
    echo "$(date -u +%F) $name: $versions: ${said//=/}" | tee -a .versions/report.txt
done
exit $failed
