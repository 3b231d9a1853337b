"""Servers that are gone: brokers, a store and a catalog of the test's own are ended, killed, and away for longer than a batch; the registry is slow,
silent, answers by halves, resets connections, and refuses them.

While it lasts nothing gets into the tables that need the server, which say so on the status page and in a metric; the others go on. Afterwards everything
gets into them without a person. Every version of every table must be the fold of its topic then.
"""
import time
import urllib.request
from datetime import datetime

import history
from avro import Writer
from program import settled
from proxies import go
from stack import ENV, Fail, until
from waves import Waves, metric, waiting
from world import World, topic

# How a server goes, and for how many seconds.
GONE = {"kafka": (("ended", 8), ("killed", 8), ("away", 32)), "store": (("ended", 8), ("killed", 16)), "catalog": (("ended", 6), ("killed", 12))}
TARGETS = {"kafka": "iceberg-files", "store": "both", "catalog": "iceberg-rest"}
REGISTRY = ("slow", "short", "reset", "silence", "down")
# Longer than a batch, and than the registry's deadline for an answer.
HOLD, SAID = 3, 30
PROCESSES = 3


class Gone(Waves):
    """A server of the case's own that is not there for a while."""

    def __init__(self, run, seed, folder, server):
        super().__init__(run, seed, folder, f"gone-{server}", "outages", TARGETS[server], server, own=True, waves=len(GONE[server]) + 1)
        self.name = f"{server} gone, {TARGETS[server]}"

    def outages(self):
        first = self.programs[0]
        self.wave()
        first.begin()
        self.heal("nothing", first)
        for how, seconds in GONE[self.server]:
            before = time.time()
            self.mine.end() if how == "ended" else self.mine.kill()
            gone = time.monotonic()
            if self.server == "kafka":
                self.says_that_brokers_are_gone(first, before)
                time.sleep(max(seconds - (time.monotonic() - gone), 0))
                first.expect_alive()
                self.mine.start()
                until(f"{self.name}: {how}: it says that brokers answer again", lambda: not source(first)["waiting"], SAID)
                if metric(first, "cdc_sink_source_waiting"):
                    raise Fail(f"{self.name}: {how}: a metric says that it still waits")
                self.wave()
            else:
                self.wave()
                self.holds(first)
                time.sleep(max(seconds - (time.monotonic() - gone), 0))
                self.mine.start()
            self.heal(how, first)
            if told := waiting(first):
                raise Fail(f"{self.name}: it still waits: {told}")

    def holds(self, first):
        retried = metric(first, "cdc_sink_retries_total", 'kind="unavailable"')
        told = until(f"{self.name}: it says that it waits", lambda: waiting(first), SAID)
        if not metric(first, "cdc_sink_table_waiting") or metric(first, "cdc_sink_retries_total", 'kind="unavailable"') < max(retried, 1):
            raise Fail(f"{self.name}: no metric says that it waits: {told}")
        if settled([first], self.ends):
            raise Fail(f"{self.name}: nothing was cut off")

    def says_that_brokers_are_gone(self, first, before):
        told = until(f"{self.name}: it says that no broker answers", lambda: source(first)["waiting"] and source(first), SAID)
        first.expect_alive()
        since = datetime.fromisoformat(told["waiting_since"]).timestamp()
        if self.address not in told["waiting"] or not before <= since <= time.time():
            raise Fail(f"{self.name}: it does not say for whom it waits, and since when, not before {before}: {told}")
        if not metric(first, "cdc_sink_source_waiting"):
            raise Fail(f"{self.name}: no metric says that it waits")
        if "waiting for the brokers" not in first.log.read_text():
            raise Fail(f"{self.name}: the log does not say that the brokers are gone")
        if urllib.request.urlopen(f"http://127.0.0.1:{first.port}/readyz", timeout=5).status != 200:
            raise Fail(f"{self.name}: it is not ready, which no restart would help")


def source(program):
    """What a process says of its source."""
    return (program.status() or {}).get("source", {"waiting": None})


class Unregistered(Waves):
    """Two topics in Avro: one needs a new schema in each wave, the other has the same one always."""

    def __init__(self, run, seed, folder, _=None):
        self.writer = Writer()
        super().__init__(run, seed, folder, "gone-registry", "troubles", "delta", "registry", waves=len(REGISTRY) + 1)
        self.name = "registry in trouble, delta"

    def fed_by(self, run, group, seed, target):
        return {topic(group, name): history.Table(name, 2, 40 * self.waves, seed, moves=0) for name in ("changing", "steady")}

    def written(self, topic, record):
        return self.writer.written(topic, record, version=self.sent + 1 if topic.endswith(".changing") else 1)

    def go(self):
        try:
            super().go()
        finally:
            self.writer.remove()

    def troubles(self):
        first = self.programs[0]
        self.wave()
        first.begin()
        self.heal("nothing", first)
        for trouble in REGISTRY:
            self.proxy.add(trouble)
            self.wave()
            if trouble != "slow":
                self.holds(first, trouble)
                self.proxy.heal()
            self.heal(trouble, first)
            self.proxy.heal()
            if told := waiting(first):
                raise Fail(f"{self.name}: it still waits: {told}")

    def holds(self, first, trouble):
        until(f"{self.name}: {trouble}: the other table goes on", lambda: settled([first], self.ends_of("steady")), 15)
        told = until(f"{self.name}: {trouble}: it says that it waits", lambda: waiting(first, ".changing"), SAID)
        time.sleep(HOLD)
        first.expect_alive()
        if self.address not in told or waiting(first, ".steady"):
            raise Fail(f"{self.name}: {trouble}: it does not say what waits for what: {told}, {waiting(first, '.steady')}")
        if [metric(first, "cdc_sink_table_waiting", f'.{table}"') for table in ("changing", "steady")] != [1, 0]:
            raise Fail(f"{self.name}: {trouble}: the metric does not say what waits")
        if settled([first], self.ends_of("changing")):
            raise Fail(f"{self.name}: {trouble} did not cut it off")


def run(options):
    """Every case: its name, whether it passed, and what is wrong."""
    world = World.new()
    common = world.run, options.seed, world.folder
    cases = [(Gone, *common, server) for server in GONE] + [(Unregistered, *common)]
    if "REGISTRY" not in ENV:
        raise Fail("there is no registry")
    print(f"{'':42}{'versions':>9}{'rows':>9}{'orphans':>9}{'MiB':>6}{'seconds':>8}           seconds until it recovered from", flush=True)
    return world.play(go, cases, PROCESSES, options.keep)[0]
