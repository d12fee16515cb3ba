"""Forward passes a second: onnxruntime on an exported copy machine beside the fused engine, as a Markdown table.

    cargo build --release && .venv-test/bin/python benches/onnx.py [ROUNDS]

Every round runs both programs one after the other, so a machine that slows down slows both; the ratio is the median of
the rounds' ratios. The weights are those of the start: neither program's time depends on them. Ours draws its sequences
within the time, onnxruntime is given its own.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parent.parent
LENGTH = 20
CASES = {1: 200, 16: 40, 64: 15}  # batch size: passes a round
THREADS = (1, 2)


def run(command, directory=ROOT):
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout


def engine_binary():
    artifacts = map(json.loads, run(["cargo", "bench", "--no-run", "--bench", "engine", "--message-format=json"]).splitlines())
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "engine")


def sessions():
    """One for each number of threads, with the same exported machine."""
    with tempfile.TemporaryDirectory() as directory:
        ntm = ROOT / "target/release/ntm"
        run([ntm, "train", "copy", "--sequences", "1", "--run-dir", "run"], directory)
        checkpoint = "run/checkpoints/latest.safetensors"
        run([ntm, "export", "--checkpoint", checkpoint, "--format", "onnx", "--output", "copy.onnx"], directory)
        model = Path(directory, "copy.onnx").read_bytes()
    made = {}
    for threads in THREADS:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        made[threads] = onnxruntime.InferenceSession(model, options)
    return made


def onnx_milliseconds(session, batch, passes):
    bits = np.random.default_rng(1).integers(0, 2, (2 * LENGTH + 1, batch, 9)).astype(np.float32)
    times = []
    for _ in range(passes):
        start = time.perf_counter()
        session.run(None, {"inputs": bits})
        times.append((time.perf_counter() - start) * 1e3)
    return times


def fused_milliseconds(binary, batch, threads, passes):
    return json.loads(run([binary, "forward", *map(str, (batch, LENGTH, threads, passes))]))["milliseconds"]


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    binary, runtimes = engine_binary(), sessions()
    medians = {}
    for _ in range(rounds):
        for batch, passes in CASES.items():
            for threads in THREADS:
                ours = fused_milliseconds(binary, batch, threads, passes)
                theirs = onnx_milliseconds(runtimes[threads], batch, passes)
                pair = [statistics.median(times[passes // 5 :]) for times in (ours, theirs)]  # without the warm-up
                medians.setdefault((batch, threads), []).append(pair)
    print(f"onnxruntime {onnxruntime.__version__}, copy of length {LENGTH} (T = {2 * LENGTH + 1}), {rounds} rounds\n")
    print("| batch | threads | fused, sequences/s | onnxruntime, sequences/s | fused / onnxruntime |")
    print("|---:|---:|---:|---:|---:|")
    for (batch, threads), pairs in medians.items():
        ours, theirs = (1e3 * batch / statistics.median(times) for times in zip(*pairs))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs)
        print(f"| {batch} | {threads} | {ours:,.0f} | {theirs:,.0f} | {ratio:.1f} |")


if __name__ == "__main__":
    main()
