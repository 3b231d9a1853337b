#!/usr/bin/env python3
"""Group life: what happens to a consumer group and to its topics, on real Kafka, while changes come.

Instances come, go, are killed, stopped for longer than their session and fenced; topics get partitions, lose records, are deleted, made again,
compacted, written by transactions; a second deployment writes the same tables, a person accepts that records are lost. Each happens to a group that keeps Delta tables and to one that keeps Iceberg tables. Afterwards two readers
must find at every version of every table the fold of its topic up to the position that is stored with it.
"""
import argparse
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import operators  # noqa: E402
import scenarios  # noqa: E402
from scene import TARGETS, Scene  # noqa: E402
from stack import Fail  # noqa: E402
from world import World  # noqa: E402

PROCESSES = 2
SCENARIOS = scenarios.SCENARIOS | operators.SCENARIOS


def play(run, folder, name, seed):
    """One scenario; its outcome for each target."""
    begin = time.monotonic()
    scene = Scene(run, Path(folder), name, seed)
    try:
        SCENARIOS[name](scene)
        scene.end()
    except Exception as error:  # What was found before, and the other scenarios, are worth knowing.
        text = str(error) if isinstance(error, Fail) else traceback.format_exc()
        for wrong in scene.wrong.values():
            wrong.append(text)
    finally:
        scene.close()
    return [(f"{name}, {target}", "failed" if scene.wrong[target] else "passed", scene.wrong[target], scene.seen(target), time.monotonic() - begin)
            for target in TARGETS]


def every(options):
    """Plays the scenarios, some at a time."""
    world = World.new()
    names = [name for name in SCENARIOS if not options.scenarios or any(word in name for word in options.scenarios)]
    outcomes = []
    try:
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
            for played in [pool.submit(play, world.run, str(world.folder), name, options.seed) for name in names]:
                for outcome in played.result():
                    show(outcome)
                    outcomes.append(outcome)
    finally:
        failed = any(outcome != "passed" for _, outcome, *_ in outcomes)
        if not (options.keep or failed):
            world.remove()
    print(f"logs: {world.folder}", flush=True)
    return outcomes


def show(outcome):
    name, result, wrong, seen, seconds = outcome
    print(f"{name:58}{result:8}{seen:44}{seconds:6.0f} s", flush=True)
    for text in wrong[:6]:
        print(f"    {text}", flush=True)


def run(options):
    """For `run.py`: name, outcome and what is wrong of each."""
    return [(f"group: {name}", outcome, wrong) for name, outcome, wrong, *_ in every(options)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", default=[], type=lambda text: text.split(","), metavar="A,B", help=f"words of: {'; '.join(SCENARIOS)}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave topics, tables and objects where they are, as after a failure")
    options = parser.parse_args()
    begin = time.monotonic()
    outcomes = every(options)
    failed = sum(outcome != "passed" for _, outcome, *_ in outcomes)
    print(f"{len(outcomes) - failed} passed, {failed} failed, in {time.monotonic() - begin:.0f} s")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
