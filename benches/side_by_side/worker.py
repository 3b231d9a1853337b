"""What the Python workers share: commands come in a line each, answers go out as JSON."""
import json
import sys
import time
from pathlib import Path

KEY = "id"
COLUMNS = ["id", "name", "email", "phone", "city", "status", "balance", "updated_at"]


def base(folder):
    return Path(folder) / "base"


def batch(folder, number):
    return Path(folder) / f"batch-{number}.parquet"


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def serve(commands):
    """Answers commands until there are none. `commands` are functions by name."""
    for line in sys.stdin:
        name, *words = line.split()
        print("ANSWER", json.dumps(commands[name](*words)), flush=True)
