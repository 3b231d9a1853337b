"""Prints, as JSON, the rows that readers of others find in a table: its folder, then its formats, each alone or with versions
(`delta=1,2`; Iceberg's are sequence numbers). Rows come in the order of their first column; values are texts as our own reader
writes them; nulls, metadata columns and those of Delta's partitions are left out."""

import json
import sys
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import deltalake
import duckdb
import pyarrow
from pyiceberg.table import StaticTable

folder = Path(sys.argv[1])
formats = {name: versions.split(",") if versions else [None] for name, _, versions in (argument.partition("=") for argument in sys.argv[2:])}
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
    found = ({name: text(value) for name, value in row.items() if value is not None and not name.startswith("_cdc") and not name.endswith("_bucket")}
             for row in table.to_pylist())
    return sorted(found, key=lambda row: row[table.column_names[0]])


def deltalake_rows(version):
    table = deltalake.DeltaTable(str(folder), version=version and int(version))
    # deltalake knows no wider types.
    if "typeWidening" in (table.protocol().reader_features or []):
        return None
    batches = deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t")
    return rows(pyarrow.Table.from_batches([pyarrow.record_batch(batch) for batch in batches]))


found = {}
for version in formats.get("delta", []):
    at = f" at {version}" if version else ""
    which = f", version = {version}" if version else ""
    found[f"DuckDB on Delta{at}"] = rows(duck.execute(f"SELECT * FROM delta_scan('{folder.as_uri()}'{which})").to_arrow_table())
    if (read := deltalake_rows(version)) is not None:
        found[f"deltalake{at}"] = read
if "iceberg" in formats:
    home = folder / "_iceberg"
    newest = (home / "metadata/version-hint.text").read_text().strip()
    metadata = str(home / f"metadata/v{newest}.metadata.json")
    table = StaticTable.from_metadata(metadata)
    snapshots = {str(snapshot.sequence_number): snapshot.snapshot_id for snapshot in table.metadata.snapshots}
    for version in formats["iceberg"]:
        at = f" at {version}" if version else ""
        snapshot = snapshots[version] if version else table.metadata.current_snapshot_id
        found[f"PyIceberg{at}"] = rows(table.scan(snapshot_id=snapshot).to_arrow())
        found[f"DuckDB on Iceberg{at}"] = rows(
            duck.execute(f"SELECT * FROM iceberg_scan('{metadata}', snapshot_from_id = {snapshot})").to_arrow_table())
print(json.dumps(found))
