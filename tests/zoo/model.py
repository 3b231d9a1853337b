"""What the zoo is made of: tables of one type in each column, values for them, and what a reader must find for each.

A value has rows of its own, in which every other column is null, so that a value that cannot be carried hides no other. The columns of a
connector depend on its options, and so does what becomes of a value; both are said by the same conditions: `time="connect"`,
`target=("delta", "both")`, `stage="stream"`. A condition holds when all of its names have one of its values; see `Context`.
"""
from dataclasses import dataclass, field

# A row's number is that of its value, from 0 in each table, and one of these.
SNAPSHOT, INSERT, UPDATE, DELETE = 1000, 2000, 3000, 4000
# Rows with the first value of every column, and with none; `TO_FULL` and `TO_EMPTY` change from one into the other.
FULL, FULL_INSERT, TO_FULL, EMPTY, EMPTY_INSERT, TO_EMPTY = 1, 2, 3, 11, 12, 13

# Debezium's options that change how values are written: their short names here.
OPTIONS = {
    "decimal": "decimal.handling.mode", "time": "time.precision.mode", "binary": "binary.handling.mode", "hstore": "hstore.handling.mode",
    "interval": "interval.handling.mode", "unsigned": "bigint.unsigned.handling.mode",
}
DEFAULTS = {"decimal": "precise", "binary": "bytes", "hstore": "json", "interval": "numeric", "unsigned": "long"}


def holds(when, context):
    return all(context.get(name) in ((wanted,) if isinstance(wanted, str) else wanted) for name, wanted in when.items())


@dataclass(frozen=True, eq=False)
class View:
    """How a column looks in the lake: its kind (`readers/values.py`), and the SQL whose result it must equal."""

    kind: str  # "absent": the connector leaves the column out
    select: str = "{}"
    convert: object = None  # from what the database's client gives to what `values.py` takes
    loses: str = ""  # what of the source's value is lost for every value, and by whom
    when: dict = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What becomes of a value where it cannot be carried as it is, and why."""

    what: str  # "dead": its record is a dead letter for the reason `detail`; "reads": SQL `detail` is read in its place
    detail: str
    why: str
    when: dict


def dead(reason, why, **when):
    return Outcome("dead", reason, why, when)


def reads(sql, why, **when):
    return Outcome("reads", sql, why, when)


@dataclass(frozen=True, eq=False)
class Value:
    sql: str
    outcomes: tuple = ()

    def outcome(self, context):
        return next((outcome for outcome in self.outcomes if holds(outcome.when, context)), None)


@dataclass(frozen=True, eq=False)
class Column:
    name: str
    sql: str
    views: tuple
    values: tuple
    streamed: str = ""  # SQL of what is read in rows that were last written while streaming, where the connector leaves the column out then

    def view(self, context):
        return next(view for view in self.views if holds(view.when, context))


@dataclass(frozen=True, eq=False)
class Table:
    name: str
    columns: tuple
    key: tuple = ("id",)

    def cases(self):
        """Every value with its number and its column."""
        pairs = [(column, value) for column in self.columns for value in column.values]
        return [(number, column, value) for number, (column, value) in enumerate(pairs)]

    def start(self, number):
        """The value that a row holds before it is updated to the value of this number."""
        _, column, value = self.cases()[number]
        return next((other for other in column.values if other is not value and not other.outcomes), None)


def column(name, sql, views, *values, streamed=""):
    views = (views,) if isinstance(views, View) else tuple(views)
    made = tuple(value if isinstance(value, Value) else Value(value) for value in values)
    return Column(name, sql, views, made, streamed)


def value(sql, *outcomes):
    return Value(sql, outcomes)


@dataclass(frozen=True, eq=False)
class Pending:
    """Differences that are known and not yet mended. One that no longer shows must be taken out, or the run fails."""

    reason: str
    when: dict  # conditions, and `database`, `table`, `column`, `value`


@dataclass(frozen=True)
class Context:
    """A connector with its options, and a target: what conditions are about."""

    database: str
    encoding: str
    options: dict
    target: str = ""

    def names(self, **more):
        time = "adaptive" if self.database == "postgres" else "adaptive_time_microseconds"
        return {"database": self.database, "encoding": self.encoding, "target": self.target, "time": time} | DEFAULTS | self.options | more
