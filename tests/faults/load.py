"""Topics under load: changes of rows as Debezium writes them, and what a table must be at any position of its topic."""
import json
import threading
import time
from random import Random

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions, NewTopic

from stack import ENV, Fail

KEYS = 60
NAMES = ["id", "n", "text", "_cdc_op", "_cdc_partition", "_cdc_offset"]


class Topic:
    """A topic that one thread writes to. Records of aborted transactions are none."""

    def __init__(self, kafka, name, partitions, seed, config=None, transactions=False):
        self.kafka, self.name, self.partitions, self.transactions = kafka, name, partitions, transactions
        self.random = Random(f"{seed} {name}")
        self.rows, self.lsn, self.logs, self.sent = {}, 1000, {}, 0
        self.unplaced = []  # delivered, at an offset that was not told
        self.read = {}  # by target: what its group read, where that is not the log
        self.age = 0  # of records that are sent, seconds
        self.ended, self.thread, self.error = threading.Event(), None, None
        self.make(config)
        self.producer = self.open()

    def make(self, config=None):
        """The offsets of a topic that is made anew say nothing of those before."""
        made = NewTopic(self.name, self.partitions, 1, config=config or {})
        self.kafka.admin.create_topics([made])[self.name].result(20)
        self.logs = {}

    def open(self):
        options = {"bootstrap.servers": ENV["BROKERS"], "linger.ms": 5, "topic.metadata.refresh.interval.ms": 1000, "enable.idempotence": True,
                   "log_level": 2}
        if self.transactions:
            options["transactional.id"] = f"{self.name}-writer"
        producer = Producer(options)
        if self.transactions:
            producer.init_transactions(30)
        return producer

    def start(self, pause=0.01):
        """Changes come until `stop`."""
        def work():
            try:
                while not self.ended.wait(pause):
                    self.transaction() if self.transactions else self.change()
            except Exception as error:  # Told by `stop`, on the test's own thread.
                self.error = error

        self.ended.clear()
        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def stop(self):
        """All of it is in Kafka, at offsets that are known."""
        if self.thread:
            self.ended.set()
            self.thread.join()
            self.thread = None
        left = self.producer.flush(30) if self.producer else 0
        if left or self.error:
            raise Fail(f"{self.name}: {left} records are not in Kafka: {self.error}")
        if self.unplaced:
            self.place()

    def place(self):
        """Of a record that had to be sent twice the broker does not tell the offset: it has one that no other has, in the order of sending."""
        consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": f"{self.name}-place", "enable.partition.eof": True})
        for partition in {partition for partition, _ in self.unplaced}:
            log, changes = self.logs.setdefault(partition, {}), [change for where, change in self.unplaced if where == partition]
            consumer.assign([TopicPartition(self.name, partition, 0)])
            free = []
            # A tombstone is false for Python.
            while (record := consumer.poll(20)) is not None and not record.error():
                if record.offset() not in log:
                    free.append(record.offset())
            if record is None or record.error().code() != KafkaError._PARTITION_EOF or len(free) != len(changes):
                raise Fail(f"{self.name}[{partition}]: {len(changes)} records at offsets that were not told, of which {free} are free")
            log.update(zip(free, changes))
        consumer.close()
        self.unplaced = []

    def delete(self):
        """No producer may be left: it asks for its topics, and the broker makes what is asked for."""
        self.stop()
        self.producer = None
        self.kafka.delete([self.name])

    def burst(self, count):
        for _ in range(count):
            self.change()
        self.stop()

    def transaction(self):
        """Of one or a few changes; a third of them is aborted."""
        self.producer.begin_transaction()
        rows, changes = dict(self.rows), []
        for _ in range(self.random.randint(1, 4)):
            self.change(changes)
        self.producer.flush(30)
        if self.random.random() < 0.35:
            self.producer.abort_transaction(30)
            self.rows = rows
            return
        self.producer.commit_transaction(30)
        for keep in changes:
            keep()

    def change(self, later=None):
        """`later` takes what is to be noted once the transaction is committed."""
        self.lsn += 8
        key = self.random.randrange(KEYS)
        before = self.rows.get(key)
        if before and self.random.random() < 0.2:
            del self.rows[key]
            self.send(key, "d", before, None, later)
            self.send(key, None, None, None, later)
            return
        row = (key, before[1] + 1 if before else 0, f"{self.random.getrandbits(64):x}" * self.random.randint(0, 8))
        self.rows[key] = row
        self.send(key, "u" if before else "c", before, row, later)

    def send(self, key, op, before, after, later):
        def delivered(error, record):
            if error:
                self.error = error
                return

            def keep():
                change = (key, lsn, op, after)
                if record.offset() is None:
                    self.unplaced.append((record.partition(), change))
                else:
                    self.logs.setdefault(record.partition(), {})[record.offset()] = change

            later.append(keep) if later is not None else keep()

        lsn = self.lsn
        value = op and json.dumps({"schema": SCHEMA, "payload": envelope(self.name, op, before, after, lsn)})
        at = int((time.time() - self.age) * 1000)
        key_text = json.dumps({"schema": KEY_SCHEMA, "payload": {"id": key}})
        self.producer.produce(self.name, value, key_text, key % self.partitions, on_delivery=delivered, timestamp=at)
        self.producer.poll(0)
        self.sent += 1

    def grow(self, partitions):
        """The keys move at once."""
        self.kafka.admin.create_partitions([NewPartitions(self.name, partitions)])[self.name].result(20)
        end = time.monotonic() + 15
        while len(self.producer.list_topics(self.name, 10).topics[self.name].partitions) < partitions:
            if time.monotonic() > end:
                raise Fail(f"{self.name} does not have {partitions} partitions")
            time.sleep(0.1)
        self.partitions = partitions

    def needed(self):
        """The position of each partition that is after its last record."""
        return {(self.name, partition): max(log) + 1 for partition, log in self.logs.items()}

    def fold(self, position, target):
        """The rows at a position, in the order of their ids: of each row its last change at the source. Compaction leaves of a delete its
        tombstone alone."""
        last = {}
        for partition, log in self.read.get(target, self.logs).items():
            for offset, (key, lsn, op, row) in log.items():
                if offset < position.get(partition, 0) and lsn >= last.get(key, (0,))[0]:
                    last[key] = (lsn, row and (*row, op, partition, offset))
        return [row for _, (_, row) in sorted(last.items()) if row]


def envelope(topic, op, before, after, lsn):
    def shown(row):
        return row and dict(zip(NAMES, row))

    connector, schema, table = topic.split(".")
    source = {"version": "3.3.0.Final", "connector": "postgresql", "name": connector, "ts_ms": 1_700_000_000_000 + lsn, "snapshot": "false", "db": "shop",
              "schema": schema, "table": table, "lsn": lsn}
    return {"before": shown(before), "after": shown(after), "op": op, "ts_ms": source["ts_ms"], "source": source}


def struct(name, optional, /, **fields):
    return {"type": "struct", "optional": optional, "name": name, "fields": [
        (kind if isinstance(kind, dict) else {"type": kind, "optional": field != "id"}) | {"field": field} for field, kind in fields.items()]}


KEY_SCHEMA = struct("g.Key", False, id="int64")
ROW = {"id": "int64", "n": "int32", "text": "string"}
SOURCE = {"version": "string", "connector": "string", "name": "string", "ts_ms": "int64", "snapshot": "string", "db": "string", "schema": "string",
          "table": "string", "lsn": "int64"}
SCHEMA = struct("g.Envelope", False, before=struct("g.Value", True, **ROW), after=struct("g.Value", True, **ROW),
                source=struct("io.debezium.connector.postgresql.Source", False, **SOURCE), op="string", ts_ms="int64")
