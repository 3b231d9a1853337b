#!/usr/bin/env python3
"""Faults on the real program and the real servers: after each, every version of every table must be the fold of its topic.

Each part is a module with `run(options)`, which returns `(name, "passed" or "failed", what is wrong)` of each of its tests.
"""
import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import world  # noqa: E402
from stack import ENV, Fail  # noqa: E402

PARTS = {"kill-points": "kill_points", "group": "group", "signals": "signals", "outages": "outages", "proxies": "proxies"}
SHOWN = 8


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = {"type": lambda text: text.split(","), "metavar": "A,B"}
    parser.add_argument("--parts", default=list(PARTS), help=", ".join(PARTS), **listed)
    parser.add_argument("--points", default=[], help="kill points, such as K5,K6b", **listed)
    parser.add_argument("--targets", default=[], help="of kill points and proxies: delta, iceberg-rest, iceberg-files, both", **listed)
    parser.add_argument("--scenarios", default=[], help="of group life, words of their names", **listed)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", action="store_true", help="remove what earlier runs left, and do nothing else")
    parser.add_argument("--keep", action="store_true", help="leave topics, tables and objects where they are, as after a failure")
    return parser.parse_args()


def go(options):
    for part in options.parts:
        try:
            yield from importlib.import_module(PARTS[part]).run(options)
        except Exception as error:  # The other parts shall run.
            yield part, "failed", [str(error) if isinstance(error, Fail) else traceback.format_exc()]


def main():
    if missing := sorted({"BROKERS", "S3", "ICEBERG_REST"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    options, started = arguments(), time.monotonic()
    if options.clean:
        world.clean()
        return 0
    outcomes = list(go(options))
    failed = [(name, wrong) for name, outcome, wrong in outcomes if outcome != "passed"]
    for name, wrong in failed:
        for text in wrong[:SHOWN]:
            print(f"FAILED {name}: {text}")
        if len(wrong) > SHOWN:
            print(f"FAILED {name}: and {len(wrong) - SHOWN} more")
    print(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed, in {time.monotonic() - started:.0f} s")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
