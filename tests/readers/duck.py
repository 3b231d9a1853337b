"""DuckDB's connection to the lake, for its two readers. Its extensions come from PyPI and are loaded from their files."""
from importlib.util import find_spec
from pathlib import Path

import duckdb


def connect(lake):
    connection = duckdb.connect(config={"threads": 2})
    # A query that takes long would write its progress to standard output.
    connection.execute("SET enable_progress_bar = false")
    for name in ("httpfs", "avro", "iceberg", "delta"):  # Iceberg needs Avro.
        folder = Path(next(iter(find_spec(f"duckdb_extension_{name}").submodule_search_locations)))
        connection.execute(f"LOAD '{next(folder.rglob(f'{name}.duckdb_extension'))}'")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{lake['key']}', SECRET '{lake['secret']}', REGION '{lake['region']}', "
                       f"ENDPOINT '{lake['endpoint'].removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)")
    return connection
