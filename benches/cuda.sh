#!/usr/bin/env bash
# The fused engine on a CUDA card, in one go: is it right, is it clean, how fast is it.
#
#   benches/cuda.sh pack DIR        on a machine with Rust: builds, and puts all that the others need into DIR
#   DIR/cuda.sh run [OUT]           on a machine with a card, and a `python3` that has torch 2.11 for CUDA 13 and JAX; nothing else
#   DIR/cuda.sh cpu [OUT]           the same without a card, small: shows that the programs run, measures nothing of use
#
# `run` takes 7 to 10 minutes on an H100: the parity tests on the card (a failure ends it), benches/cuda.py's tables, runs of what else a
# card may do, then compute-sanitizer's memcheck and racecheck of a tiny run. Logs go to OUT (default: DIR/out). It ends with an error
# where any of these fails, and says so last; NTM_NO_SANITIZER=1 leaves out the tool where it is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

stop() { # stop WHAT CURE
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
    exit 1
}

executable() { # executable TARGET: the path that cargo's messages on stdin name for a test or benchmark
    python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == sys.argv[1]:
        print(message["executable"])' "$1"
}

pack() {
    [ $# = 1 ] || stop "no folder named" "benches/cuda.sh pack DIR"
    mkdir -p "$1"
    set -- "$(cd "$1" && pwd)"
    cd "$here/.."
    cargo build --release
    cp target/release/ntm "$1/ntm"
    cp "$(cargo test --release --no-run --test cuda --message-format=json | executable cuda)" "$1/parity"
    cp "$(cargo bench --no-run --bench engine --message-format=json | executable engine)" "$1/engine"
    strip "$1/ntm" "$1/parity" "$1/engine"
    cp benches/{cuda.sh,cuda.py,torch_ntm.py,torch_graph_ntm.py,jax_ntm.py,jax_plain_ntm.py} "$1"
    du -sh "$1"
}

# Where the binaries find libtorch and CUDA's libraries: those of python3.
libraries() {
    python3 -c '
import pathlib, torch
packages = pathlib.Path(torch.__file__).parent.parent
found = [packages / "torch/lib", *sorted(packages.glob("nvidia/*/lib"))]
print(":".join(map(str, found)))'
}

sanitize() { # sanitize TOOL OUT BATCH: two updates of so many sequences, one a block or several, and an evaluation
    if ! command -v compute-sanitizer >/dev/null; then
        echo "compute-sanitizer is not here: $1 skipped"
        [ -n "${NTM_NO_SANITIZER:-}" ] || failed="$failed compute-sanitizer"
        return
    fi
    local log=$2/$1-$3.txt directory=$2/$1-$3-run
    # racecheck takes the barriers of some warps of a block for those of all, and so reports what the barriers of all keep
    # apart: it sees one warp a team instead
    local options=
    if [ "$1" = racecheck ]; then
        options=-DMOST_TEAM=1
    fi
    local run=(train copy --device cuda --engine fused --sequences $((2 * $3)) --run-dir "$directory" --set "training.batch_size=$3"
        --set task.max_length=4 --set evaluation.lengths=[3] --set evaluation.sequences=2)
    rm -rf "$directory"
    if NTM_NVRTC_OPTIONS=$options timeout 90 compute-sanitizer --tool "$1" --kernel-name kernel_substring=ntm_ \
        --error-exitcode 9 "$here/ntm" "${run[@]}" >"$log" 2>&1; then
        echo "$1, batch $3: clean"
        [ "$(sed -n '$=' "$directory/metrics.jsonl")" -ge 1 ] || failed="$failed $1-$3.txt"
    else
        echo "$1, batch $3: exit code $?, see $log"
        failed="$failed $1-$3.txt"
    fi
    tail -1 "$log"
}

train() { # train NAME DEVICE OUT FLAGS..: a short run that must come to its end
    local log=$3/train-$1.txt
    rm -rf "$3/train-$1"
    if timeout 60 "$here/ntm" train "${@:4}" --device "$2" --run-dir "$3/train-$1" >"$log" 2>&1; then
        echo "train $1: $(head -1 "$log"); $(grep -h 'evaluation\|sequences: ' "$log" | tail -2 | tr '\n' ';')"
    else
        echo "train $1: exit code $?, see $log"
        failed="$failed train-$1.txt"
    fi
}

run() { # run DEVICE OUT
    mkdir -p "$2"
    set -- "$1" "$(cd "$2" && pwd)"
    local libraries
    if ! libraries=$(libraries 2>/dev/null); then
        [ "$1" = cpu ] || stop "python3 has no torch" "put the Python that has torch 2.11 first on the PATH"
        libraries=. # on the machine that built them, the binaries know where libtorch is
    fi
    export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} XDG_CACHE_HOME=$2/cache PYTHONUNBUFFERED=1
    if [ "$1" = cuda ]; then
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
    fi
    "$here/parity" on_the_card --nocapture --test-threads 1 >"$2/parity.txt" 2>&1 ||
        { tail -30 "$2/parity.txt"; stop "the fused engine is not the definition on this card" "$2/parity.txt has all of it"; }
    if [ "$1" = cuda ] && grep -q 'skipped: ' "$2/parity.txt"; then
        stop "the tests were $(grep -m 1 -o 'skipped: .*' "$2/parity.txt")" "\`$here/cuda.sh cpu\` needs no card"
    fi
    grep -q '^test result: ok. [1-9]' "$2/parity.txt" || stop "no test has run" "$2/parity.txt has what was said"
    grep -v '^$' "$2/parity.txt" | tail -40
    failed=
    python3 "$here/cuda.py" --device "$1" --out "$2" || failed="$failed cuda.py"
    # averaged weights and blurred shifts, on the card and beside it; a machine that no block holds; a feed-forward controller; starts
    # that are given up; large batches, at whose rate the host must keep up, of one length and of mixed ones; the choice by itself
    local learned="--seed 3 --sequences 1500 --set training.average=0.9 --set training.blur.kind=ramp --set evaluation.sequences=20"
    train average-blur "$1" "$2" copy $learned
    train average-blur-cpu cpu "$2" copy $learned
    train many-rows "$1" "$2" copy --sequences 2 --set model.memory.rows=65536 --set training.eval_every=0
    train feedforward "$1" "$2" repeat-copy --sequences 64 --set training.restart.kind=never
    train sort "$1" "$2" priority-sort --sequences 400 --set training.batch_size=64 --set evaluation.sequences=20
    train large "$1" "$2" copy --sequences 102400 --set training.batch_size=1024 --set task.min_length=20 --set training.eval_every=0
    train mixed "$1" "$2" copy --sequences 102400 --set training.batch_size=1024 --set training.eval_every=0
    train auto auto "$2" copy --sequences 100 --set evaluation.sequences=20
    if [ "$1" = cuda ]; then
        for batch in 2 200 300; do # one, two and four a block on an H100
            sanitize memcheck "$2" "$batch"
            sanitize racecheck "$2" "$batch"
        done
    fi
    [ -z "$failed" ] || stop "not all of it succeeded:$failed" "$2 has what each of them said"
}

case "${1:-}" in
pack) shift && pack "$@" ;;
run) run cuda "${2:-$here/out}" ;;
cpu) run cpu "${2:-$here/out}" ;;
*) stop "no such command: \`${1:-}\`" "the head of this file has the three" ;;
esac
