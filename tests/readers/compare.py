"""Compares what a reader returns of tables, at several versions, with what SQL on the source returned then.

    compare.py READER JOB

READER is one of the modules beside this file. JOB is a JSON file: `{"lake": {...}, "tables": [{"name", "where", "key", "columns",
"versions": [{"phase", "version", "expected", "dropped"}]}]}`, where `expected` is an Arrow file with the source's rows, `dropped` names
columns that the source has no more and the table may have, and `lake` says how to reach the tables. For each version one line of JSON comes out: the rows compared and the differences found.
"""
import importlib
import json
import sys
import time

import pyarrow as pa
import pyarrow.compute as pc

from values import Field, Unlike, from_reader, same

METADATA = ["_cdc_op", "_cdc_ts", "_cdc_partition", "_cdc_offset"]
SHOWN = 4


def differences(got, expected, key, fields, later=()):
    """What is different, as sentences; nothing when the reader's rows are the source's.

    `later` names columns that the source got after this version: a reader may show them, empty.
    """
    found = []
    missing = [name for name in [field.name for field in fields] + METADATA if name not in got.column_names]
    if missing:
        return [f"columns {', '.join(missing)} are not there; there are {', '.join(got.column_names)}"]
    for name in got.column_names:
        known = name in expected.column_names or name in METADATA
        if not known and not (name in later and got[name].null_count == got.num_rows):
            found.append(f"column {name} is not the source's")
    try:
        rows = pa.table({field.name: from_reader(field.kind, got[field.name], field.was) for field in fields})
    except (Unlike, pa.ArrowInvalid) as error:
        return [*found, *_unlike(got, fields, error)]
    found += doubled(got)
    rows, wanted = _sorted(rows, key), _sorted(expected.select([field.name for field in fields]), key)
    if rows.num_rows == wanted.num_rows and all(same(field.kind, rows[field.name], wanted[field.name]) for field in fields):
        return found
    return found + _explain(rows, wanted, key, fields)


def _unlike(got, fields, error):
    found = []
    for field in fields:
        try:
            from_reader(field.kind, got[field.name], field.was)
        except (Unlike, pa.ArrowInvalid) as why:
            found.append(f"column {field.name}: {why}")
    return found or [str(error)]


def doubled(got):
    """A record makes one row at most: the same partition and offset twice is a record merged twice."""
    places = got.select(["_cdc_partition", "_cdc_offset"])
    counted = places.group_by(["_cdc_partition", "_cdc_offset"]).aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))
    found = [f"record {row['_cdc_partition']}@{row['_cdc_offset']} made {row['count_all']} rows" for row in twice.slice(0, SHOWN).to_pylist()]
    wrong = sorted(set(pc.unique(got["_cdc_op"]).to_pylist()) - {"c", "r", "u"}, key=str)
    return found + ([f"_cdc_op holds {wrong}"] if wrong else [])


def _sorted(table, key):
    return table.sort_by([(name, "ascending") for name in key]).combine_chunks()


def _explain(rows, wanted, key, fields):
    def by_key(table):
        keyed = {}
        for row in table.to_pylist():
            keyed.setdefault(tuple(row[name] for name in key), []).append(row)
        return keyed

    have, want = by_key(rows), by_key(wanted)
    found = [f"{rows.num_rows} rows, the source has {wanted.num_rows}"] if rows.num_rows != wanted.num_rows else []
    for what, keys in (("lost", want.keys() - have.keys()), ("not in the source", have.keys() - want.keys()),
                       ("there twice", {name for name, held in have.items() if len(held) > 1})):
        if keys:
            found.append(f"{len(keys)} keys {what}: {', '.join(map(str, sorted(keys)[:SHOWN]))}")
    cells = []
    for field in fields:
        for name in sorted(want.keys() & have.keys()):
            left, right = have[name][0][field.name], want[name][0][field.name]
            if repr(left) != repr(right):
                cells.append(f"{name} {field.name}: {short(left)}, the source has {short(right)}")
    if cells:
        found.append(f"{len(cells)} values differ: {'; '.join(cells[:SHOWN])}")
    return found or ["the rows differ"]


def short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}… ({len(text)} long)"


def main():
    reader, path = sys.argv[1:]
    with open(path) as file:
        job = json.load(file)
    reader = importlib.import_module(reader).Reader(job["lake"])
    for table in job["tables"]:
        for version in table["versions"]:
            begin = time.monotonic()
            with pa.memory_map(version["expected"]) as file:
                expected = pa.ipc.open_file(file).read_all()
            fields = [Field(*field) for field in table["columns"] if field[0] in expected.column_names]
            later = [field[0] for field in table["columns"] if field[0] not in expected.column_names]
            try:
                got = reader.read(table["where"], version)
                got = got.drop_columns([name for name in version["dropped"] if name in got.column_names])
                found = differences(got, expected, table["key"], fields, later)
            except Exception as error:  # A reader that fails at one version shall show what it does at the others.
                found = [f"cannot read: {type(error).__name__}: {' '.join(str(error).split())[:400]}"]
            print(json.dumps({"table": table["name"], "phase": version["phase"], "version": version["version"], "rows": expected.num_rows,
                              "differences": found, "seconds": round(time.monotonic() - begin, 3)}), flush=True)


if __name__ == "__main__":
    main()
