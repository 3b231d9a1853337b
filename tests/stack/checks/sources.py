"""Proves the source side of the stack: one Debezium connector for each database that runs, and one in Avro.

Run by `stack check` with the readers' Python. Each connector must bring an insert, an update and a delete to Kafka. What it makes, it removes.
"""
import json
import os
import struct
import time
import urllib.error
import urllib.request
from io import BytesIO
from urllib.parse import urlparse

import fastavro
import psycopg
import pymysql
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

ENV = {key.removeprefix("CDC_SINK_TEST_"): value for key, value in os.environ.items() if key.startswith("CDC_SINK_TEST_")}
SECONDS = 60
JSON = {"converter": "org.apache.kafka.connect.json.JsonConverter", "converter.schemas.enable": "false"}


def avro():
    """The Confluent wire format, with the ids that the registry's Confluent API answers for."""
    prefix = "converter.apicurio.registry."
    return {
        "converter": "io.apicurio.registry.utils.converter.AvroConverter",
        prefix + "url": ENV["REGISTRY_NATIVE"],
        prefix + "auto-register": "true",
        prefix + "find-latest": "true",
        prefix + "headers.enabled": "false",
        prefix + "as-confluent": "true",
        prefix + "use-id": "contentId",
        prefix + "id-handler": "io.apicurio.registry.serde.Legacy4ByteIdHandler",
    }


def rest(method, path, body=None, base=None):
    request = urllib.request.Request((base or ENV["CONNECT"]) + path, method=method, data=body and json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def until(what, probe):
    """Waits for `probe()` to return something true. A 404 just after a connector was created is normal."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if found := probe():
                return found
        except urllib.error.HTTPError as error:
            if error.code not in (404, 409, 500):
                raise
        time.sleep(0.2)
    raise SystemExit(f"{what}: not within {SECONDS} s")


def execute(kind, statements):
    """Runs each statement in a transaction of its own."""
    if kind == "postgres":
        with psycopg.connect(ENV["POSTGRES"], autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)
        return
    url = urlparse(ENV[kind.upper()])
    with pymysql.connect(host=url.hostname, port=url.port, user=url.username, password=url.password, autocommit=True) as connection:
        for statement in statements:
            with connection.cursor() as cursor:
                cursor.execute(statement)


def source(kind, name):
    """The connector's own half of its configuration."""
    if kind == "postgres":
        url = urlparse(ENV["POSTGRES"])
        return {"connector.class": "io.debezium.connector.postgresql.PostgresConnector", "database.hostname": url.hostname,
                "database.port": url.port, "database.user": url.username, "database.password": "any", "database.dbname": "postgres",
                "plugin.name": "pgoutput", "slot.name": name, "publication.name": name, "publication.autocreate.mode": "filtered",
                "table.include.list": f"{name}.t"}
    url = urlparse(ENV[kind.upper()])
    classes = {"mysql": "mysql.MySqlConnector", "mariadb": "mariadb.MariaDbConnector"}
    return {"connector.class": f"io.debezium.connector.{classes[kind]}", "database.hostname": url.hostname, "database.port": url.port,
            "database.user": url.username, "database.password": url.password, "database.server.id": 9000 + sum(map(ord, name)) % 999,
            "table.include.list": f"{name}.t", "schema.history.internal.kafka.bootstrap.servers": ENV["BROKERS"],
            "schema.history.internal.kafka.topic": f"{name}.history", **({"database.ssl.mode": "disable"} if kind == "mariadb" else {})}


def operations(topic, decode, wanted):
    """The operations of the records of a topic, in order, until `wanted` are there."""
    consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": f"stack-check-{time.time()}", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    found = []
    end = time.monotonic() + SECONDS
    while len(found) < wanted and time.monotonic() < end:
        record = consumer.poll(0.5)
        if record and not record.error() and record.value():
            found.append(decode(record.value())["op"])
    consumer.close()
    return found


def decode_avro(value):
    magic, number = struct.unpack(">bI", value[:5])
    assert magic == 0, value[:5]
    schema = json.loads(rest("GET", f"/schemas/ids/{number}", base=ENV["REGISTRY"])["schema"])
    return fastavro.schemaless_reader(BytesIO(value[5:]), schema)


def check(kind, name, converter, decode):
    begin = time.monotonic()
    create, drop = ("SCHEMA", f"DROP SCHEMA IF EXISTS {name} CASCADE") if kind == "postgres" else ("DATABASE", f"DROP DATABASE IF EXISTS {name}")
    execute(kind, [drop, f"CREATE {create} {name}", f"CREATE TABLE {name}.t (id int PRIMARY KEY, v varchar(20))",
                   f"INSERT INTO {name}.t VALUES (1, 'a')"])
    config = {"tasks.max": 1, "topic.prefix": name, "poll.interval.ms": 100, **source(kind, name),
              **{f"{side}.{key}": value for side in ("key", "value") for key, value in converter.items()}}
    rest("POST", "/connectors", {"name": name, "config": {key: str(value) for key, value in config.items()}})
    try:
        def running():
            tasks = rest("GET", f"/connectors/{name}/status")["tasks"]
            if any(task["state"] == "FAILED" for task in tasks):
                raise SystemExit(f"{name}: {tasks[0]['trace'][:1500]}")
            return tasks and tasks[0]["state"] == "RUNNING"

        until(f"{name}: connector running", running)
        # The changes must come after the initial snapshot, or it would swallow them.
        first = operations(f"{name}.{name}.t", decode, 1)
        assert first == ["r"], f"{name}: expected the row of the initial snapshot, got {first}"
        execute(kind, [f"INSERT INTO {name}.t VALUES (2, 'b')", f"UPDATE {name}.t SET v = 'c' WHERE id = 1", f"DELETE FROM {name}.t WHERE id = 2"])
        seen = operations(f"{name}.{name}.t", decode, 4)
        assert seen == ["r", "c", "u", "d"], f"{name}: expected r c u d, got {seen}"
    finally:
        remove(kind, name, drop)
    print(f"{kind} ({name}): r c u d arrived, {time.monotonic() - begin:.1f} s", flush=True)


def remove(kind, name, drop):
    """Offsets go before the connector: a new one of the same name would go on from them and take no initial snapshot."""
    rest("PUT", f"/connectors/{name}/stop")
    until(f"{name}: stopped", lambda: rest("GET", f"/connectors/{name}/status")["connector"]["state"] == "STOPPED")
    rest("DELETE", f"/connectors/{name}/offsets")
    rest("DELETE", f"/connectors/{name}")
    if kind == "postgres":
        execute(kind, [f"SELECT pg_drop_replication_slot('{name}')", f"DROP PUBLICATION IF EXISTS {name}"])
    execute(kind, [drop])
    admin = AdminClient({"bootstrap.servers": ENV["BROKERS"]})
    topics = [topic for topic in admin.list_topics(timeout=10).topics if topic == name or topic.startswith(f"{name}.")]
    for future in admin.delete_topics(topics).values() if topics else []:
        future.result()
    subjects = rest("GET", "/subjects", base=ENV["REGISTRY"]) if "REGISTRY" in ENV else []
    for subject in subjects:
        if subject.startswith(f"{name}."):
            rest("DELETE", f"/subjects/{subject}", base=ENV["REGISTRY"])


def main():
    run = f"check{int(time.time())}"
    kinds = [kind for kind in ("postgres", "mysql", "mariadb") if kind.upper() in ENV and not (kind == "mysql" and ENV["MYSQL_IS"] != "mysql")]
    for kind in kinds:
        check(kind, f"{run}{kind}", JSON, json.loads)
    if "REGISTRY" in ENV and "postgres" in kinds:
        check("postgres", f"{run}avro", avro(), decode_avro)


if __name__ == "__main__":
    main()
