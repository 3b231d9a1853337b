"""Answers are lost: nearly a third of all commits, or of all files written, is done and answered by an error, a reset or silence; a few are not done.

The process must go on by itself, with everything in the tables once. Then it is cut off from one server after another, see `cuts.py`.
"""
import time
import traceback
from dataclasses import dataclass, field

from cuts import TROUBLES, Cut
from kill_points import PROCESSES, TARGETS, Case, Kill, tables
from lossy import Lossy
from program import settled
from stack import ENV, Fail, until
from world import World, topic

SHARE = 0.3
SECONDS = 150
# Resident, beside the memory that it is given.
ALLOWANCE_MIB = 250
COMMIT = {"delta": r"PUT .*/_delta_log/\d{20}\.json$", "iceberg-files": r"PUT .*/metadata/v\d+\.metadata\.json$",
          "iceberg-rest": r"POST .*/namespaces/[^/]+/tables/[^/]+$", "both": r"PUT .*/(_delta_log/\d{20}\.json|metadata/v\d+\.metadata\.json)$"}
FILE = r"PUT .*\.(parquet|bin|puffin|avro)$"
NEVER = r"^$"


class Losing(Case):
    """A target behind proxies that lose answers of what `what` names."""

    def __init__(self, run, seed, folder, what, target):
        super().__init__(run, seed, folder, Kill(f"lost-{what}", (), options=(("batch-rows", 60),)), target)
        self.name = f"lost {what}, {target}"
        by_catalog = what == "commits" and self.rest
        chosen = COMMIT[target] if what == "commits" else FILE
        self.store = Lossy(ENV["S3"], NEVER if by_catalog else chosen, SHARE, f"{seed} {self.name}", silence=5)
        self.proxies, environment = [self.store], {"AWS_ENDPOINT_URL": self.store.url, "AWS_TIMEOUT": "3 seconds"}
        settings = {}
        if self.rest:
            catalog = Lossy(self.target.catalog, chosen if by_catalog else NEVER, SHARE, f"{seed} {self.name}", silence=5)
            self.proxies.append(catalog)
            settings = {"catalog": catalog.url}
        for program in self.programs:
            program.added |= environment
            program.settings |= settings
        self.resident = 0

    def go(self):
        try:
            super().go()
        finally:
            for proxy in self.proxies:
                proxy.stop()

    def run(self):
        first = self.programs[0]
        first.begin()

        def done():
            first.expect_alive()
            self.resident = max(self.resident, first.peak_mib())
            return settled([first], self.ends)

        try:
            until(f"{self.name}: every record in its table", done, SECONDS, step=0.1)
            first.stop()
        finally:
            # What is cleaned up later goes through them as well.
            for proxy in self.proxies:
                proxy.calm()
        self.check()

    def check(self):
        if sum(times for kind, times in self.told().items() if kind.startswith("done")) < 3:
            raise Fail(f"too little was lost to tell anything: {self.told()}")

    def told(self):
        return self.proxies[-1].lost or self.store.lost


@dataclass
class Result:
    name: str
    wrong: list
    versions: int
    rows: int
    orphans: int
    resident: int
    seconds: float
    told: dict = field(default_factory=dict)

    def line(self):
        told = ", ".join(f"{what} {number}" for what, number in self.told.items())
        return (f"{self.name:42}{self.versions:>9}{self.rows:>9}{self.orphans:>9}{self.resident:>6}{self.seconds:>8.1f}  "
                f"{'FAILED' if self.wrong else 'passed'}  {told}")


def go(make, *arguments):
    started = time.monotonic()
    case = make(*arguments)
    try:
        case.go()
        wrong = case.audit.wrong
    except Exception as error:  # noqa: BLE001
        wrong = [*case.audit.wrong, str(error) if isinstance(error, Fail) else traceback.format_exc()]
    if case.resident > 64 + ALLOWANCE_MIB:
        wrong = [*wrong, f"{case.resident} MiB are resident"]
    audit = case.audit
    return Result(case.name, wrong, audit.versions, audit.rows, audit.orphans, case.resident, time.monotonic() - started, dict(case.told()))


def run(options):
    """Every case: its name, whether it passed, and what is wrong."""
    world = World.new()
    targets = [target for target in TARGETS if not options.targets or target in options.targets]
    common = world.run, options.seed, world.folder
    cases = [(Cut, *common, server) for server in TROUBLES if not options.targets]
    cases += [(Losing, *common, what, target) for what in ("commits", "files") for target in targets]
    world.fill({topic(world.run, table.name): table for table in tables(options.seed)})
    print(f"{'':42}{'versions':>9}{'rows':>9}{'orphans':>9}{'MiB':>6}{'seconds':>8}           answers lost, or seconds until it recovered", flush=True)
    outcomes, results = world.play(go, cases, PROCESSES, options.keep)
    print(f"proxies: {sum(result.versions for result in results)} versions, {sum(result.rows for result in results)} rows compared, "
          f"{sum(result.orphans for result in results)} orphaned files")
    return outcomes
