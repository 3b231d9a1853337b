"""Proves the lake side of the stack: tables written to MinIO by one library are read by the others.

Run by `stack check` with the readers' Python. The tables stay, under `stack_check`, and are written anew by each run.
"""
import os
from importlib.util import find_spec
from pathlib import Path

import duckdb
import polars
import pyarrow
from deltalake import DeltaTable, write_deltalake
from pyiceberg.catalog import load_catalog

ENV = {key.removeprefix("CDC_SINK_TEST_"): value for key, value in os.environ.items() if key.startswith("CDC_SINK_TEST_")}
ROWS = pyarrow.table({"id": pyarrow.array([1, 2, 3], pyarrow.int64()), "v": ["a", "b", "c"]})
DELTA = f"s3://{ENV['S3_BUCKET']}/stack_check/delta"


def duck():
    """DuckDB with the extensions that PyPI carries: loaded from their files, since it would download them otherwise.

    Avro comes before Iceberg, which needs it.
    """
    connection = duckdb.connect()
    # A query that takes long would write its progress to standard output.
    connection.execute("SET enable_progress_bar = false")
    for name in ("httpfs", "avro", "iceberg", "delta"):
        folder = Path(next(iter(find_spec(f"duckdb_extension_{name}").submodule_search_locations)))
        connection.execute(f"LOAD '{next(folder.rglob(f'{name}.duckdb_extension'))}'")
    return connection


def duck_with_keys():
    connection = duck()
    connection.execute(f"CREATE SECRET (TYPE s3, KEY_ID '{ENV['S3_ACCESS_KEY']}', SECRET '{ENV['S3_SECRET_KEY']}', REGION '{ENV['S3_REGION']}', "
                       f"ENDPOINT '{ENV['S3'].removeprefix('http://')}', URL_STYLE 'path', USE_SSL false)")
    return connection


def expect(who, rows):
    got = sorted(map(tuple, rows))
    assert got == [(1, "a"), (2, "b"), (3, "c")], f"{who}: {got}"
    print(f"{who}: 3 rows", flush=True)


def delta():
    options = {"AWS_ENDPOINT_URL": ENV["S3"], "AWS_ACCESS_KEY_ID": ENV["S3_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": ENV["S3_SECRET_KEY"],
               "AWS_REGION": ENV["S3_REGION"], "AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}
    write_deltalake(DELTA, ROWS, storage_options=options, mode="overwrite")
    expect("Delta, deltalake", (row.values() for row in DeltaTable(DELTA, storage_options=options).to_pyarrow_table().to_pylist()))
    expect("Delta, polars", polars.read_delta(DELTA, storage_options=options).rows())
    expect("Delta, DuckDB", duck_with_keys().execute(f"SELECT id, v FROM delta_scan('{DELTA}')").fetchall())


def iceberg(name, properties, connection, attach):
    """Through a REST catalog. `attach` is what DuckDB needs to know beyond the address."""
    catalog = load_catalog(name, type="rest", **properties)
    catalog.create_namespace_if_not_exists("stack_check")
    if catalog.table_exists("stack_check.t"):
        catalog.drop_table("stack_check.t")
    catalog.create_table("stack_check.t", ROWS.schema).append(ROWS)
    expect(f"Iceberg in {name}, PyIceberg", (row.values() for row in catalog.load_table("stack_check.t").scan().to_arrow().to_pylist()))
    connection.execute(f"ATTACH {attach[0]} AS lake (TYPE iceberg, ENDPOINT '{properties['uri']}', AUTHORIZATION_TYPE 'none'{attach[1]})")
    expect(f"Iceberg in {name}, DuckDB", connection.execute("SELECT id, v FROM lake.stack_check.t").fetchall())


def main():
    delta()
    if "ICEBERG_REST" in ENV:
        keys = {"s3.endpoint": ENV["S3"], "s3.access-key-id": ENV["S3_ACCESS_KEY"], "s3.secret-access-key": ENV["S3_SECRET_KEY"],
                "s3.region": ENV["S3_REGION"], "s3.path-style-access": "true"}
        iceberg("iceberg-rest", {"uri": ENV["ICEBERG_REST"], **keys}, duck_with_keys(), ("''", ", ACCESS_DELEGATION_MODE 'none'"))
    if "NESSIE" in ENV:
        # No key of ours: the catalog vends them.
        iceberg("nessie", {"uri": ENV["NESSIE"]}, duck(), ("'lake'", ""))


if __name__ == "__main__":
    main()
