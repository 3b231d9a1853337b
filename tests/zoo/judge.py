"""Reads tables with one reader and tells every cell that is not as expected.

    judge.py READER JOB

As `readers/compare.py`, but each difference is a JSON object, so that it can be told which are known. A line for each version of a table.
"""
import importlib
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "readers"))

import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402

from compare import METADATA, doubled, short  # noqa: E402
from values import Unlike, from_reader, unlike  # noqa: E402


def judge(got, expected, kinds):
    """Differences, each with what is known of `row`, `column`, `have` and `want`."""
    found = [{"have": text} for text in doubled(got)]
    found += [{"column": name, "have": "a column that shall not be there"} for name in got.column_names
              if name not in METADATA and name not in expected.column_names]
    ids = got["id"].combine_chunks()
    have, want = set(ids.to_pylist()), set(expected["id"].to_pylist())
    found += [{"row": row, "have": "no row", "want": "a row"} for row in sorted(want - have)]
    found += [{"row": row, "have": "a row", "want": "no row"} for row in sorted(have - want)]
    if len(ids) != len(have):
        return [*found, {"have": "rows that are there twice"}]
    both = pa.array(sorted(have & want), pa.int64())
    ours, theirs = pc.index_in(both, ids), pc.index_in(both, expected["id"].combine_chunks())
    for name, kind in kinds:
        if name not in got.column_names:
            found.append({"column": name, "have": f"no column; there are {', '.join(got.column_names)}"})
            continue
        try:
            column = from_reader(kind, got[name])
        except (Unlike, pa.ArrowInvalid) as error:
            found.append({"column": name, "have": str(error)})
            continue
        found += [{"row": both[index].as_py(), "column": name, "have": short(left), "want": short(right)}
                  for index, left, right in unlike(kind, column.take(ours), expected[name].combine_chunks().take(theirs))]
    return found


def main():
    reader, path = sys.argv[1:]
    with open(path) as file:
        job = json.load(file)
    reader = importlib.import_module(reader).Reader(job["lake"])
    for table in job["tables"]:
        for version in table["versions"]:
            with pa.memory_map(version["expected"]) as file:
                expected = pa.ipc.open_file(file).read_all()
            try:
                found = judge(reader.read(table["where"], version), expected, table["columns"])
            except Exception as error:  # The other tables shall be read.
                found = [{"have": f"cannot read: {type(error).__name__}: {' '.join(str(error).split())[:400]}"}]
            print(json.dumps({"topic": table["topic"], "table": table["name"], "phase": version["phase"], "rows": expected.num_rows,
                              "columns": len(table["columns"]), "differences": found}), flush=True)


if __name__ == "__main__":
    main()
