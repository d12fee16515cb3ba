#!/usr/bin/env bash
# Makes the link .libtorch, which .cargo/config.toml names: libtorch 2.11 from pinned PyPI wheels in .venv.
# Runs from anywhere, does nothing the second time. A LIBTORCH in the environment wins and is only checked.
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.11.0
cpu_wheels=(torch==$version nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85) # what libtorch_cpu.so itself loads

stop() { # stop WHAT CURE
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

need() { # need TOOL CURE
    command -v "$1" >/dev/null || stop "\`$1\` not found on the PATH" "$2"
}

# The version a libtorch folder says it has: version.py in a wheel, build-version in PyTorch's zip files.
version_of() {
    if [ -f "$1/version.py" ]; then
        sed -n "s/^__version__ = '\([0-9.]*\).*/\1/p" "$1/version.py"
    elif [ -f "$1/build-version" ]; then
        sed 's/[^0-9.].*//' "$1/build-version"
    fi
}

check() { # check FOLDER: is it libtorch of our version, with headers and libraries?
    [ -d "$1" ] || stop "LIBTORCH is \`$1\`, which is not a folder" "unset LIBTORCH, then \`make setup\` fetches libtorch $version"
    [ -f "$1/lib/libtorch_cpu.so" ] && [ -f "$1/include/torch/csrc/api/include/torch/torch.h" ] ||
        stop "\`$1\` lacks lib/libtorch_cpu.so or the headers below include/" "point LIBTORCH at an unpacked libtorch $version, or unset it and run \`make setup\`"
    found=$(version_of "$1")
    [ "$found" = "$version" ] ||
        stop "\`$1\` is libtorch ${found:-of unknown version}, but tch 0.24 needs $version" "point LIBTORCH at libtorch $version, or unset it and run \`make setup\`"
}

need cargo "install Rust 1.89 or later: https://rustup.rs"
need g++ "install a C++17 compiler, for instance \`apt-get install g++\`"

if [ -n "${LIBTORCH:-}" ]; then
    check "$LIBTORCH"
    exit 0
fi
if [ -L .libtorch ] && [ -d .libtorch ] && [ "$(version_of .libtorch)" = "$version" ]; then
    exit 0
fi

need python3 "install Python 3.10 or later with venv, for instance \`apt-get install python3-venv\`"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    stop "$(python3 --version 2>&1) is too old: torch $version needs 3.10 or later" "install a newer python3, or set LIBTORCH to an unpacked libtorch $version"

if [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then
    what="libtorch $version with CUDA" need_mb=12000 pip_flags=()
    wheels=(torch==$version nvidia-cuda-crt==13.0.88 nvidia-cuda-cccl==13.0.85) # the latter two: headers that NCCL's needs
else
    what="libtorch $version for CPU (540 MB)" need_mb=2600 wheels=("${cpu_wheels[@]}") pip_flags=(--no-deps)
fi
free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge "$need_mb" ] ||
    stop "$what needs $need_mb MB in $PWD, and $free_mb MB are free" "free some space, or set LIBTORCH to an unpacked libtorch $version elsewhere"

echo "setup: fetching $what into .venv" >&2
python3 -m venv .venv >/dev/null 2>&1 ||
    stop "\`python3 -m venv .venv\` failed" "install the venv module, for instance \`apt-get install python3-venv\`"
.venv/bin/python -m pip install --quiet --disable-pip-version-check ${pip_flags[@]+"${pip_flags[@]}"} "${wheels[@]}" ||
    stop "pip could not fetch ${wheels[*]}" "check the network and the space in $PWD and ${TMPDIR:-/tmp}, then run \`make setup\` again; what has come is kept"

folder=$(echo .venv/lib/python3.*/site-packages/torch)
check "$folder"
ln -sfn "$folder" .libtorch
echo "setup: .libtorch -> $folder" >&2
