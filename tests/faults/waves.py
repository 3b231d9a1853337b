"""Records that come in waves, to a process that reaches one server through a proxy, or has it for itself.

While something is wrong a wave comes. Afterwards, and without a person, all of it must get into the tables.
"""
import re
import time
import urllib.request
from pathlib import Path

import audit
import history
from kill_points import Case, Kill
from program import settled
from servers import Catalog, Minio
from stack import ENV, until
from toxics import Broker, Toxiproxy
from world import make, send, sender, topic

HEAL = 90
CHANGES = 60


class Waves(Case):
    """A case named `name`, of which `course` is the method that plays it."""

    def __init__(self, run, seed, folder, name, course, target, server="", own=False, waves=1):
        self.folder = Path(folder) / name
        self.folder.mkdir()
        self.seed, self.server, self.own, self.waves = seed, server, own, waves
        self.before, self.address = dict(ENV), ""
        self.broker = self.proxy = self.mine = None
        self.reach()
        super().__init__(run, seed, self.folder, Kill(name, (), course), target)
        self.ends, self.sent, self.resident, self.healed, self.producer = {}, 0, 0, {}, None
        for program in self.programs:
            self.prepare(program)

    def reach(self):
        """What the process is to be cut off from, between it and the servers; those of its own are the test's as well."""
        if self.server == "kafka":
            self.broker = self.mine = Broker(self.folder)
            self.proxy, ENV["BROKERS"] = self.broker.proxy, f"127.0.0.1:{self.broker.port}"
        elif self.own and self.server == "store":
            self.mine = Minio(self.folder)
            ENV["S3"] = self.mine.url
            audit.made.clear()
        elif self.own:
            self.mine = Catalog(self.folder)
            ENV["ICEBERG_REST"] = self.mine.url
        elif self.server:
            upstream = {"store": "S3", "catalog": "ICEBERG_REST", "registry": "REGISTRY"}[self.server]
            self.proxy = Toxiproxy(self.folder, re.sub("^http://|/.*$", "", ENV[upstream].removeprefix("http://")))
        if self.proxy:
            self.address = f"127.0.0.1:{self.proxy.port}"
        if self.mine:
            self.mine.start()

    def prepare(self, program):
        program.kafka["socket.timeout.ms"] = "4000"
        program.added["AWS_TIMEOUT"] = "3 seconds"
        if self.server == "registry":
            program.settings |= {"registry": re.sub("//[^/]*", f"//{self.address}", ENV["REGISTRY"])}
        elif self.server == "kafka":
            program.settings |= {"brokers": self.address}
        elif self.own:
            return
        elif self.server == "store":
            program.added["AWS_ENDPOINT_URL"] = f"http://{self.address}"
        elif self.server == "catalog":
            program.settings |= {"catalog": f"http://{self.address}"}

    def fed_by(self, run, group, seed, target):
        return {topic(group, "stream"): history.Table("stream", 2, CHANGES * self.waves, seed, moves=0)}

    def go(self):
        try:
            make(self.group.admin, self.tables)
            self.producer = sender()
            super().go()
        finally:
            for server in (self.mine, self.proxy):
                if server:
                    server.stop()
            ENV.update(self.before)
            if self.own:
                audit.made.clear()

    def told(self):
        return self.healed

    def wave(self):
        for name, table in self.tables.items():
            share = len(table.records) / self.waves
            records = table.records[round(self.sent * share):round((self.sent + 1) * share)]
            send(self.producer, name, [self.written(name, record) for record in records])
            for record in records:
                self.ends[name, record.partition] = self.ends.get((name, record.partition), 0) + 1
        self.sent += 1

    def written(self, _, record):
        """How a record of a topic goes to Kafka."""
        return record

    def ends_of(self, table):
        """Where the topic of that table ends now."""
        return {place: end for place, end in self.ends.items() if place[0].endswith(f".{table}")}

    def heal(self, trouble, first):
        """Waits until everything that was sent is in the table; keeps how long that took."""
        begin = time.monotonic()

        def done():
            first.expect_alive()
            self.resident = max(self.resident, first.peak_mib())
            return settled([first], self.ends)

        until(f"{self.name}: recovers from {trouble}", done, HEAL, step=0.1)
        self.healed[trouble] = round(time.monotonic() - begin, 1)


def waiting(program, table=""):
    """What the table of that name, or any, says that it waits for."""
    for told in (program.status() or {"tables": []})["tables"]:
        if told["table"].endswith(table) and told["waiting"]:
            return told["waiting"]
    return None


def metric(program, name, label=""):
    """The sum of the series of a metric that have that label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{program.port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[{{ ]", line) and label in line)
