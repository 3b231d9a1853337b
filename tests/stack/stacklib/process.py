"""Server processes: started detached, known by pid and start time, watched until ready, stopped by signal."""
import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from .base import LOGS, RUN, Fail, say
from .clients import tail


class Died(Fail):
    """A server ended before it was ready."""


def _start_time(pid):
    """What tells a process from a later one with the same pid; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def pid(name):
    """The pid of a running server, else None."""
    try:
        number, started = (RUN / f"{name}.pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(number) if _start_time(number) == started else None


def resident_mib(number):
    """Resident memory of a process and its children, shared pages counted once; 0 when it is gone."""
    total = 0
    for child in [number, *_children(number)]:
        try:
            lines = Path(f"/proc/{child}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
        except OSError:
            continue
    return total // 1024


def _children(number):
    try:
        direct = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return []
    return direct + [deeper for child in direct for deeper in _children(child)]


def spawn(name, command, env=None, cwd="/", user=None):
    """Starts a server in a session of its own, so that it outlives the tool; the log of its last run is kept as `.old`."""
    for folder in (LOGS, RUN):
        folder.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"{name}.log"
    if path.exists():
        path.replace(path.with_suffix(".log.old"))
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    with open(path, "wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd,
                                   env=os.environ | (env or {}), start_new_session=True, **identity)
    (RUN / f"{name}.pid").write_text(f"{process.pid} {_start_time(process.pid) or 0}")
    return process


def wait_ready(name, process, ready, seconds):
    """Waits until `ready()` is true; a dead process ends the wait at once, with the end of its log.

    Another program may answer in its place: ready is only what still runs after the answer.
    """
    begin = time.monotonic()
    log = LOGS / f"{name}.log"
    while time.monotonic() - begin < seconds:
        try:
            answered = ready()
        except OSError:
            answered = False
        if process.poll() is not None:
            raise Died(f"{name} died with exit code {process.returncode}; the end of {log}:\n{tail(log)}")
        if answered:
            return say(f"{name}: ready after {time.monotonic() - begin:.1f} s")
        time.sleep(0.1)
    raise Fail(f"{name} was not ready after {seconds} s and still runs (pid {process.pid}); the end of {log}:\n{tail(log)}")


def stop(name, first=signal.SIGTERM, patience=15):
    """Asks a server to end, and kills it when it has not after `patience` seconds."""
    number = pid(name)
    if number:
        begin = time.monotonic()
        _signal(number, first)
        while pid(name) and time.monotonic() - begin < patience:
            time.sleep(0.05)
        killed = pid(name) is not None
        if killed:
            _signal(number, signal.SIGKILL)
            while pid(name):
                time.sleep(0.05)
        say(f"{name}: {'killed' if killed else 'stopped'} after {time.monotonic() - begin:.1f} s")
    (RUN / f"{name}.pid").unlink(missing_ok=True)


def _signal(number, kind):
    with suppress(ProcessLookupError):
        os.kill(number, kind)
