"""Seeded random changes of the source's rows, in transactions, with the number of Debezium records that each must make."""
import time
from collections import Counter
from contextlib import contextmanager
from random import Random

from tables import EMPTIED, WIDENED


class Workload:
    """Changes the tables of one database. The model keeps keys only: the rows' truth is what SQL returns."""

    def __init__(self, source, seed):
        self.source = source
        self.rng = Random(f"{seed} {source.kind}")
        self.records = Counter()  # by table: records that must arrive in each connector's topic
        self.changes = Counter()
        self.lives = {table.name: {} for table in source.tables}  # every key that ever was: whether it has a row
        self.phase = 0
        self.made = 0

    def fill(self):
        """The rows that the initial snapshot finds."""
        with self.transaction() as transaction:
            for table in self.source.tables:
                for _ in range(table.rows):
                    transaction.insert(table)

    def run(self, phase, seconds):
        """Changes for about so long. One long transaction stays open all the while, beside many short ones."""
        self.phase = phase
        self.source.change_columns(phase)
        self.touch([table for table in self.source.tables if table.changes(phase)])
        if phase % 3 == 2:
            self.empty()
        end = time.monotonic() + seconds
        with self.transaction() as long:
            done = 0
            while time.monotonic() < end or done < 12:
                if self.rng.random() < 0.4:
                    long.anything(self.rng.choice(self.source.tables))
                self.short(spare=long.lives)
                done += 1
                time.sleep(self.rng.uniform(0.01, 0.12))

    def touch(self, tables):
        """A row in each: a table learns of a change of its columns with a row that has them, and chance may leave one out for a phase."""
        with self.transaction() as transaction:
            for table in tables:
                transaction.insert(table)

    def empty(self):
        """A TRUNCATE with rows right before and right after it, while no transaction is open: it locks the whole table."""
        with self.transaction() as before:
            for _ in range(5):
                before.anything(EMPTIED)
        with self.transaction() as transaction:
            transaction.insert(EMPTIED)
            transaction.truncate(EMPTIED)
            for _ in range(3):
                transaction.insert(EMPTIED)
            transaction.revive(EMPTIED)

    def short(self, spare):
        fails = self.rng.random() < 0.08
        with self.transaction(spare, rollback=fails) as short:
            for _ in range(self.rng.randint(1, 4)):
                short.anything(self.rng.choice(self.source.tables))

    @contextmanager
    def transaction(self, spare=(), rollback=False):
        connection = self.source.connect()
        try:
            with connection.cursor() as cursor:
                transaction = Transaction(self, cursor, spare)
                yield transaction
            if rollback:
                connection.rollback()
                return
            connection.commit()
            transaction.keep()
        finally:
            connection.close()

    def new_key(self, table):
        self.made += 1
        if table.key == ("org", "id"):
            return (self.rng.choice(["acme", "Zoë & sons", "o'neil"]), self.made)
        if table.key == ("slug",):
            return (f"note {self.made} {self.rng.choice(['ä', '漢', 'z'])}",)
        if table.key == ("number",) and self.phase < WIDENED:
            return (self.made,)
        return (self.made * self.rng.choice([1, -1, 1_000_000_007]),)


class Transaction:
    """An open transaction. Keys that another open one has touched are left alone, as it holds their locks."""

    def __init__(self, workload, cursor, spare):
        self.load, self.cursor, self.spare = workload, cursor, spare
        self.source, self.rng = workload.source, workload.rng
        self.records, self.changes = Counter(), Counter()
        self.lives = {}  # what this transaction did, by table and key

    def keep(self):
        """The transaction is committed: the model follows."""
        for (name, key), lives in self.lives.items():
            self.load.lives[name][key] = lives
        self.load.records += self.records
        self.load.changes += self.changes

    def anything(self, table):
        change = self.rng.choices(
            [self.insert, self.update, self.update_small, self.delete, self.replace, self.move, self.move_onto_deleted, self.revive, self.update_many],
            [22, 18, 22, 10, 6, 8, 4, 6, 4])[0]
        change(table)

    def insert(self, table, key=None):
        key = key or self.load.new_key(table)
        row = dict(zip(table.key, key)) | self.values(table, [column for column in table.at(self.load.phase) if column.name not in table.key])
        names = ", ".join(map(self.source.name, row))
        marks = ", ".join(["%s"] * len(row))
        self.execute(table, "insert", 1, f"INSERT INTO {self.source.table(table)} ({names}) VALUES ({marks})", list(row.values()))
        self.now(table, key, True)

    def update(self, table):
        """Sets all columns but the key."""
        self.set(table, "update", [column for column in table.at(self.load.phase) if column.name not in table.key])

    def update_small(self, table):
        """Sets a few columns, never the large ones: Postgres does not send what lies outside of the row."""
        free = [column for column in table.at(self.load.phase) if column.name not in (*table.key, *table.large, "rev")]
        self.set(table, "update of few columns", self.rng.sample(free, self.rng.randint(0, min(3, len(free)))))

    def set(self, table, what, columns):
        if not (key := self.choose(table)):
            return
        values = {name: value for name, value in self.values(table, columns).items() if name != "rev"}
        assignments = "".join(f"{self.source.name(name)} = %s, " for name in values)
        self.execute(table, what, 1, f"UPDATE {self.source.table(table)} SET {assignments}rev = rev + 1 WHERE {self.where(table)}",
                     [*values.values(), *key])
        self.now(table, key, True)

    def update_many(self, table):
        """One statement over many rows."""
        keys = [key for key in (self.choose(table) for _ in range(12)) if key]
        condition = " OR ".join(f"({self.where(table)})" for _ in set(keys))
        if keys:
            keys = sorted(set(keys))
            self.execute(table, "update of many rows", 1, f"UPDATE {self.source.table(table)} SET rev = rev + 1 WHERE {condition}",
                         [part for key in keys for part in key], len(keys))
            for key in keys:
                self.now(table, key, True)

    def delete(self, table):
        if key := self.choose(table):
            # The delete itself and its tombstone.
            self.execute(table, "delete", 2, f"DELETE FROM {self.source.table(table)} WHERE {self.where(table)}", key)
            self.now(table, key, False)
        return key

    def replace(self, table):
        """Deletes a row and inserts its key again, in one transaction."""
        if key := self.delete(table):
            self.insert(table, key)

    def revive(self, table):
        """Inserts a key that an earlier transaction deleted."""
        if key := self.choose(table, lives=False):
            self.insert(table, key)

    def move(self, table, target=None):
        """Changes a key; the row's other columns, large ones too, stay."""
        if not (key := self.choose(table)):
            return
        target = target or self.load.new_key(table)
        assignments = ", ".join(f"{self.source.name(name)} = %s" for name in table.key)
        # A delete, its tombstone, and a create.
        self.execute(table, "key change", 3, f"UPDATE {self.source.table(table)} SET {assignments}, rev = rev + 1 WHERE {self.where(table)}",
                     [*target, *key])
        self.now(table, key, False)
        self.now(table, target, True)

    def move_onto_deleted(self, table):
        """A row takes the key of one that is deleted just before."""
        if key := self.delete(table):
            self.move(table, key)

    def truncate(self, table):
        self.cursor.execute(f"TRUNCATE TABLE {self.source.table(table)}")
        self.records[table.name] += 1
        self.changes["truncate"] += 1
        for key in [*self.load.lives[table.name], *(key for name, key in self.lives if name == table.name)]:
            self.now(table, key, False)

    def choose(self, table, lives=True):
        """A key with a row, or one whose row is gone; none that another open transaction holds."""
        known = self.load.lives[table.name] | {key: lives for (name, key), lives in self.lives.items() if name == table.name}
        keys = [key for key, has_row in known.items() if has_row == lives and (table.name, key) not in self.spare]
        return self.rng.choice(keys) if keys else None

    def now(self, table, key, lives):
        self.lives[table.name, key] = lives

    def values(self, table, columns):
        return {column.name: None if column.nulls and self.rng.random() < 0.12 else column.make(self.rng) for column in columns}

    def where(self, table):
        return " AND ".join(f"{self.source.name(name)} = %s" for name in table.key)

    def execute(self, table, what, records, statement, parameters, rows=1):
        self.cursor.execute(statement, parameters)
        if self.cursor.rowcount != rows:
            raise RuntimeError(f"{statement}: {self.cursor.rowcount} rows instead of {rows}")
        self.records[table.name] += records * rows
        self.changes[what] += rows
