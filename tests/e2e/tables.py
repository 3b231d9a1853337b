"""The tables of the source: their columns in each database's SQL, how each is compared, and values for them.

`kind` is from `readers/values.py`; `declared` is the type given to cdc-sink for JSON without schema.
"""
import json
import string
import uuid
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

LETTERS = string.ascii_letters + string.digits + "  äöß漢字😀'\"\\\n\t%"


@dataclass(frozen=True)
class Column:
    name: str
    sql: str
    kind: str
    declared: str
    make: object  # from a random generator to a value the database's client takes
    nulls: bool = True
    select: str = "{}"  # how it is read, when not as it is
    phase: int = 0  # the phase that adds it
    gone: int = 1000  # the phase that drops it
    was: str = ""  # the kind it had before `changes` made it wider
    changes: tuple = ()  # (phase, SQL type, how values are made, whether they may be null) from then on
    renames: tuple = ()  # (phase, name) from then on

    def at(self, phase):
        """The column as it is in a phase."""
        column = self
        for since, sql, make, nulls in self.changes:
            if since <= phase:
                column = replace(column, sql=sql, make=make, nulls=nulls)
        for since, name in self.renames:
            if since <= phase:
                column = replace(column, name=name)
        return column

    def names(self):
        """All names that it ever has."""
        return [self.name, *(name for _, name in self.renames)]


@dataclass(frozen=True)
class Table:
    name: str
    key: tuple
    columns: tuple
    rows: int  # before the initial snapshot
    large: tuple = ()  # columns that most updates leave alone
    options: str = ""

    def at(self, phase):
        """The columns that are there in a phase."""
        return [column.at(phase) for column in self.columns if column.phase <= phase < column.gone]

    def changes(self, phase):
        """True when its columns change in a phase, or one that went some phases ago must be gone by then."""
        changes = (moment[0] for column in self.columns for moment in (*column.changes, *column.renames))
        return phase in changes or any(phase == column.phase or 0 <= phase - column.gone <= 2 for column in self.columns)

    def dropped(self, phase, since=0):
        """The names of the columns that went in a phase or before, but not before `since`."""
        return [column.name for column in self.columns if since <= column.gone <= phase]


def text(least, most):
    return lambda rng: "".join(rng.choices(LETTERS, k=rng.randint(least, most))).strip()


def word(length):
    return lambda rng: "".join(rng.choices(string.ascii_lowercase, k=length))


def incompressible(least, most):
    """Hexadecimal digits, which Postgres cannot make short enough to stay in the row."""
    return lambda rng: rng.randbytes(rng.randint(least, most) // 2).hex()


def whole(bits):
    return lambda rng: rng.choice([-(1 << bits - 1), (1 << bits - 1) - 1, 0, rng.randint(-(1 << bits - 1), (1 << bits - 1) - 1)])


def natural(most):
    return lambda rng: rng.choice([most, 0, rng.randint(0, most)])


def number(precision, scale):
    most = 10**precision - 1
    # Spelled, as arithmetic would round to the context's digits.
    return lambda rng: Decimal(f"{rng.choice([most, -most, 0, rng.randint(-most, most)])}E-{scale}")


def pick(*values):
    return lambda rng: rng.choice(values)


def octets(least, most):
    return lambda rng: rng.randbytes(rng.randint(least, most))


def day(first, last):
    return lambda rng: rng.choice([first, last, first + timedelta(rng.randint(0, (last - first).days))])


def moment(first, last, digits):
    """A timestamp of at most `digits` decimals."""
    def make(rng):
        at = first + timedelta(microseconds=rng.randint(0, (last - first) // timedelta(microseconds=1)))
        return at.replace(microsecond=at.microsecond // 10**(6 - digits) * 10**(6 - digits))
    return make


def clock(rng):
    return time(rng.randint(0, 23), rng.randint(0, 59), rng.randint(0, 59), rng.choice([0, 999_999, rng.randint(0, 999_999)]))


def document(rng, size=0):
    value = {"n": rng.randint(-9, 1 << 53), "s": text(0, 20)(rng), "list": [1, None, True, 1.5, {"deep": []}], "ü": rng.random()}
    return json.dumps(value | ({"large": incompressible(size, size * 2)(rng)} if size else {}), ensure_ascii=rng.random() < 0.5)


def listing(element, most=4):
    return lambda rng: [None if rng.random() < 0.2 else element(rng) for _ in range(rng.randint(0, most))]


def column(name, sql, kind, declared, make, **more):
    return Column(name, sql, kind, declared, make, **more)


REV = column("rev", "int NOT NULL", "int", "int", lambda rng: 0, nulls=False)
EARLY, LATE = datetime(1970, 1, 1), datetime(2037, 12, 31)
INF = float("inf")
# At most six digits: MySQL's client protocol shows no more of a float, in Debezium's initial snapshot too.
SHORT = pick(0.0, 1.5, -2.25, 3.14159, 123456.0, 1e-5, -1e30)

LOOSENED, WIDENED, DROPPED = 2, 3, 4
RENAMED, RENAMED_AGAIN = 1, 3

# A TRUNCATE empties it in some phases.
EMPTIED = Table("emptied", ("id",), (
    column("id", "bigint", "int", "long", None, nulls=False),
    column("word", "varchar(40)", "text", "string", text(0, 40)),
    REV,
), rows=40)


def grown(decimal, real, double, select="{}"):
    """A table whose columns change: wider types, the key's too, a NOT NULL that goes, a column that goes."""
    fractions = pick(0.0, 0.5, -2.25, 1e6)
    return Table("grown", ("number",), (
        column("number", "int", "int", "long", None, nulls=False, changes=((WIDENED, "bigint NOT NULL", None, False),)),
        column("grows", "int", "int", "long", whole(32), changes=((WIDENED, "bigint", whole(64), True),)),
        column("grows_num", f"{decimal}(8,2)", "decimal(20,2)", "decimal(20,2)", number(8, 2), was="decimal(8,2)",
               changes=((WIDENED, f"{decimal}(20,2)", number(20, 2), True),)),
        column("grows_real", real, "double", "double", fractions, was="float", select=select,
               changes=((WIDENED, double, pick(0.1, -1e300, 0.5), True),)),
        column("loosened", "varchar(20) NOT NULL", "text", "string", text(0, 20), nulls=False,
               changes=((LOOSENED, "varchar(20)", text(0, 20), True),)),
        column("doomed", "varchar(20)", "text", "string", text(0, 20), gone=DROPPED),
        REV,
    ), rows=100)


POSTGRES = (
    Table("wide", ("id",), (
        column("id", "bigint", "int", "long", None, nulls=False),
        column("c_small", "smallint", "int", "int", whole(16)),
        column("c_int", "integer", "int", "int", whole(32)),
        column("c_big", "bigint", "int", "long", whole(64)),
        column("c_real", "real", "float", "float", pick(0.0, -0.0, 1.5, 3.4028235e38, 1e-45, 0.1, INF, -INF, float("nan"))),
        column("c_double", "double precision", "double", "double", pick(-0.0, 0.1, 5e-324, 1.7976931348623157e308, INF, -INF, float("nan"), 1 / 3)),
        column("c_num", "numeric(18,4)", "decimal(18,4)", "decimal(18,4)", number(18, 4)),
        column("c_num38", "numeric(38,10)", "decimal(38,10)", "decimal(38,10)", number(38, 10)),
        column("c_num0", "numeric(10,0)", "decimal(10,0)", "decimal(10,0)", number(10, 0)),
        column("c_bool", "boolean", "bool", "boolean", pick(True, False)),
        column("c_char", "char(6)", "text", "string", word(4)),
        column("c_varchar", "varchar(40)", "text", "string", text(0, 40)),
        column("c_text", "text", "text", "string", text(0, 200)),
        column("c_bytea", "bytea", "bytes", "bytes", octets(0, 60)),
        column("c_date", "date", "date", "date", day(date(1, 1, 1), date(9999, 12, 31))),
        column("c_ts", "timestamp", "timestamp", "timestamp(micros)", moment(datetime(1, 1, 1), datetime(9999, 12, 31), 6)),
        column("c_ts3", "timestamp(3)", "timestamp", "timestamp(millis)", moment(EARLY, LATE, 3)),
        column("c_tstz", "timestamptz", "timestamptz", "timestamptz",
               lambda rng: moment(datetime(1900, 1, 1), datetime(2200, 1, 1), 6)(rng).replace(tzinfo=timezone(timedelta(hours=rng.randint(-9, 9))))),
        column("c_uuid", "uuid", "text", "uuid", lambda rng: uuid.UUID(int=rng.getrandbits(128))),
        column("c_json", "json", "text", "json", document, select="{}::text"),
        column("c_jsonb", "jsonb", "text", "json", document, select="{}::text"),
        column("c_enum", "{schema}.mood", "text", "string", pick("sad", "ok", "it's fine")),
        column("c_inet", "inet", "text", "string", pick("10.0.0.0/8", "192.168.1.5", "::1"), select="nullif(format('%s', {}), '')"),
        column("c_ints", "int[]", "list<int>", "list<int>", listing(whole(32))),
        column("c_texts", "text[]", "list<text>", "list<string>", listing(text(0, 12))),
        column("c_nums", "numeric(10,2)[]", "list<decimal(10,2)>", "list<decimal(10,2)>", listing(number(10, 2))),
        column("mixedCase", "text", "text", "string", word(5)),
        REV,
        column("added_num", "numeric(12,3)", "decimal(12,3)", "decimal(12,3)", number(12, 3), phase=5),
        column("added_tstz", "timestamptz", "timestamptz", "timestamptz", pick(datetime(2024, 2, 29, 1, 2, 3, 4, timezone.utc)), phase=5),
    ), rows=150),
    Table("lines", ("org", "id"), (
        column("org", "varchar(20)", "text", "string", None, nulls=False),
        column("id", "integer", "int", "int", None, nulls=False),
        column("price", "numeric(12,2)", "decimal(12,2)", "decimal(12,2)", number(12, 2)),
        column("at", "time", "time", "time(micros)", clock),
        column("note", "varchar(200)", "text", "string", text(0, 60)),
        REV,
    ), rows=200),
    Table("notes", ("slug",), (
        column("slug", "text", "text", "string", None, nulls=False),
        column("title", "text", "text", "string", text(0, 30)),
        column("body", "text", "text", "string", incompressible(2500, 6000)),
        column("doc", "jsonb", "text", "json", lambda rng: document(rng, 2500), select="{}::text"),
        column("raw", "bytea", "bytes", "bytes", octets(2500, 4000)),
        REV,
        column("added_text", "text", "text", "string", text(0, 30), phase=7),
    ), rows=60, large=("body", "doc", "raw"),
        options="".join(f"; ALTER TABLE {{table}} ALTER {name} SET STORAGE EXTERNAL" for name in ("body", "doc", "raw"))),
    grown("numeric", "real", "double precision"),
    EMPTIED,
)


def mysql(is_mariadb):
    """MariaDB keeps json as the text it was given, so that its text is compared."""
    return (
        Table("wide", ("id",), (
            column("id", "bigint", "int", "long", None, nulls=False),
            column("c_bool", "boolean", "int", "int", pick(0, 1)),
            column("c_tiny", "tinyint", "int", "int", whole(8)),
            column("c_utiny", "tinyint unsigned", "int", "int", natural(255)),
            column("c_small", "smallint", "int", "int", whole(16)),
            column("c_usmall", "smallint unsigned", "int", "int", natural(65535)),
            column("c_medium", "mediumint", "int", "int", whole(24)),
            column("c_umedium", "mediumint unsigned", "int", "int", natural((1 << 24) - 1)),
            column("c_int", "int", "int", "int", whole(32)),
            column("c_uint", "int unsigned", "int", "long", natural((1 << 32) - 1)),
            column("c_big", "bigint", "int", "long", whole(64)),
            column("c_ubig", "bigint unsigned", "int", "long", natural((1 << 63) - 1)),
            column("c_dec", "decimal(18,4)", "decimal(18,4)", "decimal(18,4)", number(18, 4)),
            column("c_dec38", "decimal(38,10)", "decimal(38,10)", "decimal(38,10)", number(38, 10)),
            column("c_float", "float", "float", "float", SHORT, select="CAST({} AS DOUBLE)"),
            column("c_double", "double", "double", "double", pick(0.1, 1 / 3, 1.7976931348623157e308, -5e-300, 1e15)),
            column("c_date", "date", "date", "date", day(date(1000, 1, 1), date(9999, 12, 31))),
            column("c_dt", "datetime", "timestamp", "timestamp(millis)", moment(datetime(1000, 1, 1), datetime(9999, 12, 31), 0)),
            column("c_dt3", "datetime(3)", "timestamp", "timestamp(millis)", moment(EARLY, LATE, 3)),
            column("c_dt6", "datetime(6)", "timestamp", "timestamp(micros)", moment(datetime(1000, 1, 1), datetime(9999, 12, 31), 6)),
            column("c_ts", "timestamp NULL", "timestamptz", "timestamptz", moment(datetime(1971, 1, 1), LATE, 0)),
            column("c_ts6", "timestamp(6) NULL", "timestamptz", "timestamptz", moment(datetime(1971, 1, 1), LATE, 6)),
            column("c_year", "year", "int", "int", pick(1901, 1999, 2024, 2155)),
            column("c_enum", "enum('a','b','c d')", "text", "string", pick("a", "b", "c d")),
            column("c_set", "set('x','y','z')", "text", "string", pick("", "x", "x,z", "x,y,z")),
            column("c_json", "json", "text" if is_mariadb else "json", "string" if is_mariadb else "json", document),
            column("c_bit", "bit(1)", "bool", "boolean", pick(0, 1)),
            column("c_bin", "binary(4)", "bytes", "bytes", octets(4, 4)),
            column("c_varbin", "varbinary(20)", "bytes", "bytes", octets(0, 20)),
            column("c_blob", "blob", "bytes", "bytes", octets(0, 300)),
            column("c_char", "char(5)", "text", "string", word(3)),
            column("c_varchar", "varchar(50)", "text", "string", text(0, 50)),
            column("c_text", "text", "text", "string", text(0, 200)),
            column("mixedCase", "varchar(10)", "text", "string", word(5)),
            REV,
            column("added_num", "decimal(12,3)", "decimal(12,3)", "decimal(12,3)", number(12, 3), phase=5),
            column("added_ts", "timestamp(6) NULL", "timestamptz", "timestamptz", moment(datetime(1971, 1, 1), LATE, 6), phase=5),
        ), rows=150),
        Table("lines", ("org", "id"), (
            column("org", "varchar(20)", "text", "string", None, nulls=False),
            column("id", "int", "int", "int", None, nulls=False),
            column("price", "decimal(12,2)", "decimal(12,2)", "decimal(12,2)", number(12, 2)),
            column("at", "time(6)", "time", "time(micros)", clock),
            column("note", "varchar(200)", "text", "string", text(0, 60)),
            REV,
        ), rows=200),
        Table("notes", ("slug",), (
            column("slug", "varchar(60)", "text", "string", None, nulls=False),
            column("title", "text", "text", "string", text(0, 30)),
            column("body", "longtext", "text", "string", incompressible(2500, 6000)),
            column("raw", "longblob", "bytes", "bytes", octets(2500, 4000)),
            REV,
            column("added_text", "text", "text", "string", text(0, 30), phase=7),
        ), rows=60, large=("body", "raw")),
        grown("decimal", "float", "double", select="CAST({} AS DOUBLE)"),
        EMPTIED,
        # The connector tells of its columns' renames: rows from before have their values under the new names.
        Table("renamed", ("id",), (
            column("id", "bigint", "int", "long", None, nulls=False),
            column("label", "varchar(40)", "text", "string", text(0, 40), renames=((RENAMED, "title"), (RENAMED_AGAIN, "heading"))),
            column("count", "int", "int", "int", whole(32), renames=((RENAMED_AGAIN, "amount"),)),
            REV,
        ), rows=100),
    )
