"""Prints, as JSON, the ids that readers of others find in a Delta table: a query a line on standard input."""

import json
import pathlib
import sys

import deltalake
import duckdb
import duckdb_extension_delta

folder = pathlib.Path(sys.argv[1])
extension = next(pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension"))
duck = duckdb.connect()
duck.execute(f"LOAD '{extension}'")
duck.execute("SET TimeZone = 'UTC'")
duck.execute(f"CREATE VIEW t AS SELECT * FROM delta_scan('{folder.as_uri()}')")
table = deltalake.DeltaTable(str(folder))
rust = deltalake.QueryBuilder().register("t", table)

found = []
for line in sys.stdin:
    query = f"SELECT id FROM t WHERE {line.strip()} ORDER BY id"
    of_rust = [row for batch in rust.execute(query) for row in batch["id"].to_pylist()]
    of_duck = [row[0] for row in duck.execute(query).fetchall()]
    found.append({"deltalake": of_rust, "duckdb": of_duck})
print(json.dumps({"found": found, "history": len(table.history()), "columns": [f.name for f in table.schema().fields]}))
