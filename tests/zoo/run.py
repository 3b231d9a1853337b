#!/usr/bin/env python3
"""The type zoo: every type of real Postgres, MySQL and MariaDB through real Debezium into Delta and Iceberg, read by other engines.

Each table has a row for each value of each column, in the initial snapshot, inserted, updated and deleted while streaming. At two versions,
after the initial snapshot and at the end, every cell that a reader returns must be what SQL on the source returns, or what is
said beside the value in `postgres.py` and `mysql.py`, with the reason: a dead letter, or something that the connector wrote in its place.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import pyarrow as pa  # noqa: E402
from deltalake import DeltaTable  # noqa: E402

import cleanup  # noqa: E402
from capture import capture  # noqa: E402
from catalogs import WORK, Catalog, Server  # noqa: E402
from connectors import ENCODINGS, Connector, Kafka  # noqa: E402
from delta_rs import storage_options  # noqa: E402
from expect import expected  # noqa: E402
from letters import dead_letters  # noqa: E402
from model import OPTIONS, Context  # noqa: E402
from matrix import Report  # noqa: E402
from sinks import Instance, Target  # noqa: E402
from source import SOURCES, VARIANTS  # noqa: E402
from stack import ENV, Fail, binary, lake, run_name, tail, until  # noqa: E402

TARGETS = ("delta", "iceberg-v3", "both")
READERS = {"delta": ("delta_rs", "duck_delta"), "iceberg": ("py_iceberg", "duck_iceberg")}
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    listed = {"type": lambda text: text.split(",") if text else [], "metavar": "A,B"}
    parser.add_argument("--databases", default=list(SOURCES), help=", ".join(SOURCES), **listed)
    parser.add_argument("--encodings", default=list(ENCODINGS), help=", ".join(ENCODINGS), **listed)
    parser.add_argument("--variants", default=None, help="sets of connector options by number; default all", **listed)
    parser.add_argument("--targets", default=list(TARGETS), help=", ".join(TARGETS), **listed)
    parser.add_argument("--capture", type=Path, metavar="DIR", help="write the records there, as fixtures")
    parser.add_argument("--keep", action="store_true", help="leave tables, topics and objects where they are")
    parser.add_argument("--losses", action="store_true", help="print every expected dead letter and loss")
    options = parser.parse_args()
    whole = parser.parse_args([])
    options.part = any(getattr(options, name) != getattr(whole, name) for name in ("databases", "encodings", "variants", "targets"))
    return options


class ZooConnector(Connector):
    """A connector in one encoding, or with other options."""

    def __init__(self, run, source, encoding, variant=""):
        super().__init__(run, source, encoding, partitions=1)
        self.variant = variant
        self.prefix += variant
        self.options = VARIANTS[source.kind][variant] if variant else {}

    def context(self, target=""):
        return Context(self.source.kind, self.encoding, self.options, target)

    def label(self):
        return " ".join(f"{name}={mode}" for name, mode in self.options.items()) or self.encoding

    def declared(self, table):
        return self.printed()["tables"][self.topic(table)]["types"]

    @cache
    def printed(self):
        """What the program prints of the source's types: all that is declared for JSON without a schema."""
        plan = partial(subprocess.run, capture_output=True, text=True, timeout=60, check=True)
        query = plan([binary(), "plan", "--types-query", "postgres" if self.source.kind == "postgres" else "mysql"]).stdout
        with self.source.cursor() as cursor:
            cursor.execute(query)
            rows = "\n".join(row for row, in cursor.fetchall())
        options = [f"--connector-option={OPTIONS[name]}={mode}" for name, mode in self.options.items()]
        topics = f"^{re.escape(self.prefix)}\\.{re.escape(self.run)}\\."
        return tomllib.loads(plan([binary(), "plan", "--types-from", "-", "--topic-prefix", self.prefix, "--topics", topics, *options], input=rows).stdout)

    def body(self):
        body = super().body()
        body["config"] |= {OPTIONS[name]: mode for name, mode in self.options.items()}
        return body


class Course:
    """One database: its connectors, and a process of cdc-sink for each target."""

    def __init__(self, run, kind, options, report):
        self.run, self.options, self.report = run, options, report
        self.folder = WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka = Kafka()
        self.source = SOURCES[kind](run)
        variants = VARIANTS[kind] if options.variants is None else options.variants
        self.connectors = [ZooConnector(run, self.source, encoding) for encoding in options.encodings]
        self.connectors += [ZooConnector(run, self.source, "json-schema", variant) for variant in variants]
        self.targets, self.instances, self.servers = [], {}, []
        self.counts, self.ends, self.halted = {}, {}, {}
        self.expected, self.versions, self.letters = {}, {}, {}

    def go(self):
        try:
            self.source.create()
            self.count(self.source.fill())
            for connector in self.connectors:
                connector.register()
            self.arrive()
            self.start()
            self.phase(0)
            self.count(self.source.change())
            self.phase(1)
            for instance in self.instances.values():
                instance.stop()
        finally:
            self.stop()
        self.letters = {target.name: dead_letters(self.dead_topic(target)) for target in self.targets if self.dead_topic(target) in self.kafka.topics()}
        if self.options.capture:
            capture(self.options.capture, self.source.kind, self.connectors, self.ends)
        self.plan()
        self.judge()

    def plan(self):
        """What the program says that it makes of one connector's tables, from their records alone."""
        target, connector = self.targets[-1], next((each for each in self.connectors if each.encoding == "json-schema"), self.connectors[0])
        instance = self.instances[target.name]
        command = [binary(), "plan", "--config", instance.config, "--topics", f"^{connector.prefix}\\.{self.run}\\..*$"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=instance.environment() | {"CDC_SINK_LOG": "warn"})
        if ended.returncode:
            raise Fail(f"plan ended with exit code {ended.returncode}: {ended.stderr[-800:]}")
        self.report.plans.append(f"{self.source.kind}, {connector.label()}, {target.name}:\n{ended.stdout}")

    def count(self, made):
        for connector in self.connectors:
            for table in self.source.tables:
                topic = connector.topic(table)
                self.counts[topic] = self.counts.get(topic, 0) + made[table.name]

    def dead_topic(self, target):
        return f"{self.run}-dead-{target.name}"

    def start(self):
        bucket = f"s3://{ENV['S3_BUCKET']}/{self.run}"
        for name in self.options.targets:
            formats = {"delta": ("delta",), "iceberg-v3": ("iceberg",), "both": ("delta", "iceberg")}[name]
            catalog = ""
            if "iceberg" in formats:
                self.servers.append(Server(name, f"{bucket}/{name}", self.folder))
                catalog = self.servers[-1].url
            target = Target(name, formats, f"{bucket}/{name}", catalog, readers=sum((READERS[each] for each in formats), ()), connectors=self.connectors)
            self.targets.append(target)
        for server in self.servers:
            server.wait()
        for target in self.targets:
            options = {"dead-letters": self.dead_topic(target), "batch-age": "5s", "batch-idle": "1s"}
            self.instances[target.name] = Instance(target, "a", self.run, self.folder, options)
            self.instances[target.name].start(known_member=False)

    def arrive(self):
        self.ends = self.kafka.wait_for(self.counts, self.connectors, 120)

    def phase(self, phase):
        begin = time.monotonic()
        self.arrive()
        arrived = time.monotonic()
        for target in self.targets:
            self.settle(target)
        self.keep(phase)
        say(f"{self.source.kind}, {('initial snapshot', 'end')[phase]}: {sum(self.counts.values())} records of {len(self.counts)} topics; "
            f"in Kafka after {arrived - begin:.1f} s, in all tables after {time.monotonic() - arrived:.1f} s more")

    def settle(self, target):
        """Waits until every partition is in its table, or its table halted."""
        instance, waiting = self.instances[target.name], {}

        def nothing_left():
            instance.expect_alive()
            status = instance.status()
            positions = {}
            for table in status["tables"] if status else []:
                if table["state"] != "running":
                    self.halted[target.name, table["topic"]] = table["reason"]
                for partition in table["partitions"]:
                    positions[table["topic"], partition["partition"]] = partition["position"] or 0
            waiting.clear()
            waiting.update({place: (positions.get(place), end) for place, end in self.ends.items()
                            if positions.get(place, -1) < end and (target.name, place[0]) not in self.halted})
            return not waiting

        try:
            until(f"{target.name}: every record in its table", nothing_left, 180, step=0.3)
        except Fail as error:
            left = "\n".join(f"{place[0]}: at {at}, the end is {end}" for place, (at, end) in sorted(waiting.items())[:20])
            raise Fail(f"{error}\n{left}\nthe end of {instance.log}:\n{tail(instance.log)}") from None

    def keep(self, phase):
        for target in self.targets:
            for connector in self.connectors:
                for table in self.source.tables:
                    place = target.name, connector.prefix, table.name
                    found = expected(self.source, table, connector.context(target.name), phase, self.expected.get((*place, 0)))
                    self.expected[(*place, phase)] = found
                    with pa.OSFile(str(self.arrow(place, phase)), "wb") as file, pa.ipc.new_file(file, found.rows.schema) as writer:
                        writer.write_table(found.rows)
                    with suppress(Exception):  # A table that is not there: its reader says so.
                        self.versions[(*place, phase)] = self.version(target, connector, table)

    def arrow(self, place, phase):
        return self.folder / f"{'.'.join(place)}.{phase}.arrow"

    def version(self, target, connector, table):
        found = {}
        if "delta" in target.formats:
            found["delta"] = DeltaTable(self.where(target, connector, table)["delta"], storage_options=storage_options(lake())).version()
        if "iceberg" in target.formats:
            found["iceberg"], _ = Catalog(target.catalog).table(connector.namespace(), table.name)
        return found

    def where(self, target, connector, table):
        return {"namespace": connector.namespace(), "table": table.name, "delta": f"{target.warehouse}/{connector.namespace()}/{table.name}"}

    def stop(self):
        for instance in self.instances.values():
            if instance.alive():
                instance.process.kill()
                instance.process.wait()

    def judge(self):
        jobs = [(target, reader) for target in self.targets for reader in target.readers]
        with ThreadPoolExecutor(2) as pool:
            for target, reader, results in pool.map(lambda job: (*job, self.read_with(*job)), jobs):
                self.report.read(self, target, reader, results)
        self.report.letters(self)

    def read_with(self, target, reader):
        format = "delta" if "delta" in reader else "iceberg"
        listed = []
        for connector in self.connectors:
            for table in self.source.tables:
                place = target.name, connector.prefix, table.name
                versions = [{"phase": phase, "version": self.versions.get((*place, phase), {}).get(format), "expected": str(self.arrow(place, phase))}
                            for phase in (0, 1)]
                listed.append({"topic": connector.topic(table), "name": table.name, "where": self.where(target, connector, table),
                               "columns": self.expected[(*place, 1)].kinds, "versions": versions})
        path = self.folder / f"read-{target.name}-{reader}.json"
        path.write_text(json.dumps({"lake": lake() | {"catalog": target.catalog}, "tables": listed}))
        ended = subprocess.run([sys.executable, "-B", HERE / "judge.py", reader, path], capture_output=True, text=True, timeout=1200)
        results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        if ended.returncode or len(results) != 2 * len(listed):
            raise Fail(f"{reader} ended with exit code {ended.returncode} after {len(results)} of {2 * len(listed)} versions: {ended.stderr[-800:]}")
        return results


def main():
    options = arguments()
    wanted = {"BROKERS", "CONNECT", "S3", "REGISTRY", *(name.upper() for name in options.databases)}
    if missing := sorted(wanted - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    if ENV.get("MYSQL_IS") == "mariadb" and "mysql" in options.databases:
        say("MySQL DOES NOT RUN: the zoo of MySQL is left out")
        options.databases.remove("mysql")
    report = Report(options)
    for kind in options.databases:
        run = run_name()
        say(f"{kind}: run {run}")
        course = Course(run, kind, options, report)
        try:
            course.go()
        except (Fail, Exception) as error:  # noqa: B014  the other databases shall run
            report.failed(kind, f"{error}" if isinstance(error, Fail) else traceback.format_exc())
        finally:
            for server in course.servers:
                server.stop()
            if options.keep:
                cleanup.connectors_and_sources(run)
                say(f"left as they are: s3://{ENV['S3_BUCKET']}/{run}, the topics {run}*, {course.folder}")
            else:
                cleanup.everything(run)
                for path in course.folder.glob("*.arrow"):
                    path.unlink()
    failed = report.show(time.monotonic() - STARTED)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
