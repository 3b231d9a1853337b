#!/usr/bin/env python3
"""End to end: real databases, Debezium and Kafka in; tables on an object store out; every row compared, at the end and at ten earlier versions.

A run fills tables in each database, lets Debezium take its initial snapshot in three encodings, starts one cdc-sink for each target and
then goes through phases. In each, random transactions change the source while the processes are killed with SIGKILL and started again;
then everything settles, and what SQL on the source returns is kept with the version that each table of each target has. At the end every
reader reads every table at every such version, and each row and column must be the source's.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "readers"))

import pyarrow as pa  # noqa: E402
from deltalake import DeltaTable  # noqa: E402

import cleanup  # noqa: E402
import selftest  # noqa: E402
from catalogs import WORK, Catalog, Folders, Server  # noqa: E402
from connectors import ENCODINGS, Connector, Kafka  # noqa: E402
from delta_rs import storage_options  # noqa: E402
from report import Report  # noqa: E402
from sinks import Instance, Target, behind  # noqa: E402
from sources import SOURCES  # noqa: E402
from stack import ENV, Fail, lake, run_name, tail, until  # noqa: E402
from workload import Workload  # noqa: E402

TARGETS = ("delta", "iceberg-v3", "iceberg-v2", "both", "nessie", "no-catalog")
# A few tables show what differs: credentials from the catalog, which keeps no history; no catalog at all.
SMALL = ("nessie", "no-catalog")
PARTITIONS = {"json": 3, "json-schema": 1, "avro": 2}
# Small batches, so that a kill often meets a commit.
BATCHES = {"batch-age": "1500ms", "batch-idle": "400ms"}
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = {"type": lambda text: text.split(",") if text else [], "metavar": "A,B"}
    parser.add_argument("--databases", default=["postgres", "mysql", "mariadb"], help="postgres, mysql, mariadb", **listed)
    parser.add_argument("--encodings", default=list(ENCODINGS), help="json, json-schema, avro", **listed)
    parser.add_argument("--targets", default=list(TARGETS), help=", ".join(TARGETS), **listed)
    parser.add_argument("--phases", type=int, default=10, help="the versions compared, beside that of the initial snapshot")
    parser.add_argument("--seconds", type=float, default=7, help="of changes in each phase")
    parser.add_argument("--kills", type=int, default=12, help="SIGKILLs for each target while changes are made")
    parser.add_argument("--together", action="store_true", help="a second instance joins in every phase, not in every third")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--spark", action="store_true", help="Spark reads too, where it is installed: the end and two earlier versions")
    parser.add_argument("--keep", action="store_true", help="leave tables, topics and objects where they are")
    parser.add_argument("--clean", action="store_true", help="remove what earlier runs left, and do nothing else")
    return parser.parse_args()


class Course:
    """One run."""

    def __init__(self, options, run):
        self.options, self.run = options, run
        self.folder = WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka = Kafka()
        self.sources = [SOURCES[kind](run) for kind in options.databases]
        self.loads = {source.kind: Workload(source, options.seed) for source in self.sources}
        self.connectors = [Connector(run, source, encoding, PARTITIONS[encoding])
                           for source in self.sources for encoding in self.encodings(source)]
        self.servers, self.targets, self.instances = [], [], {}
        self.expected, self.versions = {}, {}
        self.report = Report(options)
        self.ends = {}

    def encodings(self, source):
        """MariaDB's connector differs from MySQL's in types only, which one encoding shows."""
        return [encoding for encoding in self.options.encodings if source.kind != "mariadb" or encoding == "json-schema" or "mysql" not in self.options.databases]

    def go(self):
        try:
            self.fill()
            self.start_targets()
            for phase in range(self.options.phases + 1):
                self.phase(phase)
            self.end()
        finally:
            self.stop()
        self.read()

    def fill(self):
        for source in self.sources:
            source.create()
            self.loads[source.kind].fill()
        for connector in self.connectors:
            connector.register()
        self.arrive()
        say(f"{self.run}: {len(self.ends)} partitions of {len(self.wanted())} topics hold the initial snapshots")

    def wanted(self):
        return {connector.topic(table): self.loads[connector.source.kind].records[table.name]
                for connector in self.connectors for table in connector.source.tables}

    def arrive(self):
        self.ends = self.kafka.wait_for(self.wanted(), self.connectors, 90)

    def start_targets(self):
        bucket = f"s3://{ENV['S3_BUCKET']}/{self.run}"
        delta, iceberg, from_files = ("delta_rs", "duck_delta"), ("py_iceberg", "duck_iceberg"), ("py_metadata", "duck_metadata")
        made = {
            "delta": lambda: Target("delta", ("delta",), f"{bucket}/delta", readers=delta),
            "iceberg-v3": lambda: Target("iceberg-v3", ("iceberg",), f"{bucket}/iceberg-v3", ENV["ICEBERG_REST"], readers=iceberg),
            "iceberg-v2": lambda: Target("iceberg-v2", ("iceberg",), f"{bucket}/iceberg-v2", self.catalog("iceberg-v2"), 2, drops=True,
                                         readers=iceberg),
            "both": lambda: Target("both", ("delta", "iceberg"), f"{bucket}/both", self.catalog("both"), drops=True, readers=delta + iceberg),
            "nessie": lambda: Target("nessie", ("iceberg",), f"s3://lake-nessie/{self.run}", ENV["NESSIE"], vended=True, readers=from_files),
            "no-catalog": lambda: Target("no-catalog", ("iceberg",), f"{bucket}/no-catalog", readers=from_files),
        }
        for name in self.options.targets:
            target = made[name]()
            target.connectors = self.connectors[:1] if name in SMALL else self.connectors
            self.targets.append(target)
        for server in self.servers:
            server.wait()
        for target in self.targets:
            self.instances[target.name] = [Instance(target, name, self.run, self.folder, BATCHES) for name in "ab"]
            self.instances[target.name][0].start(known_member=True)

    def catalog(self, name):
        self.servers.append(Server(name, f"s3://{ENV['S3_BUCKET']}/{self.run}/{name}", self.folder))
        return self.servers[-1].url

    def phase(self, phase):
        """Phase 0 is the initial snapshot."""
        begin = time.monotonic()
        changing = threading.Event()
        changing.set()
        with ThreadPoolExecutor(len(self.sources) + len(self.targets)) as pool:
            killers = [pool.submit(self.disturb, target, phase, changing) for target in self.targets]
            if phase:
                for load in [pool.submit(load.run, phase, self.options.seconds) for load in self.loads.values()]:
                    load.result()
                changing.clear()
            for killer in killers:
                killer.result()
        changed = time.monotonic()
        self.arrive()
        arrived = time.monotonic()
        self.settle()
        settled = time.monotonic()
        self.keep(phase)
        records = sum(self.wanted().values())
        say(f"phase {phase}: {records} records so far; changes and kills {changed - begin:.1f} s, in Kafka {arrived - changed:.1f} s, "
            f"in all tables {settled - arrived:.1f} s, versions kept {time.monotonic() - settled:.1f} s")

    def disturb(self, target, phase, changing):
        """Kills the target's processes at random moments and starts them again; in some phases a second one joins the group."""
        rng = Random(f"{self.options.seed} {target.name} {phase}")
        first, second = self.instances[target.name]
        count = self.kills(phase)
        if phase and (self.options.together or phase % 3 == 0) and target.name not in SMALL:
            second.start(known_member=rng.random() < 0.5)
        moments = sorted(rng.uniform(0.05, 0.95) * self.options.seconds for _ in range(count))
        begin = time.monotonic()
        for moment in moments:
            time.sleep(max(0.0, begin + moment - time.monotonic()))
            victim = rng.choice([first, second]) if second.alive() else first
            self.kill(target, victim, rng, while_changing=bool(phase) and changing.is_set())
        while phase and changing.is_set():
            time.sleep(0.05)
        if phase % 2 == 0:
            # While the last changes are merged.
            time.sleep(rng.uniform(0.1, 2.0))
            self.kill(target, first, rng, while_changing=False)
        if second.alive():
            if phase % 2:
                second.stop()
            else:
                second.kill()
                self.report.killed(target.name, while_changing=False)

    def kills(self, phase):
        """How often this phase: the given number, spread over the phases."""
        if not phase:
            return 1
        share = self.options.kills / self.options.phases
        return int(share * phase + 1e-9) - int(share * (phase - 1) + 1e-9)

    def kill(self, target, instance, rng, while_changing):
        instance.kill()
        self.report.killed(target.name, while_changing)
        time.sleep(rng.choice([0.0, rng.uniform(0.0, 0.8)]))
        instance.start(known_member=rng.random() < 0.6)

    def settle(self):
        """Waits until every target's tables hold every record."""
        for target in self.targets:
            instances = [instance for instance in self.instances[target.name] if instance.alive()]
            if not self.instances[target.name][0].alive():
                self.instances[target.name][0].expect_alive()
            ends = {(topic, partition): end for (topic, partition), end in self.ends.items()
                    if any(topic.startswith(f"{connector.prefix}.") for connector in target.connectors)}
            waiting = {}

            def nothing_left():
                waiting.clear()
                waiting.update(behind(target, instances, ends))
                return not waiting

            try:
                until(f"{target.name}: every record in its table", nothing_left, 120, step=0.2)
            except Fail as error:
                left = "\n".join(f"{place[0]}[{place[1]}]: at {at}, the end is {end}" for place, (at, end) in sorted(waiting.items()))
                logs = "\n".join(f"the end of {instance.log}:\n{tail(instance.log)}" for instance in instances)
                raise Fail(f"{error}\n{left}\n{said_of(waiting, instances)}\n{logs}") from None

    def keep(self, phase):
        """The source's rows and the tables' versions belong together."""
        for source in self.sources:
            for table in source.tables:
                path = self.folder / f"{source.kind}.{table.name}.{phase}.arrow"
                rows = source.rows(table, phase)
                with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                    writer.write_table(rows)
                self.expected[source.kind, table.name, phase] = str(path)
        places = [(target, connector, table) for target in self.targets for connector in target.connectors for table in connector.source.tables]
        with ThreadPoolExecutor(8) as pool:
            for place, versions in zip(places, pool.map(lambda place: self.version(*place), places)):
                self.versions[place[0].name, place[1].prefix, place[2].name, phase] = versions

    def version(self, target, connector, table):
        found = {}
        if "delta" in target.formats:
            where = self.where(target, connector, table)["delta"]
            found["delta"] = DeltaTable(where, storage_options=storage_options(lake())).version()
        if "iceberg" in target.formats:
            catalog = Catalog(target.catalog) if target.catalog else Folders(target.warehouse)
            found["iceberg"], found["metadata"] = catalog.table(connector.namespace(), table.name)
        return found

    def where(self, target, connector, table):
        return {"namespace": connector.namespace(), "table": table.name, "delta": f"{target.warehouse}/{connector.namespace()}/{table.name}"}

    def end(self):
        for instances in self.instances.values():
            for instance in instances:
                if instance.alive():
                    instance.stop()

    def stop(self):
        for instances in self.instances.values():
            for instance in instances:
                if instance.alive():
                    instance.process.kill()
                    instance.process.wait()

    def read(self):
        """Every reader of every target, two at a time."""
        jobs = [(target, reader) for target in self.targets for reader in target.readers]
        if self.options.spark:
            jobs += [(target, f"spark_{format}") for target in self.targets for format in target.formats if target.name not in SMALL]
        with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
            for target, reader, results in pool.map(lambda job: (*job, self.read_with(*job)), jobs):
                self.report.read(target.name, reader, results)
                say(f"{target.name} read by {reader}: {sum(result['rows'] for result in results)} rows of {len(results)} versions")

    def read_with(self, target, reader):
        """Spark has a Python of its own: it leaves files, which are then compared."""
        job = {"lake": lake() | {"catalog": target.catalog}, "tables": [
            self.job_of(target, reader, connector, table) for connector in target.connectors for table in connector.source.tables
            if not self.left_out(target, reader, table)]}
        path = self.folder / f"read-{target.name}-{reader}.json"
        path.write_text(json.dumps(job))
        readers = Path(__file__).parent.parent / "readers"
        errors = ""
        if reader.startswith("spark"):
            left = self.folder / f"read-{target.name}-{reader}"
            program = [ENV["SPARK_PYTHON"], "-B", readers / "spark.py", reader.removeprefix("spark_"), path, left]
            errors = subprocess.run(program, capture_output=True, text=True, timeout=1200).stderr
            for table in job["tables"]:
                for version in table["versions"]:
                    version["version"] = str(left / f"{table['name'].replace('/', '.')}.{version['phase']}")
            path.write_text(json.dumps(job))
        program = [sys.executable, "-B", readers / "compare.py", "files" if reader.startswith("spark") else reader, path]
        ended = subprocess.run(program, capture_output=True, text=True, timeout=1200)
        results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        wanted = sum(len(table["versions"]) for table in job["tables"])
        if ended.returncode or len(results) != wanted:
            results.append({"table": "*/*", "phase": -1, "version": None, "rows": 0, "seconds": 0, "differences": [
                f"the reader ended with exit code {ended.returncode} after {len(results)} of {wanted} versions: {ended.stderr[-600:]}"]})
        if any(result["differences"] for result in results):
            (self.folder / f"read-{target.name}-{reader}.log").write_text(errors + ended.stderr)
        return results

    def left_out(self, target, reader, table):
        """Spark refuses an Iceberg table that has a column of type time, deltalake a Delta table that has a widened column."""
        has_time = any(column.kind == "time" for column in table.columns)
        widened = any(column.was for column in table.columns)
        return (reader == "spark_iceberg" and "delta" not in target.formats and has_time) or (reader == "delta_rs" and widened)

    def job_of(self, target, reader, connector, table):
        kind = connector.source.kind
        phases = range(self.options.phases + 1)
        if reader.startswith("spark"):
            phases = sorted({0, self.options.phases // 2, self.options.phases})
        versions = []
        # Records without a schema do not tell of a dropped column; two phases after it went at the source it must be gone where they do.
        goes = target.drops and connector.encoding != "json"
        for phase in phases:
            found = self.versions[target.name, connector.prefix, table.name, phase]
            versions.append({"phase": phase, "version": found["delta" if "delta" in reader else "iceberg"], "metadata": found.get("metadata"),
                             "expected": self.expected[kind, table.name, phase], "dropped": table.dropped(phase, phase - 1 if goes else 0)})
        return {"name": f"{kind}/{connector.encoding}/{table.name}", "where": self.where(target, connector, table), "key": table.key,
                "columns": [(name, column.kind, column.was) for column in table.columns for name in column.names()], "versions": versions}


def said_of(waiting, instances):
    """What the instances say of the tables that wait, and of their source."""
    topics, said = {topic for topic, _ in waiting}, []
    for instance in instances:
        status = instance.status() or {}
        tables = [table for table in status.pop("tables", []) if table["topic"] in topics]
        said += [f"{instance.log.stem} says {json.dumps(status)}", *(f"  {json.dumps(table)}" for table in tables)]
    return "\n".join(said)


def needed(options):
    wanted = {"BROKERS", "CONNECT", "S3", *(name.upper() for name in options.databases)}
    wanted |= {"REGISTRY"} if "avro" in options.encodings else set()
    wanted |= {"ICEBERG_REST"} if set(options.targets) & {"iceberg-v3", "iceberg-v2", "both"} else set()
    wanted |= {"NESSIE"} if "nessie" in options.targets else set()
    wanted |= {"SPARK_PYTHON"} if options.spark else set()
    return sorted(wanted - ENV.keys())


def main():
    options = arguments()
    if missing := needed(options):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        print("0 passed, 1 failed")
        return 1
    if options.clean:
        for run in cleanup.earlier_runs():
            say(f"removing {run}")
            cleanup.everything(run)
            shutil.rmtree(WORK / run, ignore_errors=True)
        return 0
    if ENV.get("MYSQL_IS") == "mariadb" and "mysql" in options.databases:
        say("MySQL DOES NOT RUN: what is compared as MySQL's is MariaDB's")
    run = run_name()
    course = Course(options, run)
    failure = None
    try:
        selftest.check()
        course.go()
    except (Fail, Exception) as error:  # noqa: B014  the report comes whatever happened
        failure = f"{error}" if isinstance(error, Fail) else f"{type(error).__name__}: {error}"
        if not isinstance(error, Fail):
            traceback.print_exc()
    finally:
        for server in course.servers:
            server.stop()
    failed = course.report.show(run, course.folder, failure, time.monotonic() - STARTED)
    if options.keep or failed:
        cleanup.connectors_and_sources(run)
        say(f"left as they are: s3://{ENV['S3_BUCKET']}/{run}, the topics {run}*, {course.folder}; `run.py --clean` removes them")
    else:
        cleanup.everything(run)
        say(f"logs: {course.folder}")
    print(course.report.closing)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
