"""Prints, as JSON, what readers of others find in an Iceberg table: the names by id of every snapshot, the ids that
meet each condition (a line of standard input) now, and the summaries."""

import json
import pathlib
import sys

import duckdb
import duckdb_extension_avro
import duckdb_extension_iceberg
from pyiceberg.table import StaticTable

folder = pathlib.Path(sys.argv[1])
duck = duckdb.connect()
# A query that takes long would write its progress to standard output.
duck.execute("SET enable_progress_bar = false")
for extension in (duckdb_extension_avro, duckdb_extension_iceberg):
    duck.execute(f"LOAD '{next(pathlib.Path(extension.__file__).parent.rglob('*.duckdb_extension'))}'")
version = (folder / "metadata/version-hint.text").read_text().strip()
table = StaticTable.from_metadata(str(folder / f"metadata/v{version}.metadata.json"))
scan = f"iceberg_scan('{folder}'"

snapshots = {}
for snapshot in table.snapshots():
    id = snapshot.snapshot_id
    rows = table.scan(snapshot_id=id, selected_fields=("id", "name")).to_arrow().to_pylist()
    duck_rows = duck.execute(f"SELECT id, name FROM {scan}, snapshot_from_id={id})").fetchall()
    summary = snapshot.summary
    snapshots[id] = {
        "pyiceberg": sorted([row["id"], row["name"]] for row in rows),
        "duckdb": sorted([row[0], row[1]] for row in duck_rows),
        "operation": summary.operation.value,
        "live": int(summary["total-records"]) - int(summary["total-position-deletes"]),
    }
found = []
for line in sys.stdin:
    line = line.strip()
    of_py = table.scan(row_filter=line, selected_fields=("id",)).to_arrow()["id"].to_pylist()
    of_duck = duck.execute(f"SELECT id FROM {scan}) WHERE {line}").fetchall()
    found.append({"pyiceberg": sorted(of_py), "duckdb": sorted(row[0] for row in of_duck)})
row_ids = None
if table.metadata.format_version >= 3:
    of_duck = duck.execute(f"SELECT id, _row_id FROM {scan}) ORDER BY id").fetchall()
    row_ids = [list(row) for row in of_duck]
print(json.dumps({
    "snapshots": snapshots, "found": found, "row_ids": row_ids,
    "columns": [field.name for field in table.schema().fields],
    "identifiers": [table.schema().find_column_name(id) for id in table.schema().identifier_field_ids],
}))
