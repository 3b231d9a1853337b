#!/usr/bin/env python3
"""Bounds: what a process takes, and what it does when there is too much, too little room, or a bit that is wrong.

Each case is met with one target on the real servers. Its tables are compared at their versions with what was sent, and the memory that
the process had at its peak with what it was given.
"""
import argparse
import shutil
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("faults", "readers", "e2e"))]

import world  # noqa: E402
from copies import LocalCopies  # noqa: E402
from course import Course  # noqa: E402
from disk import LocalDisk  # noqa: E402
from flips import FlippedBits  # noqa: E402
from large import LargeRecords  # noqa: E402
from largest import LargestRecords  # noqa: E402
from many import ManyTables  # noqa: E402
from pressure import HotKey, LongTransaction, SlowStore, SlowStoreOfMany  # noqa: E402
from stack import ENV, Fail  # noqa: E402

CASES = (HotKey, LongTransaction, ManyTables, SlowStore, SlowStoreOfMany, LargeRecords, LargestRecords, LocalDisk, LocalCopies, FlippedBits)
SHOWN = 6


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = {"type": lambda text: text.split(","), "metavar": "A,B", "default": []}
    parser.add_argument("--cases", help=f"words of: {', '.join(case.name for case in CASES)}", **listed)
    parser.add_argument("--targets", help="delta, iceberg, both", **listed)
    parser.add_argument("--quick", action="store_true", help="less of everything")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", action="store_true", help="remove what earlier runs left, and do nothing else")
    parser.add_argument("--keep", action="store_true", help="leave topics, tables and objects where they are, as after a failure")
    return parser.parse_args()


def play(made, here, target):
    """One case with one target: its name and what is wrong."""
    begin = time.monotonic()
    course = Course(here, made.name.replace(" ", "-"), target)
    try:
        made.go(course)
    except Exception as error:  # The other cases shall run.
        course.wrong.append(str(error) if isinstance(error, Fail) else traceback.format_exc())
    finally:
        course.close()
    told = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in course.told.items())
    print(f"{f'{made.name}, {target}':28}{'FAILED' if course.wrong else 'passed':8}{course.audit.versions:>5} versions {course.audit.rows:>9} rows"
          f"{time.monotonic() - begin:>6.0f} s  {told}", flush=True)
    for text in course.wrong[:SHOWN]:
        print(f"    {text}", flush=True)
    if len(course.wrong) > SHOWN:
        print(f"    and {len(course.wrong) - SHOWN} more", flush=True)
    return course.wrong


def every(options, here):
    chosen = [case for case in CASES if not options.cases or any(word in case.name for word in options.cases)]
    for case in chosen:
        targets = [target for target in case.targets if not options.targets or target in options.targets]
        try:
            made = case(here, options.quick)
        except Exception:  # The other cases shall run.
            print(f"{case.name}: {traceback.format_exc()}", flush=True)
            yield ["not made"]
            continue
        for target in targets:
            yield play(made, here, target)


def main():
    if missing := sorted({"BROKERS", "S3", "ICEBERG_REST"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    options, begin = arguments(), time.monotonic()
    if options.clean:
        world.clean()
        return 0
    here = world.World.new()
    here.seed = options.seed
    outcomes = list(every(options, here))
    failed = sum(bool(wrong) for wrong in outcomes)
    if not (options.keep or failed):
        here.remove()
        for folder in here.folder.glob("*/"):
            for name in ("lake", "kept", "disk"):
                shutil.rmtree(folder / name, ignore_errors=True)
    print(f"{len(outcomes) - failed} passed, {failed} failed, in {time.monotonic() - begin:.0f} s; logs: {here.folder}")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
