"""The zoo in a database: made, filled, changed, and what SQL says of it."""
import mysql
import pyarrow as pa
from model import (DELETE, EMPTY, EMPTY_INSERT, FULL, FULL_INSERT, INSERT, SNAPSHOT, TO_EMPTY, TO_FULL, UPDATE)

import postgres
import sources
from values import from_python


class Zoo:
    """What the sources of both kinds share; mixed into the end-to-end test's."""

    def create(self):
        with self.cursor() as cursor:
            self.create_schema(cursor)
            for table in self.tables:
                columns = "".join(f", {self.name(column.name)} {column.sql}" for column in table.columns)
                cursor.execute(f"CREATE TABLE {self.table(table)} (id bigint PRIMARY KEY{columns}){self.suffix}")

    def fill(self):
        """Everything that the initial snapshot shall hold; returns its number of rows for each table."""
        return self.write(lambda table: [
            (FULL, full(table)), (EMPTY, {}), (TO_FULL, {}), (TO_EMPTY, full(table)),
            *((base + number, {column: value}) for number, column, value in table.cases() for base in (SNAPSHOT, DELETE)),
            *((UPDATE + number, {column: start} if (start := table.start(number)) else {}) for number, column, _ in table.cases()),
        ])

    def change(self):
        """Inserts, updates and deletes; returns the number of records that they make for each table: a delete makes two."""
        made = self.write(lambda table: [
            (FULL_INSERT, full(table)), (EMPTY_INSERT, {}), *((INSERT + number, {column: value}) for number, column, value in table.cases()),
        ])
        with self.cursor() as cursor:
            for table in self.tables:
                changes = [(TO_FULL, full(table)), (TO_EMPTY, {column: None for column in full(table)})]
                changes += [(UPDATE + number, {column: value}) for number, column, value in table.cases()]
                for row, values in changes:
                    values = ", ".join(f"{self.name(column.name)} = {value.sql if value else 'DEFAULT'}" for column, value in values.items())
                    cursor.execute(f"UPDATE {self.table(table)} SET {values} WHERE id = {row}")
                for number, _, _ in table.cases():
                    cursor.execute(f"DELETE FROM {self.table(table)} WHERE id = {DELETE + number}")
                made[table.name] += len(changes) + 2 * len(table.cases())
        return made

    def write(self, rows_of):
        made = {}
        with self.cursor() as cursor:
            for table in self.tables:
                rows = rows_of(table)
                for row, values in rows:
                    columns = "".join(f", {self.name(column.name)}" for column in values)
                    literals = "".join(f", {value.sql}" for value in values.values())
                    cursor.execute(f"INSERT INTO {self.table(table)} (id{columns}) VALUES ({row}{literals})")
                made[table.name] = len(rows)
        return made

    def select(self, table, views, replaced):
        """Rows by number, with what each view shows; `replaced[column]` has other SQL, or none at all, for some rows."""
        selected = []
        for column, view in views:
            sql = view.select.format(self.name(column.name))
            cases = "".join(f" WHEN {row} THEN {other}" for row, other in sorted(replaced.get(column.name, {}).items()))
            selected.append(f", CASE id{cases} ELSE {sql} END" if cases else f", {sql}")
        with self.cursor() as cursor:
            cursor.execute(f"SELECT id{''.join(selected)} FROM {self.table(table)}")
            rows = cursor.fetchall()
        held = list(zip(*rows))
        found = {"id": pa.array(held[0], pa.int64())}
        for (column, view), values in zip(views, held[1:]):
            values = [view.convert(value) for value in values] if view.convert else values
            try:
                found[column.name] = from_python(view.kind, self.zoned(view.kind, values))
            except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
                raise ValueError(f"{table.name}.{column.name}, a {view.kind}: {error}") from error
        return pa.table(found)


def full(table):
    """A row of values that are read as they are."""
    plain = {column: [value for value in column.values if not value.outcomes] for column in table.columns}
    return {column: values[0] for column, values in plain.items() if values}


class Postgres(Zoo, sources.Postgres):
    suffix = ""

    def __init__(self, run):
        super().__init__(run)
        self.tables = postgres.TABLES

    def connect(self):
        connection = super().connect()
        connection.execute(f"SET search_path = {self.name(self.schema)}, public; SET intervalstyle = iso_8601")
        connection.commit()
        return connection

    def create_schema(self, cursor):
        cursor.execute(f"CREATE SCHEMA {self.name(self.schema)}")
        for statement in postgres.SETUP:
            cursor.execute(statement)


class MySql(Zoo, sources.MySql):
    suffix = ""

    def __init__(self, run):
        super().__init__(run)
        self.tables = mysql.tables(is_mariadb=self.kind == "mariadb")

    def connect(self):
        connection = super().connect()
        with connection.cursor() as cursor:
            cursor.execute("SET sql_mode = 'NO_ENGINE_SUBSTITUTION'")  # As old applications run, which write zero dates.
        return connection


class MariaDb(MySql):
    kind = "mariadb"
    short = "ma"


SOURCES = {source.kind: source for source in (Postgres, MySql, MariaDb)}
VARIANTS = {"postgres": postgres.VARIANTS, "mysql": mysql.VARIANTS, "mariadb": mysql.VARIANTS}
