"""What the topics hold: changes of two tables as Debezium writes them, and what each table is at any position of its topic.

Everything comes from a seed. The tables are kept here as the source has them, so a record that leaves a large value out, or is half of
a key change, has one right outcome.
"""
import json
from dataclasses import dataclass, field
from random import Random

PLACEHOLDER = "__debezium_unavailable_value"
COLUMNS = {"id": "int64", "region": "string", "name": "string", "qty": "int32", "note": "string"}
# Added to each table in the middle of its log.
LATER = {"extra": "string"}
REGIONS = ("ap", "eu", "us")
START_MS = 1_700_000_000_000
CONNECTOR = "kills"


@dataclass
class Record:
    partition: int
    key: bytes
    value: bytes | None
    headers: list = field(default_factory=list)
    # The row that is there afterwards, by id; None when there is none. Nothing for records that change nothing.
    effect: tuple | None = None
    poison: bool = False


class Table:
    """A table's topic, and the table that comes of it."""

    def __init__(self, name, partitions, changes, seed, poison=0, moves=6):
        self.name, self.partitions = name, partitions
        self.random = Random(f"{seed} {name}")
        self.records, self.logs = [], [[] for _ in range(partitions)]
        self.weights = (25, 50, 12, moves, 7)
        self.rows, self.columns, self.next_id, self.ms, self.lsn = {}, dict(COLUMNS), 0, START_MS, 1000
        for left in range(changes // 8, 0, -1):
            self.insert("r", "last" if left == 1 else "true")
        for number in range(changes):
            if number == changes // 2:
                self.columns |= LATER
            if poison and number % (changes // poison) == changes // poison // 2:
                self.spoil()
            self.change()

    def change(self):
        self.ms += self.random.randrange(5)
        self.lsn += 8
        kind = self.random.choices(("insert", "update", "delete", "move", "again"), self.weights)[0]
        if kind == "insert" or len(self.rows) < 20:
            return self.insert("c")
        ids = sorted(self.rows)
        # Some rows change all the time.
        key = ids[self.random.randrange(8)] if kind == "update" and self.random.random() < 0.3 else self.random.choice(ids)
        if kind == "update":
            self.update(key)
        elif kind == "move":
            self.move(key)
        else:
            self.delete(key)
            if kind == "again":
                self.insert("c", at=key)
        return None

    def insert(self, op, snapshot="false", at=None):
        if at is None:
            at, self.next_id = self.next_id, self.next_id + 1
        row = {"id": at, "region": self.random.choice(REGIONS), "name": f"{self.name} {at}", "qty": 0, "note": self.long()}
        self.send(op, None, self.filled(row), snapshot=snapshot)

    def filled(self, row):
        return row | {name: self.random.choice((None, f"{name} {self.random.randrange(99)}")) for name in LATER if name in self.columns}

    def long(self):
        return f"{self.random.getrandbits(64):016x}" * self.random.randrange(1, 20)

    def update(self, key):
        before = self.rows[key]
        row = self.filled(before | {"qty": before["qty"] + 1})
        if self.random.random() < 0.2:
            row["region"] = self.random.choice(REGIONS)
        leaves_out = self.random.random() < 0.4
        if not leaves_out:
            row["note"] = self.long()
        self.send("u", before, row, leaves_out=leaves_out)

    def move(self, key):
        """A key change: a delete and a create of one place in the source's log, perhaps in two partitions. What the create leaves out is in the
        deleted row."""
        before = self.rows[key]
        row = self.filled(before | {"id": self.next_id})
        self.next_id += 1
        new, old = key_of(self.name, row["id"]), key_of(self.name, key)
        self.delete(key, [("__debezium.newkey", new)])
        self.send("c", None, row, [("__debezium.oldkey", old)], leaves_out=self.random.random() < 0.6)

    def delete(self, key, headers=()):
        self.send("d", self.rows[key], None, headers)
        self.put(Record(key % self.partitions, key_of(self.name, key), None, list(headers)))

    def spoil(self):
        partition = self.random.randrange(self.partitions)
        self.put(Record(partition, key_of(self.name, -1 - len(self.records)), b'{"schema": {"type": "str', poison=True))

    def send(self, op, before, after, headers=(), snapshot="false", leaves_out=False):
        row = before if after is None else after
        sent = after | {"note": PLACEHOLDER} if leaves_out else after
        partition = row["id"] % self.partitions
        value = {"schema": self.schema(), "payload": {
            "before": before and self.shown(before), "after": sent and self.shown(sent), "op": op, "ts_ms": self.ms + 7,
            "source": {"version": "3.3.0.Final", "connector": "postgresql", "name": CONNECTOR, "ts_ms": self.ms, "snapshot": snapshot, "db": "shop",
                       "schema": "shop", "table": self.name, "txId": self.lsn // 8, "lsn": self.lsn}}}
        place = (op, partition, len(self.logs[partition]), self.ms * 1000)
        key = row["id"]
        if after is None:
            del self.rows[key]
        else:
            self.rows[key] = after
        effect = (key, after and tuple(after.get(name) for name in (COLUMNS | LATER)) + place)
        self.put(Record(partition, key_of(self.name, key), json.dumps(value).encode(), list(headers), effect))

    def shown(self, row):
        return {name: row.get(name) for name in self.columns}

    def put(self, record):
        self.records.append(record)
        self.logs[record.partition].append(record)

    def schema(self):
        row = [{"type": kind, "optional": name != "id", "field": name} for name, kind in self.columns.items()]
        name = f"{CONNECTOR}.shop.{self.name}"
        text = [{"type": "string", "optional": False, "field": field} for field in ("version", "connector", "name", "db", "schema", "table")]
        number = [{"type": "int64", "optional": True, "field": field} for field in ("ts_ms", "txId", "lsn")]
        snapshot = {"type": "string", "optional": True, "name": "io.debezium.data.Enum", "version": 1, "default": "false", "field": "snapshot"}
        fields = [{"type": "struct", "fields": row, "optional": True, "name": f"{name}.Value", "field": field} for field in ("before", "after")]
        fields += [{"type": "struct", "fields": [*text, *number, snapshot], "optional": False, "name": "io.debezium.connector.postgresql.Source",
                    "field": "source"}, {"type": "string", "optional": False, "field": "op"}, {"type": "int64", "optional": True, "field": "ts_ms"}]
        return {"type": "struct", "fields": fields, "optional": False, "name": f"{name}.Envelope", "version": 2}

    def ends(self):
        return {partition: len(log) for partition, log in enumerate(self.logs)}

    def fold(self, position):
        """The rows at a position, the order of which is that of their ids. A partition that is not in it was never read."""
        rows = {}
        for partition, log in enumerate(self.logs):
            for record in log[:position.get(partition, 0)]:
                if record.effect:
                    key, row = record.effect
                    rows.pop(key, None)
                    if row is not None:
                        rows[key] = row
        return [rows[key] for key in sorted(rows)]

    def poisoned(self):
        """Where the records are that no table takes."""
        return sorted((partition, offset) for partition, log in enumerate(self.logs) for offset, record in enumerate(log) if record.poison)


def key_of(table, key):
    return json.dumps({"schema": {"type": "struct", "fields": [{"type": "int64", "optional": False, "field": "id"}], "optional": False,
                                  "name": f"{CONNECTOR}.shop.{table}.Key"}, "payload": {"id": key}}).encode()


# The columns of a row as `fold` has it.
NAMES = [*COLUMNS, *LATER, "_cdc_op", "_cdc_partition", "_cdc_offset", "_cdc_ts"]


def tables(seed):
    """One with poison, and one that comes with it."""
    return [Table("orders", 4, 1800, seed, poison=5), Table("items", 2, 700, seed)]


def trickle(seed, changes):
    """One that is sent a few records at a time, so that there are many commits: without key changes, whose halves would wait for one another."""
    return Table("trickle", 1, changes, seed, moves=0)
