"""What the running stack says of itself, and the few calls to its servers that several parts of the test make."""
import json
import os
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
ENV = {key.removeprefix("CDC_SINK_TEST_"): value for key, value in os.environ.items() if key.startswith("CDC_SINK_TEST_")}


class Fail(Exception):
    """The test cannot go on: printed without a traceback, then the run ends as failed."""


def binary():
    """The program under test: `$CDC_SINK_BIN`, else the newest debug build."""
    folder = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
    path = Path(os.environ.get("CDC_SINK_BIN") or folder / "debug" / "cdc-sink")
    if not path.is_file():
        raise Fail(f"no program at {path}: run `cargo build`, or name one with CDC_SINK_BIN")
    return path.absolute()


def lake():
    """How readers reach the object store."""
    return {"endpoint": ENV["S3"], "key": ENV["S3_ACCESS_KEY"], "secret": ENV["S3_SECRET_KEY"], "region": ENV["S3_REGION"]}


def http(method, url, body=None):
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def until(what, probe, seconds, step=0.1):
    """Waits until `probe()` returns something true; an HTTP error that passes by itself counts as not yet."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := probe():
                return found
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409, 500, 503):
                raise Fail(f"{what}: HTTP {error.code}: {error.read().decode(errors='replace')[:500]}") from error
        if time.monotonic() > end:
            raise Fail(f"{what}: not within {seconds:.0f} s")
        time.sleep(step)


def run_name(letter="e", digits=6, ticks=1):
    """A name for what a run makes: the time in base 36. Runs that begin in different ticks, so many a second, have different ones."""
    number = int(time.time() * ticks)
    return letter + "".join("0123456789abcdefghijklmnopqrstuvwxyz"[number // 36**place % 36] for place in reversed(range(digits)))


def ended(run, found, say):
    """Tells what a run found wrong, and gives its exit code."""
    for text in found:
        print(f"FAILED {text}")
    say(f"{run}: {len(found)} failed")
    return 1 if found else 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail(path, lines=30):
    try:
        text = Path(path).read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return "    (no log)"
    return "\n".join("    " + (line if len(line) <= 600 else line[:600] + "…") for line in text)
