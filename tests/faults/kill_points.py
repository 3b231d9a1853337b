"""Kill points: the process kills itself at a named point of its code, by SIGKILL, and is started again. `src/failpoint.rs` says what each is."""
import subprocess
import time
import traceback
from dataclasses import dataclass
from functools import cache

import history
from audit import Audit, Place
from catalogs import Catalog
from program import Group, Program, settled, wait_killed, wait_settled
from sinks import Target
from stack import ENV, Fail, binary, until
from world import World, make, send, sender, topic

TARGETS = {"delta": (("delta",), False), "iceberg-rest": (("iceberg",), True), "iceberg-files": (("iceberg",), False),
           "both": (("delta", "iceberg"), False)}
PROCESSES = 2
# Everything waits for its last batch to be full.
PATIENT = {"batch-age": "60s", "batch-idle": "60s"}


@dataclass(frozen=True)
class Kill:
    """How a point is met: the times that it is reached before it kills, in one start after another."""

    point: str
    hits: tuple
    course: str = "run"
    options: tuple = ()
    targets: tuple = tuple(TARGETS)

    def name(self):
        return f"{self.point}-{self.course}" if self.course in ("last", "static") else self.point

    def starts(self):
        return [f"{self.point}@{hit}" for hit in self.hits]


# Records of a wave, which is sent once the one before is in its table, and changes in all: Delta has a checkpoint after 50 commits; without a
# catalog there are old files of metadata after 100. With a catalog there are old snapshots after 500, which take too long.
WAVE = 4
LAST = 30
TRICKLE = {"delta": 170, "iceberg-files": 330, "both": 330}
KILLS = [
    Kill("K1", (7, 1)),
    Kill("K2", (4, 1)),
    Kill("K3", (5, 2), options=(("partition-by", "region"),)),
    Kill("K4", (4, 1)),
    Kill("K5", (3, 2)),
    Kill("K6", (1, 4, 1)),
    Kill("K6b", (1, 3), targets=("both",)),
    Kill("K6b", (1,), "last", targets=("both",)),
    Kill("K7", (3, 1)),
    Kill("K7", (1,), "last"),
    Kill("K8", (1, 1)),
    Kill("K9", (1, 1)),
    Kill("K10", (3, 2)),
    Kill("K10b", (1,), "trickle", targets=tuple(TRICKLE)),
    Kill("K11", (1,), "second"),
    Kill("K11", (1,), "static"),
    Kill("K12", (1, 1), "later"),
    Kill("K13", (1,), "stop"),
    Kill("K13b", (1,), "stop"),
    Kill("K14", (1,)),
    Kill("K14b", (1, 1)),
    Kill("K15", (1, 1)),
    Kill("K15b", (2, 1)),
]


@cache
def tables(seed):
    return history.tables(seed)


class Case:
    """A kill and a target, with a group and tables of its own; topics are the run's."""

    def __init__(self, run, seed, folder, kill, target):
        formats, catalog = TARGETS[target]
        self.kill, self.name = kill, f"{kill.name()} {target}"
        group = f"{run}-{kill.name()}-{target}".lower()
        namespace = group.replace("-", "_")
        self.target = Target(group, formats, f"s3://{ENV['S3_BUCKET']}/{run}/{group}", ENV["ICEBERG_REST"] if catalog else "")
        self.tables = self.fed_by(run, group, seed, target)
        self.ends = {(name, partition): end for name, table in self.tables.items() for partition, end in table.ends().items()}
        named = {name: f"{namespace}.{table.name}" for name, table in self.tables.items()}
        self.rest = Catalog(self.target.catalog) if catalog else None
        self.places = {name: Place(self.target, table, name, self.rest) for name, table in named.items()}
        self.letters = Place(self.target, f"{namespace}.letters", "(dead letters)", self.rest)
        settings = {"group": group, "dead-letters": f"table:{self.letters.name}", **dict(kill.options)}
        self.programs = [Program(self.target, name, folder, named, settings) for name in "ab"]
        self.group = Group(group, self.ends)
        self.audit, self.killed, self.orphans = Audit(), [], 0

    def fed_by(self, run, group, seed, target):
        """The tables by topic."""
        if changes := {"trickle": TRICKLE.get(target), "last": LAST}.get(self.kill.course):
            return {topic(group, "trickle"): history.trickle(seed, changes)}
        return {topic(run, table.name): table for table in tables(seed)}

    def go(self):
        try:
            getattr(self, self.kill.course)()
            for program in self.programs:
                if program.alive():
                    program.stop()
        finally:
            for program in self.programs:
                program.end()
        self.look()
        self.clean()
        for name, table in self.tables.items():
            self.audit.table(self.places[name], table, by_turns=self.kill.course == "trickle")
        if poisoned := next(iter(self.tables.values())).poisoned():
            self.audit.letters(self.letters, poisoned)
        if self.audit.orphans:
            self.audit.wrong.append(f"{self.audit.orphans} orphans are left")
        self.audit.orphans = self.orphans

    def clean(self):
        """Removes what the kills left behind. The audit finds whether anything went with it that a version needs."""
        before = Audit()
        for place in (*self.places.values(), self.letters):
            before.left_over(*place.logs())
        self.orphans = before.orphans
        first = self.programs[0]
        command = [binary(), "maintain", "--config", first.config, "--orphans-older-than", "0s", "--break-tables-that-are-written"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=first.environment())
        if done.returncode:
            self.audit.wrong.append(f"maintain ended with exit code {done.returncode}: {done.stdout}{done.stderr[-600:]}")

    def look(self):
        """The process is dead: what Kafka was told must be in the tables."""
        self.audit.acknowledged(self.group.acknowledged(), self.places.values())

    def die(self, program):
        wait_killed(program)
        self.killed.append(program.point)
        self.look()

    def settle(self):
        wait_settled([program for program in self.programs if program.alive()], self.ends)

    def run(self):
        """Killed at the point, started and killed there again, and started without."""
        first = self.programs[0]
        for point in self.kill.starts():
            first.begin(point)
            self.die(first)
        first.begin()
        self.settle()

    def last(self):
        """Killed at a commit after which there is nothing more to read."""
        ((topic, table),) = self.tables.items()
        make(self.group.admin, self.tables)
        send(sender(), topic, table.records)
        self.run()

    def trickle(self):
        """Records come a few at a time, before it is killed and after it."""
        first, ((topic, table),) = self.programs[0], self.tables.items()
        make(self.group.admin, self.tables)
        producer, killed = sender(), False
        first.begin(*self.kill.starts(), **{"batch-idle": "1ms"})
        for at in range(0, len(table.records), WAVE):
            send(producer, topic, table.records[at:at + WAVE])
            sent = {(topic, 0): min(at + WAVE, len(table.records))}
            until(f"{self.name}: a wave", lambda: settled([first], sent) or first.was_killed(), 20, step=0.01)
            if not killed and first.was_killed():
                killed = True
                self.die(first)
                first.begin(**{"batch-idle": "1ms"})
        if not killed:
            raise Fail(f"{self.name} was never reached")
        self.settle()

    def later(self):
        """The table has something when a start is killed."""
        first = self.programs[0]
        first.begin(**PATIENT)
        until(f"{self.name}: a first commit", lambda: self.progress(first), 30, step=0.02)
        first.kill()
        self.run()

    def progress(self, program):
        program.expect_alive()
        status = program.status()
        return status and any(partition["position"] for table in status["tables"] for partition in table["partitions"])

    def second(self):
        """A second instance joins the group while the first one has records that are not committed."""
        first, second = self.programs
        for program in self.programs:
            program.known_member = False
        first.begin(*self.kill.starts(), **PATIENT)
        until(f"{self.name}: a first commit", lambda: self.progress(first), 30, step=0.02)
        second.begin()
        self.die(first)
        first.begin()
        self.settle()

    def static(self):
        """The same under names that the group keeps partitions for: the first one is killed while it gives some back, and there again at once."""
        first, second = self.programs
        first.begin(*self.kill.starts(), **PATIENT)
        until(f"{self.name}: a first commit", lambda: self.progress(first), 30, step=0.02)
        second.begin()
        self.die(first)
        first.begin()
        # A session, and one look for new partitions and a bit more.
        wait_settled(self.programs, self.ends, 6 + 60)

    def stop(self):
        """The process is told to stop while it has records that are not committed."""
        first = self.programs[0]
        first.begin(*self.kill.starts(), **PATIENT)
        until(f"{self.name}: a first commit", lambda: self.progress(first), 30, step=0.02)
        first.process.terminate()
        self.die(first)
        first.begin()
        self.settle()


def go(run, seed, folder, kill, target):
    """One case, in a process of its own."""
    started = time.monotonic()
    case = Case(run, seed, folder, kill, target)
    try:
        case.go()
        wrong = case.audit.wrong
    except Exception as error:  # noqa: BLE001
        wrong = [*case.audit.wrong, str(error) if isinstance(error, Fail) else traceback.format_exc()]
    return Result(case.name, wrong, case.killed, case.audit.versions, case.audit.rows, case.audit.orphans, time.monotonic() - started)


@dataclass
class Result:
    name: str
    wrong: list
    killed: list
    versions: int
    rows: int
    orphans: int
    seconds: float

    def line(self):
        point, target = self.name.split()
        return (f"{point:11}{target:15}{' '.join(self.killed):22}{self.versions:>9}{self.rows:>9}{self.orphans:>9}{self.seconds:>8.1f}  "
                f"{'FAILED' if self.wrong else 'passed'}")


def cases(options):
    """The kills and targets that are asked for, those that take longest first."""
    wanted = [(kill, target) for kill in KILLS for target in kill.targets
              if (not options.points or kill.point in options.points) and (not options.targets or target in options.targets)]
    return sorted(wanted, key=lambda case: (case[0].course != "trickle", case[1] != "both"))


def run(options):
    """Every case: its name, whether it passed, and what is wrong."""
    world = World.new()
    shared = {topic(world.run, table.name): table for table in tables(options.seed)}
    world.fill(shared)
    print(f"{world.run}: {sum(len(table.records) for table in shared.values())} records in {len(shared)} topics")
    print(f"{'point':11}{'target':15}{'killed at':22}{'versions':>9}{'rows':>9}{'orphans':>9}{'seconds':>8}", flush=True)
    asked = [(world.run, options.seed, world.folder, *case) for case in cases(options)]
    outcomes, results = world.play(go, asked, PROCESSES, options.keep)
    print(f"kill points: {sum(len(result.killed) for result in results)} SIGKILLs, {sum(result.versions for result in results)} versions, "
          f"{sum(result.rows for result in results)} rows compared, {sum(result.orphans for result in results)} orphaned files")
    return outcomes
