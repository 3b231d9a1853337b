"""Topics that are filled fast, and what a table must be at any position of its topic.

Records are as Debezium writes them of Postgres, in JSON without schema. Everything in them follows from their number, so that nothing has to be kept.
"""
from random import Random

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from audit import rows
from stack import ENV, Fail

NAMES = ["id", "n", "text", "_cdc_op", "_cdc_partition", "_cdc_offset"]
PLACEHOLDER = "__debezium_unavailable_value"
MS = 1_700_000_000_000
# Hexadecimal digits that do not repeat: what is packed of them is half as large.
POOL = f"{Random(1).getrandbits(1 << 22):0>{1 << 20}x}" * 2


def text(number, size):
    """Of `size` characters, at most a million, another one for every number."""
    at = number * 7919 % (len(POOL) // 2)
    return f"{number} {POOL[at:at + size]}"[:size]


def envelope(topic, op, row, number, more=""):
    """A record's value; `more` are further fields, as text."""
    connector, schema, table = topic.split(".")
    image = f'{{"id":{row[0]},"n":{row[1]},"text":"{row[2]}"}}'
    before, after = (image, "null") if op == "d" else ("null", image)
    return (f'{{"before":{before},"after":{after},"source":{{"version":"3.3.0.Final","connector":"postgresql","name":"{connector}","ts_ms":{MS + number},'
            f'"snapshot":"false","db":"shop","schema":"{schema}","table":"{table}","txId":9,"lsn":{1000 + number}}},{more}"op":"{op}","ts_ms":{MS + number}}}')


def producer(**more):
    return Producer({"bootstrap.servers": ENV["BROKERS"], "enable.idempotence": True, "linger.ms": 20, "compression.type": "zstd", "log_level": 3,
                     "queue.buffering.max.messages": 500_000, "queue.buffering.max.kbytes": 262_144} | more)


class Stream:
    """A topic of one partition with changes of rows."""

    def __init__(self, kafka, topic, config=None, **more):
        self.kafka, self.topic = kafka, topic
        kafka.admin.create_topics([NewTopic(topic, self.partitions(), 1, config=config or {})])[topic].result(30)
        self.sent, self.last, self.read_to = 0, {}, 0
        self.log = []
        self.producer = producer(**more)

    def partitions(self):
        return 1

    def put(self, value, key, partition=0):
        while True:
            try:
                self.producer.produce(self.topic, value, key, partition)
                break
            except BufferError:
                self.producer.poll(0.2)
        if self.sent % 64 == 0:
            self.producer.poll(0)
        self.sent += 1

    def send(self, op, key, size=20):
        """One change of a row; its text is of `size` characters, or none when it stays as it was and is left out."""
        row = (key, self.sent, PLACEHOLDER if size is None else text(self.sent, size))
        self.log.append((op, key, size))
        self.put(envelope(self.topic, op, row, self.sent), f'{{"id":{key}}}')

    def burst(self, count, keys, size=20):
        """Inserts and updates of rows in turn."""
        known = {key for _, key, _ in self.log}
        for _ in range(count):
            key = self.sent % keys
            self.send("u" if key in known else "c", key, size)
            known.add(key)
        self.flush()

    def flush(self):
        if left := self.producer.flush(120):
            raise Fail(f"{left} records did not get into {self.topic}")
        if sum(self.kafka.ends([self.topic]).values()) != self.sent:
            raise Fail(f"{self.topic} ends at {self.kafka.ends([self.topic])}, sent were {self.sent}")

    def ends(self):
        return {0: self.sent}

    def needed(self):
        return {(self.topic, partition): end for partition, end in self.ends().items()}

    def seen(self, got):
        return rows(got, NAMES)

    def fold(self, position):
        """The rows at a position; positions are asked for in their order."""
        end = position.get(0, 0)
        if end < self.read_to:
            self.last, self.read_to = {}, 0
        for offset in range(self.read_to, end):
            op, key, size = self.log[offset]
            if op == "d":
                self.last.pop(key, None)
            else:
                words = self.last[key][2] if size is None else text(offset, size)
                self.last[key] = (key, offset, words, op, 0, offset)
        self.read_to = end
        return [self.last[key] for key in sorted(self.last)]


class Transaction(Stream):
    """Rows of one transaction of the source, in several partitions. They are compared as columns: as rows they would take minutes."""

    SPREAD = 4

    def partitions(self):
        return self.SPREAD

    def fill(self, count):
        for number in range(count):
            more = f'"transaction":{{"id":"9:1000","total_order":{number + 1},"data_collection_order":{number + 1}}},'
            value = envelope(self.topic, "c", (number, number * 7919 % 1_000_003, f"row {number} of a long transaction"), number, more)
            self.put(value, f'{{"id":{number}}}', number % self.SPREAD)
        self.flush()

    def ends(self):
        return {partition: len(range(partition, self.sent, self.SPREAD)) for partition in range(self.SPREAD)}

    def seen(self, got):
        return columns(got)

    def fold(self, position):
        ids = sorted(partition + self.SPREAD * offset for partition, end in position.items() for offset in range(end))
        ids = pa.array(ids, pa.int64())
        partition = pc.subtract(ids, pc.multiply(pc.divide(ids, self.SPREAD), self.SPREAD))
        number = pc.multiply(ids, 7919)
        number = pc.subtract(number, pc.multiply(pc.divide(number, 1_000_003), 1_000_003))
        words = pc.binary_join_element_wise("row ", pc.cast(ids, pa.string()), " of a long transaction", "")
        ops = pa.array(["c"] * len(ids), pa.string())
        return columns(pa.table([ids, number, words, ops, partition, pc.divide(ids, self.SPREAD)], names=NAMES))


def columns(table):
    """The columns of a table in the order of its ids, each as one whole."""
    kinds = {"text": pa.string(), "_cdc_op": pa.string()}
    plain = pa.table({name: table[name].cast(kinds.get(name, pa.int64())) for name in NAMES}).sort_by("id")
    return [(name, Column(plain[name].combine_chunks())) for name in NAMES]


class Column:
    """Values that are compared, and shown, as a whole."""

    def __init__(self, values):
        self.values = values

    def __eq__(self, other):
        return self.values.equals(other.values)

    def __hash__(self):
        return len(self.values)

    def __repr__(self):
        return f"{len(self.values)} values from {self.values[:2].to_pylist()} to {self.values[-2:].to_pylist()}"
