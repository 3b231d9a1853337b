"""The records of `history.py` in Avro, as Connect's converter writes them, with schemas in the registry."""
import dataclasses
import json
import re
import struct
from io import BytesIO
from urllib.parse import quote

import fastavro

from history import COLUMNS, LATER
from stack import ENV, http

KINDS = {"int64": "long", "int32": "int", "string": "string"}


def optional(kind):
    return ["null", kind]


def schemas(topic, version):
    """Of key and value. Another version is another schema to the registry, though it says the same."""
    row = {"type": "record", "name": "Value", "fields": [
        {"name": name, "type": KINDS[kind]} if name == "id" else {"name": name, "type": optional(KINDS[kind]), "default": None}
        for name, kind in (COLUMNS | LATER).items()]}
    source = {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
        *({"name": name, "type": "string"} for name in ("version", "connector", "name", "db", "schema", "table", "snapshot")),
        *({"name": name, "type": optional("long"), "default": None} for name in ("ts_ms", "txId", "lsn"))]}
    space = re.sub(r"[^\w.]", "_", topic)
    value = {"type": "record", "name": "Envelope", "namespace": space, "connect.name": f"{topic}.Envelope", "connect.version": version, "fields": [
        {"name": "before", "type": optional(row), "default": None}, {"name": "after", "type": optional("Value"), "default": None},
        {"name": "source", "type": source}, {"name": "op", "type": "string"}, {"name": "ts_ms", "type": optional("long"), "default": None}]}
    key = {"type": "record", "name": "Key", "namespace": space, "connect.name": f"{topic}.Key", "fields": [{"name": "id", "type": "long"}]}
    return key, value


class Writer:
    """Asks the registry itself, not through what stands before it for others."""

    def __init__(self):
        self.writers, self.subjects = {}, set()

    def written(self, topic, record, version=1):
        if (topic, version) not in self.writers:
            key, value = schemas(topic, version)
            self.writers[topic, version] = self.register(f"{topic}-key", key), self.register(f"{topic}-value", value)
        write_key, write_value = self.writers[topic, version]
        value = record.value and write_value(json.loads(record.value)["payload"])
        return dataclasses.replace(record, key=write_key(json.loads(record.key)["payload"]), value=value)

    def register(self, subject, schema):
        number = http("POST", f"{ENV['REGISTRY']}/subjects/{quote(subject, safe='')}/versions", {"schema": json.dumps(schema)})["id"]
        self.subjects.add(subject)
        parsed = fastavro.parse_schema(schema)

        def write(payload):
            body = BytesIO()
            fastavro.schemaless_writer(body, parsed, payload)
            return struct.pack(">bI", 0, number) + body.getvalue()

        return write

    def remove(self):
        for subject in self.subjects:
            http("DELETE", f"{ENV['REGISTRY']}/subjects/{quote(subject, safe='')}")
