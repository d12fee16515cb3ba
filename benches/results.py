"""Trains ten seeds of the recipes and measures what they learned: the results of the README.

    python3 benches/results.py                     all of them, about forty minutes on two cores
    python3 benches/results.py copy ngrams         some of them
    python3 benches/results.py --seeds 1..3 --runs /tmp/results copy

Studies go to runs/results/RECIPE; one that is there is gone on with or, if finished, only measured again. Prints a row a
recipe and point: median, least and most over the seeds, those that were not solved included.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

# What each recipe is measured on beyond its own evaluation: flags of `ntm eval`.
POINTS = {
    "copy": ["--lengths", "10,20,30,50,120"],
    "repeat-copy": ["--lengths", "10,20", "--repeats", "10,20"],
    "associative-recall": ["--items", "6,12,20"],
    "ngrams": ["--lengths", "200"],
    "priority-sort": ["--vectors", "20"],
}
# Fresh sequences at each point: more of those whose errors are rare, or whose optimum varies.
SEQUENCES = {"copy": 100, "repeat-copy": 100, "associative-recall": 1000, "ngrams": 1000, "priority-sort": 1000}
RECIPES = [task + network for task in POINTS for network in ("", "-feedforward", "-lstm")]
# Seeds that were not looked at when the recipe was chosen, where some of 1 to 10 were; of slow networks three.
SEEDS = {
    "associative-recall": "71..80",
    "associative-recall-feedforward": "61..70",
    "repeat-copy": "121..130",
    "repeat-copy-lstm": "81..83",
    "associative-recall-lstm": "1..3",
    "ngrams": "31..40",
    "ngrams-feedforward": "1..3",
    "ngrams-lstm": "1..3",
    "priority-sort": "71..80",
    "priority-sort-feedforward": "41..43",
    "priority-sort-lstm": "21..23",
}
FIGURES = ["loss_bits", "bit_errors", "marker_errors"]


def ntm(*arguments):
    """What the program prints to stdout; its words to stderr pass through."""
    command = ["cargo", "run", "--quiet", "--release", "--", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with {done.returncode}")
    return done.stdout


def seed_range(text):
    first, _, last = text.partition("..")
    seeds = range(int(first), int(last) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text} has no seeds")
    return seeds


def settings(recipe):
    """Every field of a built-in recipe, or of one that a run holds, but what it is about; fields that are missing have their default."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        if not isinstance(recipe, str):
            json.dump(recipe, file)
            file.flush()
            recipe = file.name
        complete = json.loads(ntm("info", recipe, "--json"))["recipe"]
    return {name: value for name, value in complete.items() if name != "about"}


def study(recipe, seeds, directory):
    """Trains what is missing; the summary."""
    if (directory / "study.json").exists():
        held = json.loads((directory / "study.json").read_text())
        if held["seeds"] != list(seeds) or settings(held["recipe"]) != settings(recipe):
            sys.exit(f"error: {directory} holds a study of other seeds or settings; move it away, or name other --runs")
        ntm("train", "--resume", directory)
    else:
        ntm("train", recipe, "--seeds", f"{seeds[0]}..{seeds[-1]}", "--run-dir", directory)
    return json.loads((directory / "summary.json").read_text())


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure(recipe, seeds, directory, sequences):
    summary = study(recipe, seeds, directory)
    solved = [outcome["solved"] for outcome in summary["outcomes"] if outcome["solved"]]
    print(f"\n{recipe}: {len(solved)} of {summary['seeds']} seeds solved", end="")
    if solved:
        print(f", after {spread([at['sequences'] for at in solved], 0)} sequences", end="")
        print(f" and {spread([at['seconds'] for at in solved], 1)} s", end="")
    print(f"; {spread([outcome['seconds'] for outcome in summary['outcomes']], 1)} s in all", end="")
    print(f", restarts {' '.join(str(outcome.get('restarts', 0)) for outcome in summary['outcomes'])}")

    task = next(task for task in POINTS if recipe in (task, task + "-feedforward", task + "-lstm"))
    results = {}
    for outcome in summary["outcomes"]:
        checkpoint = directory / f"seed-{outcome['seed']}/checkpoints/latest.safetensors"
        count = sequences or SEQUENCES[task]
        told = json.loads(ntm("eval", "--checkpoint", checkpoint, *POINTS[task], "--sequences", count, "--json"))
        for result in told["results"]:
            result["excess_bits"] = result["loss_bits"] - result.get("optimum_bits", 0.0)
            point = " ".join(f"{k} {result[k]}" for k in ("length", "repeats", "items", "vectors") if k in result)
            results.setdefault(point, []).append((outcome["seed"], result))
    for point, found in results.items():
        figures = FIGURES + (["excess_bits"] if task == "ngrams" else [])
        shown = [f"{name} {spread([r[name] for _, r in found])}" for name in figures if name in found[0][1]]
        print(f"  {point}: {', '.join(shown)}")
        wrong = ", ".join(f"{seed}: {result['bit_errors']:g} ({result['exact']})" for seed, result in found)
        by_loss = sorted((result["loss_bits"], seed) for seed, result in found)
        print(f"    wrong bits (exact) by seed: {wrong}; the median by loss is seed {by_loss[(len(by_loss) - 1) // 2][1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(POINTS), help=f"default: {' '.join(POINTS)}")
    parser.add_argument("--seeds", type=seed_range, metavar="A..B", help="default: those of the README")
    parser.add_argument("--sequences", type=int, help="at each point; default: those of the README")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/results"))
    flags = parser.parse_args()
    if unknown := set(flags.recipes) - set(RECIPES):
        parser.error(f"no results for {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    for recipe in flags.recipes:
        measure(recipe, flags.seeds or seed_range(SEEDS.get(recipe, "1..10")), flags.runs / recipe, flags.sequences)


if __name__ == "__main__":
    main()
