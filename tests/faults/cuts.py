"""Cut off: from Kafka, from the store or from the catalog, by silence, resets, slow and short answers, and by a server that is not there.

While one lasts, records come. After each, and without a person, all of them must get into the table.
"""
import time

from program import settled
from stack import Fail
from waves import Waves

# Nothing can get into a table while it lasts.
COMPLETE = {"silence", "down"}
TROUBLES = {"kafka": ("latency", "reset", "cut", "silence", "down"), "store": ("latency", "reset", "cut", "silence", "down"),
            "catalog": ("latency", "reset", "cut", "silence", "down")}
TARGETS = {"kafka": "delta", "store": "both", "catalog": "iceberg-rest"}
HOLD = 3


class Cut(Waves):
    """A target that reaches one server through a proxy."""

    def __init__(self, run, seed, folder, server):
        super().__init__(run, seed, folder, f"cut-{server}", "cut", TARGETS[server], server, waves=len(TROUBLES[server]) + 1)
        self.name = f"cut off from the {server}, {TARGETS[server]}"

    def cut(self):
        first = self.programs[0]
        self.wave()
        first.begin()
        self.heal("nothing", first)
        for trouble in TROUBLES[self.server]:
            self.proxy.add(trouble)
            self.wave()
            time.sleep(HOLD)
            if trouble in COMPLETE and settled([first], self.ends):
                raise Fail(f"{trouble} did not cut it off")
            self.proxy.heal()
            self.heal(trouble, first)
