"""The tables of `cuda.sh`: sequences a second of the engines on one card beside JAX and a CUDA graph of PyTorch, what share of
the card's ceilings that is, and the time until copy is solved. Every program is a process of its own; a failed one is a dash, and
an error at the end where it is one of ours."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
LENGTH = 20
STEPS = 2 * LENGTH + 1
BATCHES = (1, 16, 64, 256, 1024)
X, Y, H, N, M, R, W = 9, 8, 100, 128, 20, 1, 1
HEADS = R + W
Z, GATES, SHOWN, EMITTED = 1 + X + R * M + H, 4 * H, 1 + H + R * M, HEADS * (M + 6) + W * 2 * M

# A step of a sequence, forward and back. Products with weights: forward, their gradient by the input, their gradient by the weights.
PRODUCTS = 3 * 2 * (GATES * Z + EMITTED * (1 + H) + Y * SHOWN)
# Cells of the memory: keys, norms, reads and writes forward; writes, reads, keys and the memory's own gradient back.
CELLS = N * M * ((2 * HEADS + 2 + 2 * R + 4 * W) + (9 * W + 2 * R + 2 * HEADS + 2 * HEADS + 2 * R + 2))
# Values of the tape, written once and read once; gates and what the heads emit are written again as gradients, and they and
# what they belong to are read again by the weight gradients.
TAPE = Z + GATES + 2 * H + SHOWN + EMITTED + HEADS * 4 * N + N + N * M
BYTES = 4 * (2 * TAPE + 2 * (GATES + EMITTED) + Z + SHOWN)

CEILINGS = """
import json, torch
torch.backends.cuda.matmul.allow_tf32 = False
def seconds(run, times):
    run(); torch.cuda.synchronize()
    a, b = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    a.record()
    for _ in range(times): run()
    b.record(); torch.cuda.synchronize()
    return a.elapsed_time(b) / 1e3 / times
big = torch.randn(1 << 29, device="cuda"); other = torch.empty_like(big)
m = torch.randn(8192, 8192, device="cuda")
print(json.dumps({"name": torch.cuda.get_device_name(), "bytes": 2 * 4 * (1 << 29) / seconds(lambda: other.copy_(big), 20),
                  "operations": 2 * 8192**3 / seconds(lambda: m @ m, 10)}))
"""


def programs(device, batch, updates):
    """Title -> command, for each program at a batch size; the slow ones do fewer updates."""
    number = lambda count: str(max(10, count))
    engine = lambda name, count: [HERE / "engine", name, str(batch), str(LENGTH), "1", number(count), device]
    jax = lambda name, threads: [sys.executable, HERE / f"{name}.py", str(batch), str(LENGTH), str(threads), number(updates // 4)]
    graph = [sys.executable, HERE / "torch_graph_ntm.py", str(batch), str(LENGTH), number(updates // 4), device]
    return {
        "fused": engine("fused", updates),
        "composed": engine("composed", updates // 20),
        "JAX, jitted scan": jax("jax_plain_ntm", os.cpu_count()),
        "JAX, tuned": jax("jax_ntm", 1),  # its threads are devices
        "PyTorch, CUDA graph": graph,
    }


def rate(command, batch, environment, log):
    """Sequences a second: the median of the timed parts, the first fifth left out."""
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        if run.returncode != 0:
            raise ValueError(run.returncode)
        times = json.loads(run.stdout.splitlines()[-1])["milliseconds"]
        return 1e3 * batch / statistics.median(times[len(times) // 5 :])
    except (subprocess.TimeoutExpired, IndexError, KeyError, ValueError) as error:
        text = error if isinstance(error, subprocess.TimeoutExpired) else run.stderr[-3000:]
        print(f"{' '.join(map(str, command))}:\n{text}", file=log, flush=True)
        return None


def table(headings, rows):
    lines = [headings, ["---:"] * len(headings), *rows]
    print("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), end="\n\n", flush=True)


def speed(device, batches, updates, environment, log):
    rates = {}
    for batch in batches:
        for title, command in programs(device, batch, updates).items():
            rates[title, batch] = rate(command, batch, environment, log)
            print(f"  {title}, batch {batch}: {rates[title, batch]}", file=sys.stderr, flush=True)
    titles = list(programs(device, 1, updates))
    shown = lambda value, form: form.format(value) if value else "-"
    ratio = lambda title, batch: rates["fused", batch] / rates[title, batch] if rates["fused", batch] and rates[title, batch] else None
    print(f"## Sequences a second, copy of length {LENGTH} (T = {STEPS}): forward, backward, clip, update\n")
    headings = ["batch", *titles, *(f"fused / {title}" for title in titles[1:])]
    rows = [
        [batch, *(shown(rates[title, batch], "{:,.0f}") for title in titles), *(shown(ratio(title, batch), "{:.1f}") for title in titles[1:])]
        for batch in batches
    ]
    table(headings, rows)
    return rates


def shares(rates, batches, ceilings):
    print(f"## Fused, share of the ceilings of {ceilings['name']}\n")
    copy, product = ceilings["bytes"], ceilings["operations"]
    print(f"Measured: copy {copy / 1e12:.2f} TB/s, f32 matrix product {product / 1e12:.1f} TFLOP/s. A step of a sequence counts")
    print(f"{PRODUCTS:,} operations in products, {CELLS:,} in the memory, {BYTES:,} bytes of tape.\n")
    rows = []
    for batch in batches:
        steps = (rates["fused", batch] or 0) * STEPS
        operations, moved = steps * (PRODUCTS + CELLS), steps * BYTES
        floor = max((PRODUCTS + CELLS) / product, BYTES / copy) * STEPS * batch * 1e3
        rows.append([batch, f"{operations / 1e12:.2f} ({operations / product:.1%})", f"{moved / 1e9:.0f} ({moved / copy:.1%})", f"{floor:.3f}"])
    table(["batch", "TFLOP/s", "GB/s of tape", "floor of an update, ms"], rows)


def solved(device, out, environment, sequences):
    print(f"## Copy, seed 1, {sequences} sequences: time to the first evaluation without a wrong bit\n")
    rows, failed = [], []
    for engine, on in [("fused", device), ("fused", "cpu")]:
        directory = out / f"copy-{engine}-{on}-{time.time_ns()}"
        command = [HERE / "ntm", "train", "copy", "--engine", engine, "--device", on, "--run-dir", directory, "--sequences", str(sequences)]
        try:
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        except subprocess.TimeoutExpired:
            rows.append([engine, on, "-", "-", "longer than 200 s"])
            failed.append(f"ntm train on {on}")
            continue
        if run.returncode != 0:
            failed.append(f"ntm train on {on}")
        report = directory / "evaluations.jsonl"
        said = run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "nothing"
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        first = next((line for line in lines if all(result["bit_errors"] == 0 for result in line["results"])), None)
        metrics = directory / "metrics.jsonl"
        reports = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        seconds = next((line["seconds"] for line in reports if first and line["step"] >= first["step"]), None)
        rows.append([engine, on, first["step"] if first else "-", f"{seconds:.1f}" if seconds else "-", reports[-1]["seconds"] if reports else said])
    table(["engine", "device", "updates", "seconds", "seconds of the whole run"], rows)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=HERE / "out")
    arguments = parser.parse_args()
    cuda, out = arguments.device == "cuda", arguments.out
    out.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=str(out / "jax"), XLA_PYTHON_CLIENT_PREALLOCATE="false")
    environment["JAX_PLATFORMS"] = "cuda" if cuda else "cpu"
    batches, updates = (BATCHES, 200) if cuda else (BATCHES[:2], 20)
    with open(out / "failures.txt", "w") as log:
        rates = speed(arguments.device, batches, updates, environment, log)
    if cuda:
        shares(rates, batches, json.loads(subprocess.check_output([sys.executable, "-c", CEILINGS], text=True)))
    failed = [f"{title}, batch {batch}" for (title, batch), value in rates.items() if value is None]
    if failed:
        print(f"failed, see {out / 'failures.txt'}: {'; '.join(failed)}", flush=True)
    ours = [name for name in failed if name.startswith(("fused", "composed"))]
    ours += solved(arguments.device, out, environment, 10000 if cuda else 200)
    if ours:
        sys.exit(f"error: ours failed: {'; '.join(ours)}")


if __name__ == "__main__":
    main()
