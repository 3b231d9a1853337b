#!/usr/bin/env python3
"""Routes: records that transformations of real Debezium made, from real Postgres into Delta and Iceberg, against what SQL says.

Rows that move between the leaves of partitioned tables, the leaves brought into one topic by routers; events of an outbox, routed as text,
with a schema and as they are, and its own table; flattened rows in each way that a delete can come; names with dots. Halfway the processes are killed,
then a connector loses its slot and takes its initial snapshot again, and at the end every routed event comes once more, as after a crash of the connector.
"""
import os
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import pyarrow as pa  # noqa: E402
from confluent_kafka import Consumer, Producer, TopicPartition  # noqa: E402
from deltalake import DeltaTable  # noqa: E402

import cleanup  # noqa: E402
import delta_rs  # noqa: E402
import py_metadata  # noqa: E402
from catalogs import WORK, Folders  # noqa: E402
from compare import differences  # noqa: E402
from connectors import Connector, Kafka, remove  # noqa: E402
from routes import ROUTES  # noqa: E402
from sinks import Instance, Target, behind  # noqa: E402
from source import Postgres  # noqa: E402
from stack import ENV, Fail, ended, lake, run_name, tail, until  # noqa: E402
from values import from_python  # noqa: E402

STARTED = time.monotonic()
BATCHES = {"batch-age": "1500ms", "batch-idle": "400ms"}


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


class Way(Connector):
    """The connector of one or more routes, which differ in their tables only."""

    def __init__(self, run, source, routes):
        super().__init__(run, source, routes[0].encoding, partitions=2)
        self.routes = routes
        self.prefix = f"{run}{source.short}{routes[0].suffix}"

    def named(self, text):
        return text.replace("{p}", self.prefix).replace("{run}", self.run).replace("{s}", self.run)

    def body(self):
        body = super().body()
        config = body["config"]
        tables = ",".join(rf"{self.run}\.{route.tables}" for route in self.routes)
        config |= {"table.include.list": tables, "tombstones.on.delete": "true"}
        config |= {key: self.named(value) for key, value in self.routes[0].config.items()}
        return body


class Course:
    def __init__(self, run):
        self.run = run
        self.folder = WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka, self.source = Kafka(), Postgres(run)
        suffixes = sorted({route.suffix for route in ROUTES})
        self.connectors = [Way(run, self.source, [route for route in ROUTES if route.suffix == suffix]) for suffix in suffixes]
        self.places = [(connector, route, connector.named(route.topic)) for connector in self.connectors for route in connector.routes]
        self.ends = {}
        bucket = f"s3://{ENV['S3_BUCKET']}/{run}"
        self.targets = [Target("delta", ("delta",), f"{bucket}/delta"), Target("iceberg", ("iceberg",), f"{bucket}/iceberg")]
        outbox = [topic for _, route, topic in self.places if route.events]
        options = BATCHES | {"outbox": outbox, "outbox-headers": ["eventType"], "unconfirmed-rows": "delete"}
        self.instances = []
        for target in self.targets:
            target.connectors = self.connectors
            self.instances.append(Instance(target, "a", run, self.folder, options))

    def go(self):
        try:
            self.source.create()
            self.source.fill()
            self.source.count()
            for connector in self.connectors:
                connector.register()
            self.arrive()
            for instance in self.instances:
                instance.start(known_member=True)
            self.settle()
            say(f"{self.run}: the initial snapshots of {len(self.places)} topics are in their tables")
            for _ in range(2):
                self.source.change(60)
                for instance in self.instances:
                    instance.kill()
                    instance.start(known_member=True)
            self.arrive()
            self.settle()
            found = self.compare("changed")
            self.take_again()
            self.arrive()
            self.settle()
            found += self.compare("a snapshot again")
            self.send_again()
            self.settle()
            found += self.compare("events again")
            for instance in self.instances:
                instance.stop()
            return found
        finally:
            for instance in self.instances:
                if instance.alive():
                    instance.process.kill()
                    instance.process.wait()

    def take_again(self):
        """The slot of a connector is lost, rows are deleted, and it takes its initial snapshot again."""
        connector = next(connector for connector, _, topic in self.places if topic.endswith(".again"))
        slot = connector.body()["config"]["slot.name"]
        remove(connector.prefix)
        with self.source.cursor() as cursor:
            until(f"slot {slot} is free", lambda: cursor.execute(
                "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s", [slot]).fetchone()[0], 30)
        gone = self.source.lose(slot)
        connector.register()
        for instance in self.instances:
            instance.kill()
            instance.start(known_member=True)
        say(f"slot {slot} lost, {gone} rows deleted at once and others before; the initial snapshot is taken again")

    def arrive(self):
        wanted = {topic: self.source.records(*route.counted) for _, route, topic in self.places}
        self.ends = self.kafka.wait_for(wanted, self.connectors, 90)

    def settle(self):
        for target, instance in zip(self.targets, self.instances):
            waiting = {}

            def nothing_left():
                waiting.clear()
                waiting.update(behind(target, [instance], self.ends))
                return not waiting

            try:
                until(f"{target.name}: every record in its table", nothing_left, 90, step=0.2)
            except Fail as error:
                raise Fail(f"{error}\n{waiting}\nthe end of {instance.log}:\n{tail(instance.log)}") from None

    def send_again(self):
        """Every routed event once more, to the partition where it is."""
        producer = Producer({"bootstrap.servers": ENV["BROKERS"]})
        topics = {topic for _, route, topic in self.places if route.events and "event_id" in route.key}
        sent = 0
        for (topic, partition), end in self.ends.items():
            if topic in topics and end:
                consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": "routes-observer", "enable.auto.commit": False})
                consumer.assign([TopicPartition(topic, partition, 0)])
                for _ in range(end):
                    record = consumer.poll(15)
                    producer.produce(topic, record.value(), record.key(), partition, headers=record.headers())
                    sent += 1
                consumer.close()
        producer.flush(30)
        self.ends = self.kafka.ends([topic for _, _, topic in self.places])
        say(f"{sent} events sent again")

    def expected(self, connector, route):
        with self.source.cursor() as cursor:
            cursor.execute(connector.named(route.select))
            names, rows = [column.name for column in cursor.description], cursor.fetchall()
        kinds = {field.name: field.kind for field in route.fields}
        columns = zip(names, zip(*rows) if rows else ([] for _ in names))
        return pa.table({name: from_python(kinds[name], values) for name, values in columns})

    def compare(self, moment):
        """What differs, by reader and route."""
        found = []
        for connector, route, topic in self.places:
            expected = self.expected(connector, route)
            for target, instance in zip(self.targets, self.instances):
                what = f"{route.name} ({connector.encoding}), {target.name}, {moment}"
                try:
                    name = next(table["table"] for table in instance.status()["tables"] if table["topic"] == topic)
                    got = self.read(target, *name.split("."))
                    wrong = differences(got, expected, route.key, route.fields)
                    if route.named and name != connector.named(route.named):
                        wrong.append(f"the table is {name}")
                except Exception as error:  # The other routes shall be compared.
                    wrong = [f"cannot read: {type(error).__name__}: {' '.join(str(error).split())[:400]}"]
                say(f"{what}: {expected.num_rows} rows of {name}, {len(wrong)} differences")
                found += [f"{what}: {text}" for text in wrong]
        return found

    def read(self, target, namespace, name):
        if target.name == "delta":
            where = f"{target.warehouse}/{namespace}/{name}"
            version = DeltaTable(where, storage_options=delta_rs.storage_options(lake())).version()
            return delta_rs.Reader(lake()).read({"delta": where}, {"version": version})
        snapshot, metadata = Folders(target.warehouse).table(namespace, name)
        return py_metadata.Reader(lake()).read({}, {"metadata": metadata, "version": snapshot})


def main():
    if missing := sorted({"BROKERS", "CONNECT", "S3", "REGISTRY", "POSTGRES"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    run = run_name()
    try:
        found = Course(run).go()
    except (Fail, Exception) as error:  # noqa: B014
        found = [str(error) if isinstance(error, Fail) else traceback.format_exc()]
    finally:
        if "--keep" not in sys.argv:
            cleanup.everything(run)
    return ended(run, found, say)


if __name__ == "__main__":
    sys.exit(main())
