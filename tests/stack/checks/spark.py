"""Proves that Spark reads from MinIO what `lake.py` wrote: Delta through S3A, Iceberg through its own S3 client.

Run by `stack check` with Spark's Python, when it is installed.
"""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "readers"))
from spark_session import minio, rest, session

ENV = {key.removeprefix("CDC_SINK_TEST_"): value for key, value in os.environ.items() if key.startswith("CDC_SINK_TEST_")}


def settings():
    store = (ENV["S3"], ENV["S3_REGION"], ENV["S3_ACCESS_KEY"], ENV["S3_SECRET_KEY"])
    found = minio(*store)
    if "ICEBERG_REST" in ENV:
        found |= rest("rest", ENV["ICEBERG_REST"], ENV["S3_REGION"], ENV["S3"], ENV["S3_ACCESS_KEY"], ENV["S3_SECRET_KEY"])
    if "NESSIE" in ENV:
        found |= rest("nessie", ENV["NESSIE"], ENV["S3_REGION"])
    return found


def expect(who, frame):
    got = sorted(tuple(row) for row in frame.select("id", "v").collect())
    assert got == [(1, "a"), (2, "b"), (3, "c")], f"{who}: {got}"
    print(f"{who}: 3 rows", flush=True)


def main():
    spark = session("stack-check", settings())
    expect("Delta, Spark", spark.read.format("delta").load(f"s3a://{ENV['S3_BUCKET']}/stack_check/delta"))
    for key, catalog in (("ICEBERG_REST", "rest"), ("NESSIE", "nessie")):
        if key in ENV:
            expect(f"Iceberg in {key.lower().replace('_', '-')}, Spark", spark.table(f"{catalog}.stack_check.t"))
    spark.stop()


if __name__ == "__main__":
    main()
