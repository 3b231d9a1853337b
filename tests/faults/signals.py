"""How a process ends: told by SIGTERM it commits what it has, leaves the group, and ends within what `--help` promises; told twice it ends at once.

Also while the store, the catalog, the registry or the brokers hang or are gone, while it starts, and while the group rebalances. Exit codes are those of
`--help`. What it left undone the next start must do: every version of every table is the fold of its topic.
"""
import signal
import subprocess
import time

import history
from avro import Writer
from kill_points import PATIENT
from program import Program, settled
from proxies import go
from stack import Fail, binary, free_port, tail, until
from waves import Waves, metric, waiting
from world import World, topic

PROCESSES = 3
AT_ONCE = 1.0
# What `--help` promises: for all, and where all that is left waits for a server.
WHOLE, UNANSWERED = 75, 25
# Nothing is to be waited for.
FREE = 10
TERM = -signal.SIGTERM
USAGE = {
    "an unknown option": (["--no-such-option"], "", "--no-such-option"),
    "no topics": ([], "", "topics"),
    "eager assignment": (["--topics", "a.b.*"], '"partition.assignment.strategy" = "range"', '"partition.assignment.strategy" cannot be set'),
}


class Signals(Waves):
    """`course` is one of the methods below; `server` is reached through a proxy."""

    def __init__(self, run, seed, folder, course, target="delta", server="", waves=2):
        name = "-".join(word for word in ("sig", course, server) if word).replace("_", "-")
        super().__init__(run, seed, folder, name, course, target, server, waves=waves)
        self.name = f"{course.replace('_', ' ')}{server and ', '}{server}, {target}"
        self.writer = Writer() if server == "registry" else None

    def written(self, topic, record):
        return self.writer.written(topic, record, version=self.sent + 1) if self.writer else record

    def go(self):
        try:
            super().go()
        finally:
            if self.writer:
                self.writer.remove()

    def told_to_end(self, program, what, codes, seconds, signals=1, pause=0.2):
        """Sends SIGTERM; the time from the last one until it ended must be short enough, and the exit code one of those. The next one is sent once the
        one before was heard: two that wait are one for the system."""
        heard = self.heard(program)
        for number in range(signals):
            if number:
                until(f"{self.name}: the signal is heard", lambda: self.heard(program) > heard, 10, step=0.005)
                time.sleep(pause)
            program.process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        try:
            code = program.process.wait(seconds + 20)
        except subprocess.TimeoutExpired:
            raise Fail(f"{self.name}: {what}: it does not end; the end of {program.log}:\n{tail(program.log)}") from None
        took = time.monotonic() - begin
        self.healed[what] = round(took, 2)
        if code not in codes or took > seconds:
            raise Fail(f"{self.name}: {what}: ended with {code} after {took:.1f} s; the end of {program.log}:\n{tail(program.log)}")

    def heard(self, program):
        return program.log.read_text(errors="replace").count("a second signal ends at once")

    def begun(self, program, **options):
        """Started, and reads."""
        program.begin(**options)

        def reads():
            program.expect_alive()
            return program.status() and metric(program, "cdc_sink_assigned_partitions")

        until(f"{self.name}: it reads", reads, 30)

    def finish(self):
        """The next start does what was left undone."""
        while self.sent < self.waves:
            self.wave()
        self.programs[0].begin()
        self.settle()

    # The courses.

    def busy(self):
        """Everything is buffered, and nothing is committed: that is done then. Told twice, it is left to the next start."""
        first = self.programs[0]
        self.wave()
        for signals in (2, 1):
            self.begun(first, **PATIENT | {"batch-rows": 100_000})
            until(f"{self.name}: it has read", lambda: metric(first, "cdc_sink_buffered_bytes") and all_read(first, self.ends), 30)
            if settled([first], self.ends):
                raise Fail(f"{self.name}: there was nothing to do")
            if signals == 2:
                self.told_to_end(first, "told twice", (130,), AT_ONCE, signals=2, pause=0)
            else:
                self.told_to_end(first, "told once", (0,), FREE)
        for place in self.places.values():
            stored = place.stored()
            wanted = {partition: end for (_, partition), end in self.ends.items()}
            if not stored or any(position != wanted for position in stored):
                raise Fail(f"{self.name}: {stored} was committed, not {wanted}")
        self.finish()

    def codes(self):
        """With a halted table 1, for wrong usage 2, where another deployment has the table 3."""
        first = self.programs[0]
        self.wave()
        first.begin()
        self.heal("nothing", first)
        rival = Program(self.target, "r", self.folder, first.topics, first.settings | {"group": f"{first.settings['group']}-rival"})
        self.programs.append(rival)
        rival.begin()
        self.ends_by_itself(rival, 3)
        first.stop()
        name = next(iter(self.tables))
        spoiled = f"{name}-spoiled"
        self.producer.produce(spoiled, b'{"schema": {"type": "str', b"{}")
        self.producer.flush(30)
        halting = Program(self.target, "h", self.folder, first.topics | {spoiled: f"{self.letters.namespace}.spoiled"},
                          first.settings | {"dead-letters": None})
        self.programs.append(halting)
        halting.begin()
        until(f"{self.name}: a table halts", lambda: any(table["state"] == "halted" for table in (halting.status() or {"tables": []})["tables"]), 30)
        self.told_to_end(halting, "a table has halted", (1,), FREE)
        self.usage()
        self.finish()

    def ends_by_itself(self, program, code):
        try:
            ended = program.process.wait(40)
        except subprocess.TimeoutExpired:
            program.end()
            ended = None
        if ended != code:
            raise Fail(f"{self.name}: ended with {ended}, not with {code}; the end of {program.log}:\n{tail(program.log)}")

    def usage(self):
        for what, (arguments, kafka, said) in USAGE.items():
            config = self.folder / "usage.toml"
            config.write_text(f'brokers = "127.0.0.1:1"\ngroup = "g"\nwarehouse = "/tmp/none"\nto = ["delta"]\n[kafka]\n{kafka}\n')
            done = subprocess.run([binary(), "run", "--config", config, *arguments], capture_output=True, text=True, timeout=20, check=False)
            if done.returncode != 2 or said not in done.stderr:
                raise Fail(f"{self.name}: {what}: ended with {done.returncode}: {done.stderr[-600:]}")

    def hanging(self):
        """The server neither answers nor refuses: told twice, and told once."""
        first = self.programs[0]
        for what, signals in (("told twice", 2), ("told once", 1)):
            self.begun(first)
            self.proxy.add("silence")
            self.wave()
            time.sleep(3)
            if signals == 2:
                self.told_to_end(first, what, (130,), AT_ONCE, signals=2, pause=2)
            else:
                self.told_to_end(first, what, (0, 1), WHOLE)
            self.proxy.heal()
        self.finish()

    def gone(self):
        """The server refuses connections: it is not waited for as long. Records are read by then, so there is something to lose."""
        first = self.programs[0]
        self.wave()
        first.begin()
        self.heal("nothing", first)
        self.proxy.add("down")
        self.wave()
        until(f"{self.name}: it says that it waits", lambda: waiting(first), 30)
        self.told_to_end(first, "told once", (1,), UNANSWERED)
        self.proxy.heal()
        self.finish()

    def unregistered(self):
        """What came before the record whose schema nobody gives is committed."""
        first, patient = self.programs[0], PATIENT | {"batch-rows": 100_000}
        self.begun(first, **patient)
        self.wave()
        before = dict(self.ends)
        until(f"{self.name}: it has read", lambda: metric(first, "cdc_sink_buffered_bytes") and all_read(first, before), 30)
        self.proxy.add("down")
        self.wave()
        until(f"{self.name}: it says that it waits", lambda: waiting(first), 30)
        self.told_to_end(first, "told once", (0,), FREE)
        self.proxy.heal()
        stored = next(iter(self.places.values())).stored()
        if stored != [{partition: end for (_, partition), end in before.items()}]:
            raise Fail(f"{self.name}: {stored} was committed, not {before}")
        self.finish()

    def brokers(self):
        """They hang, refuse, and come back meanwhile; and are not there at all when it starts."""
        first = self.programs[0]
        self.wave()
        for what, signals, codes, seconds in (("silence", 2, (130,), AT_ONCE), ("silence", 1, (0, 1), UNANSWERED), ("down", 1, (0, 1), UNANSWERED)):
            self.begun(first)
            self.proxy.add(what)
            time.sleep(3)
            self.told_to_end(first, f"{what}, told {'twice' if signals == 2 else 'once'}", codes, seconds, signals)
            self.proxy.heal()
        for what in ("silence", "down"):
            self.proxy.add(what)
            first.begin()
            until(f"{self.name}: it answers", first.status, 20)
            time.sleep(2)
            self.told_to_end(first, f"{what} at the start", (0,), FREE)
            self.proxy.heal()
        first.settings |= {"brokers": f"127.0.0.1:{free_port()}"}
        first.begin()
        until(f"{self.name}: it answers", first.status, 20)
        self.told_to_end(first, "nobody at the start", (0,), FREE)
        first.settings |= {"brokers": self.address}
        self.finish()

    def starting(self):
        """At any moment of the start; the very first ones belong to the system."""
        first = self.programs[0]
        self.wave()
        for after in (0, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6):
            first.begin()
            time.sleep(after)
            self.told_to_end(first, f"after {after} s", (0,) if first.status() else (0, TERM), FREE)
        self.finish()

    def rebalancing(self):
        """One joins, and the other one, or the one that joins, is told to end."""
        first, second = self.programs
        for program in self.programs:
            program.known_member = False
        self.wave()
        for after in (0.0, 0.3, 0.6, 1.0, 1.5):
            self.begun(first)
            second.begin()
            until(f"{self.name}: it answers", second.status, 20)
            time.sleep(after)
            self.told_to_end(first, f"{after} s after", (0,), UNANSWERED)
            self.told_to_end(second, f"{after} s after, the one that joined", (0,), UNANSWERED)
        self.finish()


def all_read(program, ends):
    """True once everything was received."""
    return metric(program, "cdc_sink_records_received_total") >= sum(ends.values())


CASES = [("hanging", "delta", "store", 3), ("hanging", "iceberg-rest", "catalog", 3), ("brokers", "delta", "kafka"), ("busy", "both"), ("codes",),
         ("gone", "iceberg-files", "store"), ("gone", "iceberg-rest", "catalog"), ("unregistered", "delta", "registry"), ("starting", "iceberg-rest"),
         ("rebalancing", "delta")]


def run(options):
    """Every case: its name, whether it passed, and what is wrong."""
    world = World.new()
    common = world.run, options.seed, world.folder
    print(f"{'':42}{'versions':>9}{'rows':>9}{'orphans':>9}{'MiB':>6}{'seconds':>8}           seconds until it ended", flush=True)
    return world.play(go, [(Signals, *common, *case) for case in CASES], PROCESSES, options.keep)[0]
