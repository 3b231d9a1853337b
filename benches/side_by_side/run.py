#!/usr/bin/env python3
"""Merges the same batches of 10,000 changes into the same tables with cdc-sink and with what one would use instead:
Spark's MERGE into Delta (deletion vectors) and Iceberg (version 3, merge on read), and deltalake-py's MERGE.

    tests/stack/stack install readers spark
    benches/side_by_side/run.py [--rows 1000000,10000000] [--rounds 5] [--dir FOLDER] [--json FILE]

Half of a batch's changes are updates, spread evenly over the table, 40 % inserts, 10 % deletes. Everyone starts warm, reads
the batch from one Parquet file on the local disk and takes turns: one merge each, round after round. What is timed is the
merge alone, from the file to the commit. At the end all tables must hold the same rows, as Spark reads them.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
WARM_UP = 2

OURS = ["cdc-sink delta", "cdc-sink iceberg", "cdc-sink both"]
OTHERS = ["spark delta", "spark iceberg", "deltalake-py"]
# The most of the other's time that ours may take, by rows of the table.
TARGETS = {
    ("cdc-sink delta", "spark delta"): {1_000_000: 1 / 10, 10_000_000: 1 / 20},
    ("cdc-sink iceberg", "spark iceberg"): {1_000_000: 1 / 4},
}


class Worker:
    """A warm process that merges on demand: one command a line, one answer a line."""

    def __init__(self, name, command, environment):
        self.name = name
        self.process = subprocess.Popen(
            command, env=os.environ | environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("ANSWER "):
                return json.loads(line.removeprefix("ANSWER "))
        sys.exit(f"{self.name} ended while asked to {' '.join(map(str, words))}")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def stack_environment():
    lines = subprocess.run([REPOSITORY / "tests/stack/stack", "env"], text=True, capture_output=True, check=True).stdout
    found = dict(line.removeprefix("export ").split("=", 1) for line in lines.splitlines() if line.startswith("export "))
    for key in ("CDC_SINK_TEST_PYTHON", "CDC_SINK_TEST_SPARK_PYTHON"):
        if key not in found:
            sys.exit("not installed: run `tests/stack/stack install readers spark`")
    return found


def build():
    """Builds our worker and gives its path."""
    messages = subprocess.run(
        ["cargo", "bench", "--bench", "side_by_side", "--no-run", "--message-format=json-render-diagnostics"],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, check=True).stdout
    made = [json.loads(line) for line in messages.splitlines()]
    return next(m["executable"] for m in made if m.get("target", {}).get("name") == "side_by_side" and m.get("executable"))


def measure(rows, arguments, workers):
    folder = arguments.dir / str(rows)
    folder.mkdir(parents=True, exist_ok=True)
    workers["data"].ask("data", folder, rows, WARM_UP + arguments.rounds)
    times = {name: [] for name in OTHERS + OURS}
    for name in times:
        worker = workers[name.split()[0]]
        seconds = worker.ask("create", name.split()[-1], folder)
        print(f"  {name}: loaded {rows:,} rows in {seconds:.1f} s", flush=True)
    for number in range(1, WARM_UP + arguments.rounds + 1):
        for name, taken in times.items():
            taken.append(workers[name.split()[0]].ask("merge", name.split()[-1], folder, number))
        print(f"  batch {number}: " + ", ".join(f"{name} {taken[-1]:.3f}" for name, taken in times.items()), flush=True)
    check(folder, times, workers)
    medians = {name: statistics.median(taken[WARM_UP:]) for name, taken in times.items()}
    report(rows, medians)
    if not arguments.keep:
        shutil.rmtree(folder)
    return {"rows": rows, "medians": medians, "seconds": times}


def check(folder, times, workers):
    """All tables hold the same rows."""
    said = {}
    for name in times:
        for kind, path in workers[name.split()[0]].ask("where", name.split()[-1], folder).items():
            said[f"{name} ({kind})"] = workers["spark"].ask("summary", kind, path)
    if len({json.dumps(summary) for summary in said.values()}) != 1:
        sys.exit("the tables differ:\n" + "\n".join(f"  {name}: {summary}" for name, summary in said.items()))
    print(f"  all tables hold {next(iter(said.values()))['rows']:,} equal rows", flush=True)


def report(rows, medians):
    print(f"\n10,000 changes into {rows:,} rows, median seconds")
    for name, seconds in medians.items():
        print(f"  {name:18} {seconds:8.3f}")
    for ours in OURS:
        for other in OTHERS:
            ratio = medians[ours] / medians[other]
            target = TARGETS.get((ours, other), {}).get(rows)
            verdict = "" if target is None else f"  target 1/{1 / target:.0f}: {'met' if ratio <= target else 'MISSED'}"
            print(f"  {ours:18} takes 1/{1 / ratio:.1f} of {other}{verdict}")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000000,10000000", help="sizes of the tables")
    parser.add_argument("--rounds", type=int, default=5, help="merges that count, after two that do not")
    parser.add_argument("--dir", type=Path, default=REPOSITORY / "target/side_by_side", help="where tables are made")
    parser.add_argument("--json", type=Path, help="where all times are written")
    parser.add_argument("--keep", action="store_true", help="leave the tables")
    arguments = parser.parse_args()
    arguments.dir = arguments.dir.resolve()
    shutil.rmtree(arguments.dir, ignore_errors=True)
    environment = stack_environment()
    python = environment["CDC_SINK_TEST_PYTHON"]
    workers = {"cdc-sink": Worker("cdc-sink", [build(), "worker"], environment)}
    workers["spark"] = Worker("spark", [environment["CDC_SINK_TEST_SPARK_PYTHON"], "-B", HERE / "spark.py", arguments.dir], environment)
    workers["deltalake-py"] = Worker("deltalake-py", [python, "-B", HERE / "deltalake_py.py"], environment)
    workers["data"] = Worker("data", [python, "-B", HERE / "data.py"], environment)
    results = [measure(int(rows), arguments, workers) for rows in arguments.rows.split(",")]
    for worker in workers.values():
        worker.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
