"""Prints, as JSON, the rows that readers of others find in a table: its folder, then its formats. Rows come in the order of their
first column; values are texts as our own reader writes them; nulls and metadata columns are left out."""

import json
import sys
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import deltalake
import duckdb
import pyarrow
from pyiceberg.table import StaticTable

folder, formats = Path(sys.argv[1]), sys.argv[2:]
duck = duckdb.connect()
# A query that takes long would write its progress to standard output.
duck.execute("SET enable_progress_bar = false")
for name in ("avro", "iceberg", "delta"):  # Iceberg needs Avro.
    parts = Path(next(iter(find_spec(f"duckdb_extension_{name}").submodule_search_locations)))
    duck.execute(f"LOAD '{next(parts.rglob(f'{name}.duckdb_extension'))}'")
duck.execute("SET TimeZone = 'UTC'")


def text(value):
    if isinstance(value, list):
        return f"[{', '.join('' if item is None else text(item) for item in value)}]"
    if isinstance(value, float):
        return {"1e+300": "1e300"}.get(str(value), str(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def rows(table):
    found = ({name: text(value) for name, value in row.items() if value is not None and not name.startswith("_cdc")} for row in table.to_pylist())
    return sorted(found, key=lambda row: row[table.column_names[0]])


found = {}
if "delta" in formats:
    found["DuckDB on Delta"] = rows(duck.execute(f"SELECT * FROM delta_scan('{folder.as_uri()}')").to_arrow_table())
    table = deltalake.DeltaTable(str(folder))
    # deltalake knows no wider types.
    if "typeWidening" not in (table.protocol().reader_features or []):
        batches = deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t")
        found["deltalake"] = rows(pyarrow.Table.from_batches([pyarrow.record_batch(batch) for batch in batches]))
if "iceberg" in formats:
    home = folder / "_iceberg"
    version = (home / "metadata/version-hint.text").read_text().strip()
    metadata = str(home / f"metadata/v{version}.metadata.json")
    found["PyIceberg"] = rows(StaticTable.from_metadata(metadata).scan().to_arrow())
    found["DuckDB on Iceberg"] = rows(duck.execute(f"SELECT * FROM iceberg_scan('{metadata}')").to_arrow_table())
print(json.dumps(found))
