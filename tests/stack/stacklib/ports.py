"""Which port each server has: asked for, remembered, usual, or any free one, in this order."""
import json
import os
import socket
import threading

from .base import HOST, RUN, Fail, say

USUAL = {
    "registry": 27081,
    "connect": 27083,
    "kafka": 27092,
    "kafka-controller": 27093,
    "nessie": 27120,
    "nessie-oauth": 27121,
    "keycloak": 27188,
    "iceberg-rest": 27181,
    "mysql": 27306,
    "mariadb": 27307,
    "postgres": 27432,
    "minio": 27900,
}
_FILE = RUN / "ports.json"
_lock = threading.Lock()


def _remembered():
    return json.loads(_FILE.read_text()) if _FILE.is_file() else {}


def variable(name):
    return f"CDC_SINK_STACK_{name.upper().replace('-', '_')}_PORT"


def port(name):
    """The port a server has, or would be given first."""
    return _remembered().get(name) or int(os.environ.get(variable(name), 0)) or USUAL[name]


def _free(number):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", number))  # every interface: one server of the stack knows no other
            return True
        except OSError:
            return False


def _any_free():
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            number = probe.getsockname()[1]
        if number not in _remembered().values():
            return number


def claim(name):
    """Chooses and records the port of a server that is about to start."""
    with _lock:
        asked = int(os.environ.get(variable(name), 0))
        if asked and not _free(asked):
            raise Fail(f"{name}: port {asked}, asked for by {variable(name)}, is taken by another program")
        chosen = next((number for number in (asked, _remembered().get(name), USUAL[name]) if number and _free(number)), None)
        if chosen is None:
            chosen = _any_free()
            say(f"{name}: port {USUAL[name]} is taken by another program, using {chosen}")
        ports = _remembered() | {name: chosen}
        # Replaced whole: other threads read it without the lock.
        written = _FILE.with_suffix(".new")
        written.write_text(json.dumps(ports, indent=1, sort_keys=True))
        written.replace(_FILE)
        return chosen
