#!/usr/bin/env bash
# Runs benchmarks/accelerator.py on a machine without a network, from the root of the repository.
#
#   bash benchmarks/accelerator.sh pack           here: download the missing packages to .whl/
#   bash benchmarks/accelerator.sh [FLAGS ...]    there: install them and measure
#
# The packages are those that the machine lacks: its Python 3.12 has JAX, Flax, Optax, Orbax, PyTorch
# and pytest. .whl/ is ignored by git, so it has to be carried along. Results go to the folder $OUT.
set -eu
missing="tyro docstring-parser grain array-record tensorflow-datasets tensorflow-metadata dm-tree
  immutabledict simple-parsing toml termcolor googleapis-common-protos promise importlib-resources
  portpicker typeguard simplejpeg torchjd quadprog qpsolvers"
if [ "${1:-}" = pack ]; then
  platforms=""
  for version in 2_17 2_24 2_27 2_28 2_31 2_34 2_35 2_39 1 2014; do
    case $version in 1 | 2014) name="manylinux${version}" ;; *) name="manylinux_${version}" ;; esac
    platforms="$platforms --platform ${name}_x86_64"
  done
  git check-ignore --quiet .whl || echo /.whl/ >>"$(git rev-parse --git-path info/exclude)"
  for package in $missing; do # one by one: `promise` has no wheel, and is built here
    python3 -m pip download --quiet --no-deps --dest .whl --only-binary=:all: --python-version 3.12 \
      --implementation cp $platforms "$package" ||
      python3 -m pip wheel --quiet --no-deps --wheel-dir .whl "$package"
  done
  du -sh .whl
  exit
fi
export PYTHONPATH="$PWD" PYTHONUNBUFFERED=1 TF_CPP_MIN_LOG_LEVEL=2
if [ -d .whl ]; then
  python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade \
    --target /tmp/site .whl/*.whl
  export PYTHONPATH="$PWD:/tmp/site"
fi
out=${OUT:-benchmarks}
exec python3 benchmarks/accelerator.py --json "$out/accelerator.json" --log "$out/accelerator.log" \
  "$@"
