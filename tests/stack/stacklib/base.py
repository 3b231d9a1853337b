"""Where things are, which versions they have, and how the tool speaks."""
import fcntl
import json
import os
import pwd
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
VERSIONS = tomllib.loads((HERE / "versions.toml").read_text())
S3_ACCESS_KEY, S3_SECRET_KEY, S3_REGION = "minioadmin", "minioadmin", "us-east-1"
BUCKET, NESSIE_BUCKET = "lake", "lake-nessie"


class Fail(Exception):
    """An error the person at the keyboard can act on: printed without a traceback."""


def default_folder():
    """Root gets a folder outside its home: PostgreSQL refuses to run as root, and its user could not enter a home of mode 0700."""
    if os.geteuid() == 0:
        return Path("/var/cache/cdc-sink/stack")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdc-sink" / "stack"


ROOT = Path(os.environ.get("CDC_SINK_STACK_DIR") or default_folder()).absolute()
PARTS, DATA, LOGS, RUN, TEMP = (ROOT / name for name in ("parts", "data", "logs", "run", "tmp"))

_started = time.monotonic()
_print_lock = threading.Lock()


def say(text):
    """A progress line on standard error: standard output is kept for what `env`, `status` and `logs` print."""
    with _print_lock:
        print(f"[{time.monotonic() - _started:6.1f}s] {text}", file=sys.stderr, flush=True)


def shout(text):
    """A line nobody should miss in a long log."""
    bar = "!" * 78
    with _print_lock:
        print(f"{bar}\n!!! {text}\n{bar}", file=sys.stderr, flush=True)


@contextmanager
def locked():
    """One install, start, stop or wipe at a time in one cache folder."""
    RUN.mkdir(parents=True, exist_ok=True)
    with open(RUN / "lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is at work in {ROOT}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def stamp_of(part):
    """What an installed part must say of itself to count as installed."""
    return json.dumps(VERSIONS[part], sort_keys=True)


def installed(part):
    stamp = PARTS / part / ".stamp"
    return stamp.is_file() and stamp.read_text() == stamp_of(part)


def server_user():
    """The user PostgreSQL runs as: None for oneself."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Fail("PostgreSQL does not run as root and there is neither a user `postgres` nor `nobody` to run it as")


def check_reachable(path, user):
    """Says which parent folder keeps `user` out, before PostgreSQL says it less clearly."""
    for folder in reversed(path.parents):
        info = folder.stat()
        if not info.st_mode & 0o001 and info.st_uid != user.pw_uid:
            raise Fail(f"user {user.pw_name} cannot enter {folder}, so PostgreSQL cannot run from {path}: "
                       "set CDC_SINK_STACK_DIR to a folder under /var/cache or /var/tmp")
