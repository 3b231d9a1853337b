"""deltalake and DuckDB on the Delta table in the folder given: an order a line on standard input, an answer in JSON a line."""

import json
import pathlib
import sys

import deltalake
import duckdb
import duckdb_extension_delta

folder = pathlib.Path(sys.argv[1])
extension = next(pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension"))
duck = duckdb.connect()
# A query that takes long would write its progress to standard output.
duck.execute("SET enable_progress_bar = false")
duck.execute(f"LOAD '{extension}'")
duck.execute("SET TimeZone = 'UTC'")


def ids(condition):
    query = f"SELECT id FROM t WHERE {condition} ORDER BY id"
    batches = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(str(folder))).execute(query)
    of_rust = [row for batch in batches for row in batch["id"].to_pylist()]
    duck.execute(f"CREATE OR REPLACE VIEW t AS SELECT * FROM delta_scan('{folder.as_uri()}')")
    of_duck = [row[0] for row in duck.execute(query).fetchall()]
    return of_rust if of_rust == of_duck else {"deltalake": of_rust, "DuckDB": of_duck}


for line in sys.stdin:
    order, _, rest = line.strip().partition(" ")
    if order == "ids":
        answer = ids(rest)
    elif order == "delete":
        answer = deltalake.DeltaTable(str(folder)).delete(rest)["num_deleted_rows"]
    elif order == "compact":
        answer = deltalake.DeltaTable(str(folder)).optimize.compact()["numFilesRemoved"]
    elif order == "changes":
        changes = deltalake.DeltaTable(str(folder)).load_cdf(starting_version=int(rest)).read_all()
        answer = sorted(zip(*(changes[name].to_pylist() for name in ("id", "_change_type", "_commit_version"))))
    elif order == "operations":
        answer = [commit["operation"] for commit in deltalake.DeltaTable(str(folder)).history()]
    print(json.dumps(answer), flush=True)
