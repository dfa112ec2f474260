#!/usr/bin/env bash
# Makes .venv exactly what the lock says, plus this project (editable). Called by `make setup`.
#
# Rules:
# 1. A stamp is written last and names everything that decides the content; equal stamp and a working interpreter: done.
# 2. From the first change to the last, `.venv/.unfinished` exists. A run that finds it, no stamp, or a `.venv` that does
#    not import, starts over: what was interrupted or damaged is never repaired by guessing.
# 3. Nothing but the package registry that pip is configured for is asked, and only for hashed files.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
extra=${EXTRA:-cpu}
lock=requirements/$extra.lock
stamp=.venv/.stamp
about='import sys; print(sys.version, sys.base_prefix)'
uv=build/uv/bin/uv

fail() { echo "setup: $*" >&2; exit 1; }
[[ -f $lock ]] || fail "EXTRA=$extra has no lock file $lock; accepted: cpu, gpu"
command -v "$python" >/dev/null || fail "$python is not to be found; install Python 3.11 or 3.12, or say PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
  fail "$("$python" --version 2>&1) does not do; accepted: 3.11 and 3.12 (PYTHON=/path/to/python)"

wanted=$(
  { cat "$lock" pyproject.toml requirements/uv.txt tools/setup.sh
    echo "$extra $PWD"
    "$python" -c "$about"
  } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
)
done_already() {
  [[ -f $stamp && ! -e .venv/.unfinished && $(<"$stamp") == "$wanted" && -x .venv/bin/ratchet ]] && imports
}
imports() { .venv/bin/python -c 'import pydantic, tools' 2>/dev/null; }
if done_already; then exit 0; fi

exec 9>.setup.lock
flock 9 2>/dev/null || true  # two at once: the second waits, then finds the stamp (no flock on macOS: then do not)
if done_already; then exit 0; fi

# uv reads no pip configuration: hand over which registry, certificates and folders pip would use.
pip_value() { { "$python" -m pip config list 2>/dev/null || true; } | sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | tail -1; }
hand_over() { local value; value=$(pip_value "$2"); if [[ -z ${!1:-} && -n $value ]]; then export "$1=$value"; fi; }
hand_over UV_DEFAULT_INDEX index-url
hand_over SSL_CERT_FILE cert

pin=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements/uv.txt)
if ! "$uv" --version 2>/dev/null | grep -qF "uv $pin "; then
  echo "setup: uv $pin"
  rm -rf build/uv
  "$python" -m venv build/uv 2>/dev/null || fail "$python cannot make a virtual environment; on Debian: apt install python3-venv"
  build/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
fi

# uv names the target by the environment variable; an active foreign environment must not be touched.
unset VIRTUAL_ENV CONDA_PREFIX
same_python() { [[ "$(.venv/bin/python -c "$about" 2>/dev/null)" == "$("$python" -c "$about")" ]]; }
if [[ -e .venv/.unfinished || ! -f $stamp ]] || ! same_python || ! imports; then
  rm -rf .venv
  "$uv" venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" .venv
fi
touch .venv/.unfinished
rm -f "$stamp"
echo "setup: $(grep -c '^[a-zA-Z0-9].*==' "$lock") packages of $lock"
"$uv" pip sync --python .venv/bin/python --require-hashes --quiet "$lock"
"$uv" pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation --editable .
echo "$wanted" >"$stamp"
rm -f .venv/.unfinished
echo "setup: done, .venv/bin/ratchet"
