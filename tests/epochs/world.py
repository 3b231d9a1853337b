"""The databases of a run, a second server for each that takes its place, their connectors, and the changes made in them."""
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import sources
import tables
from catalogs import PARTS
from connectors import Connector
from stack import REPOSITORY, Fail
from workload import Workload

# Between the places of two servers' logs, so that the second one's stay below the first one's: bytes of Postgres', files of MySQL's.
APART_BYTES, APART_FILES = 256 << 20, 3


def chosen(every):
    """Few rows, so that each has many changes. Topics of tables named `again` have one partition."""
    rows = {"lines": 40, "notes": 20}
    return (*(replace(table, rows=rows[table.name]) for table in every if table.name in rows), like_emptied("again"))


def like_emptied(name):
    return replace(tables.EMPTIED, name=name)


class Postgres(sources.Postgres):
    def __init__(self, run, url=None):
        super().__init__(run)
        self.url = url or self.url
        self.tables = chosen(tables.POSTGRES)

    def place(self, cursor):
        cursor.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        return cursor.fetchone()[0]

    def go_beyond(self, other):
        """Takes its log so far that it is well after the other server's."""
        with self.cursor() as own, other.cursor() as others:
            while self.place(own) < other.place(others) + APART_BYTES:
                own.execute("SELECT pg_logical_emit_message(false, 'epochs', '')")
                own.execute("SELECT pg_switch_wal()")
            return self.place(own), other.place(others)


class MySql(sources.MySql):
    def __init__(self, run, url=None):
        super().__init__(run)
        self.url = url or self.url
        self.tables = chosen(self.tables)

    def place(self, cursor):
        cursor.execute("SHOW BINARY LOGS")
        return int(cursor.fetchall()[-1][0].rpartition(".")[2])

    def go_beyond(self, other):
        with self.cursor() as own, other.cursor() as others:
            while self.place(own) < other.place(others) + APART_FILES:
                own.execute("FLUSH BINARY LOGS")
            return self.place(own), other.place(others)


class Remade(sources.Postgres):
    """Tables of which two topics are deleted and made again; in the schema that the others are in."""

    short = "pg"

    def __init__(self, run):
        super().__init__(run)
        self.tables = tuple(like_emptied(name) for name in ("fewer", "more", "steady"))

    def create_schema(self, cursor):
        pass


class Stream(Connector):
    """A connector and the changes of what it reads. Its producer soon sees that a topic has more partitions."""

    def __init__(self, run, source, encoding, seed, suffix=""):
        super().__init__(run, source, encoding, partitions=2)
        self.prefix += suffix
        self.load = Workload(source, seed)
        self.wanted = {table.name: 0 for table in source.tables}

    def body(self):
        body = super().body()
        names = "|".join(table.name for table in self.source.tables)
        body["config"] |= {"table.include.list": rf"{self.run}\.({names})", "producer.override.metadata.max.age.ms": "500"}
        return body

    def fill(self):
        self.source.create()
        self.load.fill()

    def records(self):
        """How many records each topic must have."""
        return {self.topic(table): self.wanted[table.name] + self.load.records[table.name] for table in self.source.tables}

    def replace(self, source, seed):
        """Another server takes the source's place, with the records of its initial snapshot after those that there are."""
        self.wanted = {table.name: self.wanted[table.name] + self.load.records[table.name] for table in source.tables}
        self.source, self.load = source, Workload(source, seed)
        self.fill()

    def snapshot_again(self, remade):
        """The rows that there are come again, after the records that there are or, in topics that were deleted, alone."""
        for table in self.source.tables:
            with self.source.cursor() as cursor:
                cursor.execute(f"SELECT count(*) FROM {self.source.table(table)}")
                rows = cursor.fetchone()[0]
            before = 0 if table.name in remade else self.wanted[table.name] + self.load.records[table.name]
            self.wanted[table.name] = before + rows
            self.load.records[table.name] = 0

    def remake_rows(self):
        """While nothing is captured table `fewer` loses most of its rows and `more` gets many."""
        fewer, more, _ = self.source.tables
        with self.load.transaction() as transaction:
            for _ in range(sum(self.load.lives["fewer"].values()) - 5):
                transaction.delete(fewer)
            for _ in range(self.load.records["more"] + 50):
                transaction.insert(more)


class SecondServers:
    """Servers of the databases whose logs have only begun, from the stack's own parts in a folder of the run."""

    def __init__(self, folder):
        self.folder = Path(folder) / "second"
        self.folder.mkdir()
        (self.folder / "parts").symlink_to(PARTS)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("CDC_SINK_STACK_")}
        self.environment["CDC_SINK_STACK_DIR"] = str(self.folder)

    def stack(self, *arguments):
        program = [REPOSITORY / "tests" / "stack" / "stack", *arguments]
        ended = subprocess.run(program, env=self.environment, capture_output=True, text=True, timeout=300)
        if ended.returncode:
            raise Fail(f"stack {' '.join(arguments)}, a second one: {ended.stderr[-1500:]}")
        return ended.stdout

    def start(self, names):
        """Their addresses, by kind."""
        self.stack("start", *names)
        lines = (line.removeprefix("export CDC_SINK_TEST_").partition("=") for line in self.stack("env").splitlines())
        return {key.lower(): value for key, _, value in lines}

    def stop(self):
        self.stack("stop")
        shutil.rmtree(self.folder / "data", ignore_errors=True)
