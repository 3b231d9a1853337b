"""The tables of the run in Postgres, random transactions over them, and how many records each makes."""
import json
import uuid
from collections import Counter
from random import Random

import sources

REGIONS = ("a", "b", "c")
# The application deletes an event right after it inserted it, so a trigger keeps what there was.
KEEP = """
    CREATE TABLE {s}.events (LIKE {s}.outbox);
    CREATE FUNCTION {s}.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {s}.events SELECT NEW.*; RETURN NEW; END $$;
    CREATE TRIGGER keep AFTER INSERT ON {s}.outbox FOR EACH ROW EXECUTE FUNCTION {s}.keep();
"""
EVENT_COLUMNS = "id uuid PRIMARY KEY, aggregatetype varchar(255) NOT NULL, aggregateid varchar(255) NOT NULL, type varchar(255) NOT NULL, payload jsonb"


class Postgres(sources.Postgres):
    """`parted` has its key with the partition's column, as Postgres wants it for the whole; each leaf of `leafy` has a key of its own."""

    def __init__(self, run, seed=1):
        super().__init__(run)
        self.tables = ()
        self.rng = Random(seed)
        self.made = Counter()
        self.lives = {"parted": {}, "leafy": {}, "flat": set(), "odd.Table": set(), "again": set()}
        self.next = 0

    def create(self):
        with self.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {self.schema}")
            for name, key in (("parted", ", PRIMARY KEY (id, region)"), ("leafy", "")):
                cursor.execute(f"CREATE TABLE {self.schema}.{name} (id int NOT NULL, region text NOT NULL, name text{key}) PARTITION BY LIST (region)")
                for region in REGIONS:
                    leaf = f"{self.schema}.{name}_{region}"
                    cursor.execute(f"CREATE TABLE {leaf} PARTITION OF {self.schema}.{name} FOR VALUES IN ('{region}')")
                    if name == "leafy":
                        cursor.execute(f"ALTER TABLE {leaf} ADD PRIMARY KEY (id)")
            for name in ("flat", '"odd.Table"', "again"):
                cursor.execute(f'CREATE TABLE {self.schema}.{name} (id int PRIMARY KEY, name text NOT NULL, qty int NOT NULL, "a.B" text)')
            cursor.execute(f"CREATE TABLE {self.schema}.outbox ({EVENT_COLUMNS})")
            cursor.execute(KEEP.format(s=self.schema))

    def fill(self):
        self.change(40)

    def change(self, count):
        """So many transactions, of one change or of a few."""
        with self.connect() as connection:
            for _ in range(count):
                for _ in range(self.rng.choice((1, 1, 4))):
                    for name in ("parted", "leafy"):
                        self.change_parted(connection, name)
                    for name in ("flat", "odd.Table", "again"):
                        self.change_flat(connection, name)
                    self.tell(connection)
                connection.commit()

    def count(self):
        """What is there now makes a record each. Of events that were deleted before nobody hears."""
        with self.cursor() as cursor:
            cursor.execute(f"DELETE FROM {self.schema}.events WHERE id NOT IN (SELECT id FROM {self.schema}.outbox)")
            self.made.clear()
            for name in ("parted", "leafy", "flat", "odd.Table", "again", "outbox"):
                cursor.execute(f"SELECT count(*) FROM {self.schema}.{self.name(name)}")
                self.made[name] = cursor.fetchone()[0]

    def lose(self, slot):
        """What was captured by a slot is captured no more, and table `again` changes: the next snapshot has what is left."""
        with self.connect() as connection:
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
            connection.commit()
            made = dict(self.made)
            for _ in range(30):
                self.change_flat(connection, "again")
            gone = sorted(self.lives["again"])[::3]
            connection.execute(f"DELETE FROM {self.schema}.again WHERE id = ANY(%s)", [gone])
            self.lives["again"] -= set(gone)
            connection.commit()
        self.made = Counter(made)
        self.made["again"] += len(self.lives["again"])
        return len(gone)

    def records(self, name, of_delete):
        return self.made[name] + of_delete * self.made[name, "deleted"]

    def number(self):
        self.next += 1
        return self.next

    def change_parted(self, connection, name):
        lives, rng = self.lives[name], self.rng
        table, what = f"{self.schema}.{name}", rng.random()
        if what < 0.35 or len(lives) < 3:
            row, region = self.number(), rng.choice(REGIONS)
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", [row, region, f"new {row}"])
            lives[row] = region
            self.made[name] += 1
            return
        row = rng.choice(sorted(lives))
        if what < 0.5:
            connection.execute(f"UPDATE {table} SET name = %s WHERE id = %s", [rng.choice(("x", None, "y" * 50)), row])
            self.made[name] += 1
        elif what < 0.85:
            region = rng.choice([region for region in REGIONS if region != lives[row]])
            connection.execute(f"UPDATE {table} SET region = %s, name = %s WHERE id = %s", [region, f"moved to {region}", row])
            lives[row] = region
            self.made[name] += 3  # A delete and its tombstone on one leaf, a create on the other.
        else:
            connection.execute(f"DELETE FROM {table} WHERE id = %s", [row])
            del lives[row]
            self.made[name] += 2

    def change_flat(self, connection, name):
        """Counts changes and deletes apart: the transformation's modes differ in how many records a delete makes."""
        lives, rng = self.lives[name], self.rng
        table, what = f"{self.schema}.{self.name(name)}", rng.random()
        if what < 0.4 or len(lives) < 3:
            row = self.number()
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s)", [row, f"new {row}", row, rng.choice((None, "z"))])
            lives.add(row)
            self.made[name] += 1
            return
        row = rng.choice(sorted(lives))
        if what < 0.65:
            connection.execute(f"UPDATE {table} SET qty = qty + 1, name = %s WHERE id = %s", [f"updated {row}", row])
            self.made[name] += 1
        elif what < 0.8:
            new = self.number()
            connection.execute(f"UPDATE {table} SET id = %s WHERE id = %s", [new, row])
            lives ^= {row, new}
            self.made[name] += 1
            self.made[name, "deleted"] += 1
        else:
            connection.execute(f"DELETE FROM {table} WHERE id = %s", [row])
            lives.discard(row)
            self.made[name, "deleted"] += 1

    def tell(self, connection):
        """An event of one of a few aggregates; some have no payload, most are deleted at once."""
        event, number = uuid.UUID(int=self.rng.getrandbits(128)), self.number()
        payload = {"total": number, "note": f"it's \"{number}\"\né", "lines": [number, 2], "deep": {"a": {"b": "c"}}}
        values = [event, "order", f"order-{number % 5}", self.rng.choice(("Created", "Sent")), None if number % 9 == 0 else json.dumps(payload)]
        connection.execute(f"INSERT INTO {self.schema}.outbox VALUES (%s, %s, %s, %s, %s)", values)
        self.made["outbox"] += 1
        if self.rng.random() < 0.7:
            connection.execute(f"DELETE FROM {self.schema}.outbox WHERE id = %s", [event])
            self.made["outbox", "deleted"] += 1
