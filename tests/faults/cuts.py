"""Cut off: from Kafka, from the store or from the catalog, by silence, resets, slow and short answers, and by a server that is not there.

While one lasts, records come. After each, and without a person, all of them must get into the table.
"""
import time
from pathlib import Path

import history
from kill_points import Case, Kill
from program import settled
from stack import ENV, Fail, until
from toxics import Broker, Toxiproxy
from world import make, send, sender, topic

# Nothing can get into a table while it lasts.
COMPLETE = {"silence", "down"}
TROUBLES = {"kafka": ("latency", "reset", "cut", "silence", "down", "killed"), "store": ("latency", "reset", "cut", "silence", "down"),
            "catalog": ("latency", "reset", "cut", "silence", "down")}
TARGETS = {"kafka": "delta", "store": "both", "catalog": "iceberg-rest"}
HOLD, HEAL = 3, 90
CHANGES = 60


class Cut(Case):
    """A target that reaches one server through a proxy."""

    def __init__(self, run, seed, folder, server):
        folder = Path(folder) / f"cut-{server}"
        folder.mkdir()
        self.server, self.broker = server, None
        self.brokers = ENV["BROKERS"]
        if server == "kafka":
            self.broker = Broker(folder)
            self.proxy = self.broker.proxy
            ENV["BROKERS"] = f"127.0.0.1:{self.broker.port}"
        else:
            upstream = ENV["S3"] if server == "store" else ENV["ICEBERG_REST"]
            self.proxy = Toxiproxy(folder, upstream.removeprefix("http://"))
        super().__init__(run, seed, folder, Kill(f"cut-{server}", (), "cut"), TARGETS[server])
        self.name = f"cut off from the {server}, {TARGETS[server]}"
        self.ends = {}
        address = f"127.0.0.1:{self.proxy.port}"
        for program in self.programs:
            program.kafka["socket.timeout.ms"] = "4000"
            program.added["AWS_TIMEOUT"] = "3 seconds"
            if server == "store":
                program.added["AWS_ENDPOINT_URL"] = f"http://{address}"
            else:
                program.settings |= {"brokers": address} if server == "kafka" else {"catalog": f"http://{address}"}
        self.resident, self.healed = 0, {}

    def fed_by(self, run, group, seed, target):
        return {topic(group, "stream"): history.Table("stream", 2, CHANGES * self.waves(), seed, moves=0)}

    def waves(self):
        return len(TROUBLES[self.server]) + 1

    def go(self):
        try:
            if self.broker:
                self.broker.start()
            make(self.group.admin, self.tables)
            super().go()
        finally:
            if self.broker:
                self.broker.stop()
            else:
                self.proxy.stop()
            ENV["BROKERS"] = self.brokers

    def told(self):
        return self.healed

    def cut(self):
        first = self.programs[0]
        self.producer, self.sent = sender(), 0
        self.wave()
        first.begin()
        self.heal("nothing", first)
        for trouble in TROUBLES[self.server]:
            if trouble == "killed":
                self.broker.kill()
                time.sleep(HOLD)
                self.broker.start()
                self.wave()
            else:
                self.proxy.add(trouble)
                self.wave()
                time.sleep(HOLD)
                if trouble in COMPLETE and settled([first], self.ends):
                    raise Fail(f"{trouble} did not cut it off")
                self.proxy.heal()
            self.heal(trouble, first)

    def wave(self):
        ((topic, table),) = self.tables.items()
        share = len(table.records) / self.waves()
        records = table.records[round(self.sent * share):round((self.sent + 1) * share)]
        send(self.producer, topic, records)
        for record in records:
            self.ends[topic, record.partition] = self.ends.get((topic, record.partition), 0) + 1
        self.sent += 1

    def heal(self, trouble, first):
        """Waits until everything that was sent is in the table; keeps how long that took."""
        begin = time.monotonic()

        def done():
            first.expect_alive()
            self.resident = max(self.resident, first.resident_mib())
            return settled([first], self.ends)

        until(f"{self.name}: recovers from {trouble}", done, HEAL, step=0.1)
        self.healed[trouble] = round(time.monotonic() - begin, 1)
