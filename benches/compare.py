"""Speed and memory of the engines beside eager PyTorch and jitted JAX, as Markdown tables: what `make bench` runs.

One run interleaves all programs: every round starts each of them afresh for a few updates, neighbours in the order being
the ones compared, so a machine that slows down slows all of them. Medians are over the updates of all rounds, ratios are
medians over the rounds of the ratio within a round.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-bench/bin/python"

LENGTH, BATCHES, THREADS = 20, (1, 16, 64), (1, 2)
UPDATES = {  # at each of BATCHES: about a second a process
    "fused": (300, 60, 20),
    "composed": (8, 6, 4),
    "torch": (8, 6, 4),
    "jax_plain": (100, 16, 8),
    "jax": (150, 24, 10),
}
TITLES = {"fused": "fused", "composed": "composed", "torch": "PyTorch eager", "jax_plain": "JAX, jitted scan", "jax": "JAX, tuned by hand"}
MACS = 400 * (9 + 20 + 100) + 92 * 100 + 8 * 120  # a step's products with weights: LSTM, heads, output

SGEMM = """
import json, sys, time, torch
torch.set_num_threads(int(sys.argv[1]))
a, b, rates = torch.rand(1024, 1024), torch.rand(1024, 1024), []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    a @ b
    rates.append(2 * 1024**3 / (time.perf_counter() - start) / 1e9)
print(json.dumps({"rates": rates}))
"""


class Case(NamedTuple):
    """One process: an engine, or `sgemm`, with its batch size, length, threads and number of updates."""

    engine: str
    batch: int
    length: int
    threads: int
    updates: int

    def command(self, engine_binary):
        numbers = [str(number) for number in self[1:]]
        match self.engine:
            case "sgemm":
                return [PYTHON, "-c", SGEMM, numbers[2], numbers[3]]
            case "torch" | "jax_plain" | "jax":
                return [PYTHON, ROOT / f"benches/{self.engine}_ntm.py", *numbers]
            case _:
                return [engine_binary, self.engine, *numbers]


class Results:
    """The JSON that each case's processes printed, one a round."""

    def __init__(self):
        self.rounds = {}

    def add(self, case, result):
        self.rounds.setdefault(case, []).append(result)

    def milliseconds(self, case):
        """Per round: the times of the updates without the first fifth, the warm-up."""
        return [times[max(1, len(times) // 5) :] for times in (result["milliseconds"] for result in self.rounds[case])]

    def median(self, case):
        return statistics.median(time for times in self.milliseconds(case) for time in times)

    def rate(self, case):
        """Sequences a second."""
        return 1e3 * case.batch / self.median(case)

    def ratio(self, case, other):
        """How many times faster `case` is than `other`."""
        pairs = zip(self.milliseconds(case), self.milliseconds(other))
        return statistics.median(statistics.median(b) / statistics.median(a) for a, b in pairs)

    def sgemm(self, case):
        rates = (rate for result in self.rounds[case] for rate in result["rates"][max(1, case.updates // 5) :])
        return statistics.median(rates)

    def peak_mb(self, case):
        return statistics.median(result["peak_mb"] for result in self.rounds[case])


def fail(what, hint):
    sys.exit(f"error: {what}\nhint: {hint}")


def find_engine_binary():
    command = ["cargo", "bench", "--no-run", "--bench", "engine", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if output.returncode:
        fail("cargo cannot build the benchmark", "run `make setup`, then `cargo bench --no-run --bench engine`")
    artifacts = map(json.loads, output.stdout.splitlines())
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "engine")


def measure(case, engine_binary, environment):
    run = subprocess.run(case.command(engine_binary), env=environment, capture_output=True, text=True)
    if run.returncode or not run.stdout.strip():
        fail(f"{' '.join(map(str, case))} failed:\n{run.stderr[-2000:]}", "run that program by itself")
    return json.loads(run.stdout.splitlines()[-1])


def speed_cases(updates):
    """{(engine, batch): its cases, one per number of threads}, engines next to each other within a batch."""
    cases = {}
    for index, batch in enumerate(BATCHES):
        for engine in UPDATES:
            count = updates(UPDATES[engine][index])
            cases[engine, batch] = [Case(engine, batch, LENGTH, threads, count) for threads in THREADS]
    return cases


def table(headings, rows):
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    print("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines), end="\n\n")


def print_speed(results, speed):
    print(f"## Sequences a second, copy of length {LENGTH} (T = {2 * LENGTH + 1})\n")
    print("Forward, backward, clip and update; the better of 1 and 2 threads, which stands in brackets.")
    print("`fused /` is how many times faster fused is, the median of the rounds' ratios.\n")
    best = {key: max(cases, key=results.rate) for key, cases in speed.items()}
    others = [engine for engine in UPDATES if engine != "fused"]
    rows = []
    for batch in BATCHES:
        cases = [best[engine, batch] for engine in UPDATES]
        rates = [f"{results.rate(case):,.0f} ({case.threads})" for case in cases]
        rows.append([batch, *rates, *(f"{results.ratio(cases[0], best[other, batch]):.1f}" for other in others)])
    ratios = [f"fused / {TITLES[engine]}" for engine in others]
    table(["batch", *TITLES.values(), *ratios], rows)


def print_sgemm(results, speed, sgemm):
    print("## Share of the machine's sgemm rate\n")
    print(f"sgemm: f32, 1024 x 1024 x 1024, in PyTorch. Fused counts 3 x {MACS:,} multiply-adds a step (products with weights:")
    print("forward, backward, weight gradient), nothing of the memory and its addressing, which it does in the same time.\n")
    rows = []
    for index, case in enumerate(sgemm):
        peak = results.sgemm(case)
        shares = []
        for batch in BATCHES:
            reached = results.rate(speed["fused", batch][index]) * (2 * LENGTH + 1) * 3 * MACS * 2 / 1e9
            shares.append(f"{reached:.1f} ({reached / peak:.0%})")
        rows.append([case.threads, f"{peak:.1f}", *shares])
    table(["threads", "sgemm GFLOP/s", *(f"fused, batch {batch}" for batch in BATCHES)], rows)


def print_memory(results, memory):
    print("## Peak memory of a training step, batch 1\n")
    print("Peak of a process that does 2 updates, less that of the same process at length 1.\n")
    more = {case: results.peak_mb(case) - results.peak_mb(small) for case, small in memory}
    fused, composed, _ = more
    rows = [[case.engine, f"{2 * case.length + 1:,}", f"{mb:.1f}"] for case, mb in more.items()]
    table(["engine", "T", "MB"], rows)
    if more[fused] > 0:
        print(f"At T = {2 * fused.length + 1} composed takes {more[composed] / more[fused]:.0f} times as much as fused.\n")


def print_lengths(results, lengths):
    print("## Fused: milliseconds per time step, batch 1, 1 thread\n")
    rows = []
    for case in lengths:
        steps = 2 * case.length + 1
        rows.append([f"{steps:,}", f"{results.median(case):.2f}", f"{results.median(case) / steps:.4f}"])
    table(["T", "milliseconds an update", "a step"], rows)


def print_machine(rounds):
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    versions = "import importlib.metadata as m, platform\nprint('Python', platform.python_version(), end='')\n"
    versions += "for p in ('jax', 'torch'): print(f', {p} {m.version(p)}', end='')"
    python = subprocess.run([PYTHON, "-c", versions], capture_output=True, text=True).stdout
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.strip()
    cpu = models[0] if models else platform.processor() or platform.machine()
    print(f"{cpu}, {os.cpu_count()} cores, {platform.system()}; {rustc}, {python}; rounds: {rounds}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often every program runs (default 5)")
    parser.add_argument("--quick", action="store_true", help="one round of a third of the updates, to see that all runs")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else max(1, arguments.rounds)
    updates = (lambda count: max(3, count // 3)) if arguments.quick else (lambda count: count)
    if not PYTHON.exists():
        fail(f"there is no {PYTHON.relative_to(ROOT)}", "run `make bench`, which makes it")

    speed = speed_cases(updates)
    sgemm = [Case("sgemm", 0, 0, threads, updates(30)) for threads in THREADS]
    lengths = [speed["fused", 1][0]] + [Case("fused", 1, length, 1, updates(n)) for length, n in ((120, 50), (1000, 8))]
    steps = (("fused", 120), ("composed", 120), ("fused", 5000))
    memory = [(Case(engine, 1, length, 1, 2), Case(engine, 1, 1, 1, 2)) for engine, length in steps]
    flat = [case for pair in speed.values() for case in pair] + sgemm + lengths + [case for pair in memory for case in pair]
    cases = list(dict.fromkeys(flat))  # each once

    engine_binary, results = find_engine_binary(), Results()
    with tempfile.TemporaryDirectory() as cache:  # JAX compiles in the first round only
        environment = dict(os.environ, JAX_COMPILATION_CACHE_DIR=cache, JAX_PLATFORMS="cpu")
        for number in range(rounds):
            for index, case in enumerate(cases):
                if sys.stderr.isatty():
                    progress = f"\rround {number + 1}/{rounds}, program {index + 1}/{len(cases)} "
                    print(progress, end="\n" * (index + 1 == len(cases)), file=sys.stderr, flush=True)
                results.add(case, measure(case, engine_binary, environment))
    print_machine(rounds)
    print_speed(results, speed)
    print_sgemm(results, speed, sgemm)
    print_memory(results, memory)
    print_lengths(results, lengths)


if __name__ == "__main__":
    main()
