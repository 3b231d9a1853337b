"""Records as Debezium writes them of Postgres, in JSON without schema, for tests that need no database."""
import json
import time

from confluent_kafka import Producer

from stack import ENV


class Table:
    """A topic of its own, `<prefix>.shop.<name>`, and the rows that its records leave behind."""

    producer = None

    def __init__(self, prefix, name):
        self.prefix, self.name, self.topic = prefix, name, f"{prefix}.shop.{name}"
        self.rows, self.sent = {}, 0
        Table.producer = Table.producer or Producer({"bootstrap.servers": ENV["BROKERS"]})

    def change(self, count):
        """Inserts and, once there are rows, updates."""
        for number in range(count):
            key = len(self.rows) + 1 if not self.rows or number % 2 == 0 else 1 + self.sent * 7 % len(self.rows)
            before = self.rows.get(key)
            self.rows[key] = f"{self.name} {self.sent}"
            row = {"id": key, "name": self.rows[key]}
            self.send("u" if before else "c", {"id": key}, before=before and {"id": key, "name": before}, after=row)
        Table.producer.flush(30)

    def delete(self, key):
        self.send("d", {"id": key}, before={"id": key, "name": self.rows.pop(key)}, after=None)
        Table.producer.flush(30)

    def truncate(self):
        self.rows.clear()
        self.send("t", None, before=None, after=None)
        Table.producer.flush(30)

    def send(self, operation, key, **images):
        self.sent += 1
        now = int(time.time() * 1000)
        source = {"connector": "postgresql", "name": self.prefix, "db": "shop", "schema": "shop", "table": self.name, "lsn": self.sent,
                  "ts_ms": now, "snapshot": "false"}
        self.raw(json.dumps(images | {"source": source, "op": operation, "ts_ms": now}), key and json.dumps(key))

    def raw(self, value, key):
        Table.producer.produce(self.topic, value, key)
