"""Does the comparison see what it is there to see? Run at the start of every end-to-end run."""
import math
from datetime import date, datetime, timezone
from decimal import Decimal

import pyarrow as pa

from compare import METADATA, differences
from values import Field, from_python

FIELDS = [Field("id", "int"), Field("n", "decimal(10,2)"), Field("f", "double"), Field("s", "text"), Field("b", "bytes"), Field("t", "timestamp"),
          Field("z", "timestamptz"), Field("d", "date"), Field("l", "list<int>"), Field("j", "json")]
ROWS = [
    [1, Decimal("1.10"), 0.0, "a", b"\0", datetime(2024, 1, 1, 0, 0, 0, 1), datetime(2024, 1, 1, tzinfo=timezone.utc), date(1, 1, 1), [1, None], '{"a":1}'],
    [2, None, math.nan, "", b"", datetime(9999, 12, 31), None, None, [], None],
    [3, Decimal("-0.01"), -0.0, None, None, None, None, date(9999, 12, 31), None, "[1.10]"],
]


def table(rows, metadata=True, fields=FIELDS):
    columns = {field.name: from_python(field.kind, values) for field, values in zip(fields, zip(*rows))}
    if metadata:
        count = len(rows)
        columns |= dict(zip(METADATA, [["c"] * count, [0] * count, [0] * count, list(range(count))]))
    return pa.table(columns)


def changed(row, column, value):
    rows = [list(values) for values in ROWS]
    rows[row][[field.name for field in FIELDS].index(column)] = value
    return table(rows)


def check():
    source = table(ROWS, metadata=False)

    def found(got):
        return differences(got, source, ["id"], FIELDS, later=["new"])

    alike = table(list(reversed(ROWS))).append_column("new", pa.nulls(3, pa.int64()))
    assert found(alike) == [], found(alike)
    wrong = {
        "a lost row": table(ROWS[:2]),
        "a row too many": table(ROWS + [[4, *ROWS[0][1:]]]),
        "a doubled row": table(ROWS + [ROWS[0]]),
        "another decimal": changed(0, "n", Decimal("1.11")),
        "null for a value": changed(0, "s", None),
        "empty text for null": changed(2, "s", ""),
        "zero for minus zero": changed(2, "f", 0.0),
        "null for NaN": changed(1, "f", None),
        "a microsecond": changed(0, "t", datetime(2024, 1, 1)),
        "an instant": changed(0, "z", datetime(2024, 1, 1, 1, tzinfo=timezone.utc)),
        "a day": changed(0, "d", date(1, 1, 2)),
        "an element": changed(0, "l", [None, 1]),
        "null for an empty list": changed(1, "l", None),
        "another document": changed(2, "j", "[1.1]"),
        "a missing column": table(ROWS).drop_columns(["d"]),
        "a surplus column": table(ROWS).append_column("x", pa.nulls(3, pa.int64())),
        "a value before its column": table(ROWS).append_column("new", pa.array([1, None, None])),
        "a record twice": table(ROWS).set_column(13, "_cdc_offset", pa.array([0, 0, 1])),
        "a deleted row": table(ROWS).set_column(10, "_cdc_op", pa.array(["c", "d", "u"])),
        "text for a number": table(ROWS).set_column(0, "id", pa.array(["1", "2", "3"])),
        "a timestamp without zone": table(ROWS).set_column(6, "z", table(ROWS)["z"].cast(pa.timestamp("us"))),
    }
    blind = [what for what, got in wrong.items() if not found(got)]
    assert not blind, f"not seen: {', '.join(blind)}"


if __name__ == "__main__":
    check()
    print("the comparison sees what it shall")
