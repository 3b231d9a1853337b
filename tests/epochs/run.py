#!/usr/bin/env python3
"""Epochs: topics get more partitions while they are read, topics are deleted and made again, servers are rebuilt with logs that begin anew.

Real Debezium reads Postgres and MySQL, real Kafka has the topics, two cdc-sink processes keep Delta tables and one keeps Iceberg tables. At
each rest both are compared with SQL on the source, and at the end every version that was kept is read once more.
"""
import json
import os
import re
import signal
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import pyarrow as pa  # noqa: E402
from confluent_kafka.admin import NewPartitions  # noqa: E402
from deltalake import DeltaTable  # noqa: E402

import cleanup  # noqa: E402
import delta_rs  # noqa: E402
import py_metadata  # noqa: E402
from catalogs import WORK, Folders  # noqa: E402
from compare import differences  # noqa: E402
from connectors import Kafka, remove  # noqa: E402
from sinks import Instance, Target, behind  # noqa: E402
from stack import ENV, Fail, ended, lake, run_name, tail, until  # noqa: E402
from values import Field  # noqa: E402
from world import MySql, Postgres, Remade, SecondServers, Stream  # noqa: E402

STARTED = time.monotonic()
BATCHES = {"batch-age": "1500ms", "batch-idle": "400ms", "batch-rows": 60}
REMADE = ("fewer", "more")
# Places in two partitions that contradict Kafka's timestamps by more than this are of two logs.
RESET_SECONDS = 60


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


class Member(Instance):
    """A process whose tables can be given other names."""

    names = {}

    def assigned(self):
        """Whether its last start brought partitions."""
        return "partitions assigned" in self.log.read_text().rpartition("--- start")[2]

    def toml(self, known_member):
        sections = [f'\n[tables."{topic}"]\nname = {json.dumps(name)}\n' for topic, name in self.names.items()]
        return super().toml(known_member) + "".join(sections)


class Course:
    def __init__(self, run):
        self.run = run
        self.folder = WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka = Kafka()
        self.grown = [Stream(run, Postgres(run), "avro", 1), Stream(run, MySql(run), "json-schema", 1)]
        self.remade = Stream(run, Remade(run), "json-schema", 1, "1")
        self.streams = [*self.grown, self.remade]
        bucket = f"s3://{ENV['S3_BUCKET']}/{run}"
        self.targets = {name: Target(name, (name,), f"{bucket}/{name}", connectors=self.streams) for name in ("delta", "iceberg")}
        options = BATCHES | {"unconfirmed-rows": "delete"}
        self.members = [Member(self.targets[target], name, run, self.folder, options) for target, name in (("delta", "a"), ("delta", "b"), ("iceberg", "a"))]
        self.second = SecondServers(self.folder)
        self.ends, self.halted, self.before = {}, {}, {}
        self.kept, self.found, self.rows = [], [], 0

    def go(self):
        with ThreadPoolExecutor(1) as pool:
            servers = pool.submit(self.second.start, [stream.source.kind for stream in self.grown])
            self.begin()
            self.grow_while_read()
            self.make_topics_again()
            self.rest("grown to 5 partitions while read")
            self.grow_unread()
            self.rest("grown to 8 partitions unread")
            self.rebuild(servers.result())
            self.rest("servers rebuilt")
        for member in self.members:
            member.stop()
        self.read_again()

    def begin(self):
        for stream in self.streams:
            stream.fill()
            stream.register()
        self.arrive()
        for member in self.members:
            member.start(known_member=False)
        self.rest("initial snapshots")

    def change(self, streams, seconds):
        with ThreadPoolExecutor(len(streams)) as pool:
            for load in [pool.submit(stream.load.run, 0, seconds) for stream in streams]:
                load.result()

    def grow(self, count):
        topics = [stream.topic(table) for stream in self.grown for table in stream.source.tables if table.name != "again"]
        for future in self.kafka.admin.create_partitions([NewPartitions(topic, count) for topic in topics]).values():
            future.result()
        say(f"{len(topics)} topics have {count} partitions")

    def grow_while_read(self):
        """Two of three processes are killed and come back; one sees it by itself."""
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(self.change, self.streams, 10)
            time.sleep(2)
            self.grow(5)
            time.sleep(2)
            for member in self.members[:2]:
                member.kill()
            time.sleep(3)
            for member in self.members[:2]:
                member.start(known_member=False)
            load.result()

    def make_topics_again(self):
        """Two topics are deleted, and the connector takes its initial snapshot again; one process reads all the while, two are down."""
        for member in self.members[:2]:
            member.kill()
        remove(self.remade.prefix)
        self.remade.remake_rows()
        self.kafka.delete([self.remade.topic(table) for table in self.remade.source.tables if table.name in REMADE])
        self.remade.snapshot_again(REMADE)
        self.remade.register()
        self.arrive()
        for member in self.members[:2]:
            member.start(known_member=False)
        self.halted = {self.remade.topic(table): table for table in self.remade.source.tables if table.name in REMADE}

        def both_halted():
            return all(set(self.halted) <= set(self.reasons(name)) for name in self.targets)

        until("the tables of topics that were made again halt", both_halted, 60, step=0.2)
        for name in self.targets:
            for topic, reason in self.reasons(name).items():
                say(f"{name}: {topic} halted: {reason}")
                if topic not in self.halted or not re.search(rf"cannot read {re.escape(topic)}\[\d\] .*offset", reason):
                    self.found.append(f"{name}: {topic} halted with a reason that does not tell: {reason}")

    def reasons(self, target):
        """Why tables halted, by topic."""
        found = {}
        for member in self.members:
            if member.target.name == target:
                member.expect_alive()
                status = member.status()
                found |= {table["topic"]: table["reason"] for table in (status["tables"] if status else []) if table["state"] != "running"}
        return found

    def grow_unread(self):
        """Changes of the same rows wait in old and new partitions, and one of two processes goes on when the other has merged all of its own.
        Topics that were made again get new tables."""
        for member in self.members:
            member.kill()
        self.change(self.grown, 4)
        self.grow(8)
        self.change(self.streams, 4)
        self.arrive()
        namespace = self.remade.namespace()
        for member in self.members:
            member.names = {topic: f"{namespace}.{table.name}_anew" for topic, table in self.halted.items()}
            member.start(known_member=False)
        self.halted = {}
        until("both processes have partitions", lambda: all(member.assigned() for member in self.members[:2]), 30, step=0.02)
        late = self.members[1]
        late.process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        late.process.send_signal(signal.SIGCONT)

    def rebuild(self, urls):
        """Other servers with other rows take the databases' places, and the connectors take initial snapshots of them into the same topics."""
        time.sleep(max(0.0, self.changed_at + RESET_SECONDS + 1 - time.monotonic()))
        for stream in self.grown:
            remove(stream.prefix)
        for member in self.members[1:]:
            member.kill()
        for stream, kind in zip(self.grown, (Postgres, MySql)):
            self.before[stream] = {table.name: stream.source.rows(table, 0) for table in stream.source.tables}
            first, second = stream.source, kind(self.run, urls[stream.source.kind])
            place, lower = first.go_beyond(second)
            say(f"{first.kind}: the log was at {place}, that of the server in its place is at {lower}")
            stream.replace(second, 2)
            stream.register()
        self.arrive()
        self.change(self.streams, 5)
        for member in self.members[1:]:
            member.start(known_member=False)

    def arrive(self):
        wanted = {topic: count for stream in self.streams for topic, count in stream.records().items()}
        self.ends = self.kafka.wait_for(wanted, self.streams, 90)

    def rest(self, moment):
        """Everything is in the tables; what they have is compared, and their versions are kept."""
        self.changed_at = time.monotonic()
        self.arrive()
        for name, target in self.targets.items():
            self.settle(target, [member for member in self.members if member.target.name == name])
        places = [(stream, table, target) for stream in self.streams for table in stream.source.tables for target in self.targets.values()
                  if stream.topic(table) not in self.halted]
        kept = []
        for stream, table, target in places:
            expected = self.expected(stream, table)
            kept.append((f"{stream.source.kind} {table.name}, {target.name}, {moment}", target, table, expected, self.version(target, stream, table)))
        wrong = self.compare(kept)
        self.kept += kept
        say(f"{moment}: {len(self.ends)} partitions, {len(kept)} tables with {sum(k[3].num_rows for k in kept)} rows compared, {wrong} differences")

    def settle(self, target, members):
        waiting = {}

        def nothing_left():
            waiting.clear()
            waiting.update(behind(target, members, self.ends, self.halted))
            return not waiting

        try:
            until(f"{target.name}: every record in its table", nothing_left, 90, step=0.2)
        except Fail as error:
            logs = "\n".join(f"the end of {member.log}:\n{tail(member.log)}" for member in members)
            raise Fail(f"{error}\n{waiting}\n{logs}") from None

    def expected(self, stream, table):
        """What SQL returns. Where a topic has several partitions, rows that a rebuilt server never had stay."""
        rows = stream.source.rows(table, 0)
        before = self.before.get(stream, {}).get(table.name)
        if before is None or table.name == "again":
            return rows
        keys = zip(*(before[name].to_pylist() for name in table.key))
        stays = pa.array([key not in stream.load.lives[table.name] for key in keys], pa.bool_())
        return pa.concat_tables([rows, before.filter(stays)])

    def version(self, target, stream, table):
        name = self.members[0].names.get(stream.topic(table), f"{stream.namespace()}.{table.name}").split(".")
        if target.name == "delta":
            where = f"{target.warehouse}/{'/'.join(name)}"
            return {"delta": where}, {"version": DeltaTable(where, storage_options=delta_rs.storage_options(lake())).version()}
        snapshot, metadata = Folders(target.warehouse).table(*name)
        return {}, {"metadata": metadata, "version": snapshot}

    def compare(self, kept):
        """Reads what was kept; returns how many differences there are."""
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda one: self.compare_one(*one), kept))
        self.found += [text for found in results for text in found]
        return sum(map(len, results))

    def compare_one(self, what, target, table, expected, version):
        reader = (delta_rs if target.name == "delta" else py_metadata).Reader(lake())
        fields = [Field(column.name, column.kind, column.was) for column in table.at(0)]
        try:
            got = reader.read(*version)
            got = got.drop_columns([name for name in got.column_names if name == "_cdc_source"])
            found = differences(got, expected, table.key, fields)
        except Exception as error:  # The other tables shall be compared.
            found = [f"cannot read: {type(error).__name__}: {' '.join(str(error).split())[:400]}"]
        self.rows += expected.num_rows
        return [f"{what}: {text}" for text in found]

    def read_again(self):
        wrong = self.compare(self.kept)
        say(f"{len(self.kept)} earlier versions read again: {wrong} differences; {self.rows} rows compared in all")

    def end(self):
        for member in self.members:
            if member.alive():
                member.process.kill()
                member.process.wait()


def main():
    if missing := sorted({"BROKERS", "CONNECT", "S3", "REGISTRY", "POSTGRES", "MYSQL"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    run = run_name()
    course = Course(run)
    try:
        course.go()
        found = course.found
    except (Fail, Exception) as error:  # noqa: B014
        found = [*course.found, str(error) if isinstance(error, Fail) else traceback.format_exc()]
    finally:
        course.end()
        if "--keep" not in sys.argv:
            cleanup.everything(run)
        course.second.stop()
    return ended(run, found, say)


if __name__ == "__main__":
    sys.exit(main())
