"""Records as Debezium writes them, in Avro and in JSON, and some that nobody can use."""
import json
import struct
from io import BytesIO

import fastavro
from confluent_kafka import Producer

from stack import ENV, http

MOMENT = 1_700_000_000_000


def optional(kind):
    return ["null", kind]


def schemas(topic):
    """Of key and value, as the Avro converter registers them."""
    row = {"type": "record", "name": "Value", "fields": [{"name": "id", "type": "long"}, {"name": "name", "type": optional("string"), "default": None}]}
    source = {"type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql", "fields": [
        *({"name": name, "type": "string"} for name in ("connector", "name", "db", "schema", "table", "snapshot")),
        {"name": "ts_ms", "type": "long"}, {"name": "lsn", "type": optional("long"), "default": None}]}
    value = {"type": "record", "name": "Envelope", "namespace": topic, "connect.name": f"{topic}.Envelope", "fields": [
        {"name": "before", "type": optional(row), "default": None}, {"name": "after", "type": optional("Value"), "default": None},
        {"name": "source", "type": source}, {"name": "op", "type": "string"}, {"name": "ts_ms", "type": optional("long"), "default": None}]}
    key = {"type": "record", "name": "Key", "namespace": topic, "connect.name": f"{topic}.Key", "fields": [{"name": "id", "type": "long"}]}
    return key, value


def envelope(topic, row, place, source=None):
    prefix, schema, table = ["", "", *topic.split(".")][-3:]
    block = {"connector": "postgresql", "name": prefix, "db": "shop", "schema": schema, "table": table, "snapshot": "false", "ts_ms": MOMENT, "lsn": place}
    return {"before": None, "after": row, "source": block | (source or {}), "op": "c", "ts_ms": MOMENT}


class Sender:
    def __init__(self, brokers):
        self.producer = Producer({"bootstrap.servers": brokers})
        self.subjects = []

    def register(self, subject, schema):
        self.subjects.append(subject)
        number = http("POST", f"{ENV['REGISTRY']}/subjects/{subject}/versions", {"schema": json.dumps(schema)})["id"]
        parsed = fastavro.parse_schema(schema)

        def write(record):
            body = BytesIO()
            fastavro.schemaless_writer(body, parsed, record)
            return struct.pack(">bI", 0, number) + body.getvalue()

        return write

    def avro(self, topic, rows):
        """Creates in Avro; gives what writes a value, for those who want to spoil it."""
        key, value = schemas(topic)
        write_key, write_value = self.register(f"{topic}-key", key), self.register(f"{topic}-value", value)
        for place, row in enumerate(rows):
            self.producer.produce(topic, write_value(envelope(topic, row, place)), write_key({"id": row["id"]}))
        self.producer.flush(30)
        return write_value

    def json(self, topic, rows, source=None):
        for place, row in enumerate(rows):
            self.producer.produce(topic, json.dumps(envelope(topic, row, place, source)), json.dumps({"id": row["id"]}))
        self.producer.flush(30)

    def raw(self, topic, value, key=b'{"id": 1}'):
        self.producer.produce(topic, value, key)
        self.producer.flush(30)
