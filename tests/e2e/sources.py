"""The source databases: tables, connections, and what SQL returns."""
from contextlib import contextmanager
from datetime import timezone
from urllib.parse import urlparse

import psycopg
import pyarrow as pa
import pymysql

import tables
from stack import ENV
from values import from_python


class Source:
    """A database with the tables of one run, in a schema (or database) of the run's name."""

    kind = ""
    quote = '"'

    def __init__(self, run):
        self.schema = run
        self.tables = ()
        self.url = ENV[self.kind.upper()]

    def name(self, identifier):
        return f"{self.quote}{identifier}{self.quote}"

    def table(self, table):
        return f"{self.name(self.schema)}.{self.name(table.name)}"

    def connect(self):
        raise NotImplementedError

    @contextmanager
    def cursor(self):
        """For statements that are each a transaction of their own."""
        connection = self.connect()
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def create(self):
        with self.cursor() as cursor:
            self.create_schema(cursor)
            for table in self.tables:
                columns = [f"{self.name(column.name)} {column.sql.format(schema=self.name(self.schema))}" for column in table.at(0)]
                key = ", ".join(map(self.name, table.key))
                statement = f"CREATE TABLE {self.table(table)} ({', '.join(columns)}, PRIMARY KEY ({key}))"
                for each in (statement + table.options.format(table=self.table(table))).split(";"):
                    cursor.execute(each)

    def change_columns(self, phase):
        """Adds the columns of a phase, nullable, and alters, renames and drops those that change in it."""
        with self.cursor() as cursor:
            for table in self.tables:
                for column in table.columns if phase else ():
                    if column.phase == phase:
                        cursor.execute(f"ALTER TABLE {self.table(table)} ADD COLUMN {self.name(column.name)} {column.sql}")
                    if column.gone == phase:
                        cursor.execute(f"ALTER TABLE {self.table(table)} DROP COLUMN {self.name(column.name)}")
                    if phase in (change[0] for change in column.changes):
                        cursor.execute(f"ALTER TABLE {self.table(table)} {self.altered(self.name(column.name), column.at(phase).sql)}")

                    if phase in (rename[0] for rename in column.renames):
                        before, after = column.at(phase - 1), column.at(phase)
                        names = self.name(before.name), self.name(after.name)
                        # Both ways to say it.
                        clause = f"CHANGE {names[0]} {names[1]} {after.sql}" if phase == tables.RENAMED else f"RENAME COLUMN {names[0]} TO {names[1]}"
                        cursor.execute(f"ALTER TABLE {self.table(table)} {clause}")

    def altered(self, name, sql):
        raise NotImplementedError

    def rows(self, table, phase):
        """All rows as SQL on the source returns them, as an Arrow table."""
        columns = table.at(phase)
        with self.cursor() as cursor:
            selected = ", ".join(column.select.format(self.name(column.name)) for column in columns)
            cursor.execute(f"SELECT {selected} FROM {self.table(table)}")
            rows = cursor.fetchall()
        values = zip(*rows) if rows else ([] for _ in columns)
        return pa.table({column.name: from_python(column.kind, self.zoned(column.kind, held)) for column, held in zip(columns, values)})

    def zoned(self, kind, values):
        return values


class Postgres(Source):
    kind = "postgres"
    short = "pg"

    def __init__(self, run):
        super().__init__(run)
        self.tables = tables.POSTGRES

    def connect(self):
        return psycopg.connect(self.url, options="-c timezone=UTC")

    def altered(self, name, sql):
        ty = sql.removesuffix(" NOT NULL")
        return f"ALTER {name} TYPE {ty}" + ("" if ty != sql else f", ALTER {name} DROP NOT NULL")

    def create_schema(self, cursor):
        cursor.execute(f"CREATE SCHEMA {self.name(self.schema)}")
        cursor.execute(f"CREATE TYPE {self.name(self.schema)}.mood AS ENUM ('sad', 'ok', 'it''s fine')")

    def drop(self, prefixes):
        with self.cursor() as cursor:
            for prefix in prefixes:
                cursor.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active", [prefix])
                cursor.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [prefix])
                cursor.execute(f"DROP PUBLICATION IF EXISTS {self.name(prefix)}")
            cursor.execute(f"DROP SCHEMA IF EXISTS {self.name(self.schema)} CASCADE")


class MySql(Source):
    kind = "mysql"
    short = "my"
    quote = "`"

    def __init__(self, run):
        super().__init__(run)
        self.tables = tables.mysql(is_mariadb=self.kind == "mariadb" or ENV["MYSQL_IS"] == "mariadb")

    def connect(self):
        url = urlparse(self.url)
        connection = pymysql.connect(host=url.hostname, port=url.port, user=url.username, password=url.password, charset="utf8mb4")
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES', innodb_lock_wait_timeout = 10")
            # Without locks on ranges: a transaction that stays open must not stop others on other rows.
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return connection

    @contextmanager
    def cursor(self):
        connection = self.connect()
        try:
            connection.autocommit(True)
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def altered(self, name, sql):
        return f"MODIFY {name} {sql}"

    def create_schema(self, cursor):
        cursor.execute(f"CREATE DATABASE {self.name(self.schema)} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")

    def drop(self, prefixes):
        with self.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS {self.name(self.schema)}")

    def zoned(self, kind, values):
        """The client shows a timestamp without its zone; the session's is UTC."""
        if kind != "timestamptz":
            return values
        return [value and value.replace(tzinfo=timezone.utc) for value in values]


class MariaDb(MySql):
    kind = "mariadb"
    short = "ma"


SOURCES = {source.kind: source for source in (Postgres, MySql, MariaDb)}
