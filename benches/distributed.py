"""What data parallelism costs on one machine: K ranks beside one process with a rank's share of the batch, on one thread each.

    python3 benches/distributed.py [RANKS] [ROUNDS]

The two are interleaved and medians taken. Their difference is the all-reduce and the wait for the slowest rank.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NTM = Path(__file__).parent.parent / "target/release/ntm"
RANKS, ROUNDS = (int(word) for word in [*sys.argv[1:], *("2", "5")[len(sys.argv) - 1 :]])
SHARES = (1, 4, 16, 64)  # sequences of a rank in each update
UPDATES = 300


def updates_per_second(ranks, batch, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = Path(folder) / f"{ranks}-{batch}"
    settings = [f"training.batch_size={batch}", "training.eval_every=0", "training.checkpoint_every=0", "training.report_every=50"]
    line = [NTM, "train", "copy", "--threads", "1", "--run-dir", run, "--sequences", str(batch * UPDATES)]
    line += [word for setting in settings for word in ("--set", setting)]
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    all_ranks = [subprocess.Popen(line, env={**os.environ, **job, "RANK": str(rank)}, stderr=subprocess.DEVNULL) for rank in range(ranks)]
    if any(rank.wait() for rank in all_ranks):
        sys.exit(f"error: a rank of {ranks} with a batch of {batch} failed")
    reports = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    subprocess.run(["rm", "-r", run], check=True)
    return statistics.median(report["sequences_per_second"] for report in reports[1:]) / batch


print(f"{RANKS} ranks, {os.cpu_count()} cores, medians of {ROUNDS} rounds of {UPDATES} updates of copy")
print("sequences of a rank | update alone (ms) | with all ranks (ms) | all-reduce and waiting | sequences/s, times those of one process")
for share in SHARES:
    with tempfile.TemporaryDirectory() as folder:
        rounds = [(updates_per_second(1, share, folder), updates_per_second(RANKS, share * RANKS, folder)) for _ in range(ROUNDS)]
    alone, together = (1000 / statistics.median(values) for values in zip(*rounds))
    print(f"{share:19} | {alone:17.2f} | {together:19.2f} | {1 - alone / together:22.0%} | {RANKS * alone / together:.2f}")
