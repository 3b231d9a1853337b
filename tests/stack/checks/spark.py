"""Proves that Spark reads from MinIO what `lake.py` wrote: Delta through S3A, Iceberg through its own S3 client.

Run by `stack check` with Spark's Python, when it is installed. The session below is the one to copy.
"""
import glob
import os

from pyspark.sql import SparkSession

ENV = {key.removeprefix("CDC_SINK_TEST_"): value for key, value in os.environ.items() if key.startswith("CDC_SINK_TEST_")}


def session():
    settings = {
        "spark.jars": ",".join(glob.glob(f"{ENV['SPARK_JARS']}/*.jar")),
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        # The default of 50 makes the first read of a small table take many seconds.
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension,org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.hadoop.fs.s3a.endpoint": ENV["S3"],
        "spark.hadoop.fs.s3a.endpoint.region": ENV["S3_REGION"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": ENV["S3_ACCESS_KEY"],
        "spark.hadoop.fs.s3a.secret.key": ENV["S3_SECRET_KEY"],
    }
    if "ICEBERG_REST" in ENV:
        settings |= {f"spark.sql.catalog.rest{key}": value for key, value in {
            "": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": ENV["ICEBERG_REST"],
            ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO", ".s3.endpoint": ENV["S3"], ".s3.path-style-access": "true",
            ".s3.access-key-id": ENV["S3_ACCESS_KEY"], ".s3.secret-access-key": ENV["S3_SECRET_KEY"], ".client.region": ENV["S3_REGION"]}.items()}
    if "NESSIE" in ENV:
        settings |= {f"spark.sql.catalog.nessie{key}": value for key, value in {
            "": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": ENV["NESSIE"],
            ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO", ".client.region": ENV["S3_REGION"]}.items()}
    builder = SparkSession.builder.master("local[2]").appName("stack-check")
    for key, value in settings.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def expect(who, frame):
    got = sorted(tuple(row) for row in frame.select("id", "v").collect())
    assert got == [(1, "a"), (2, "b"), (3, "c")], f"{who}: {got}"
    print(f"{who}: 3 rows", flush=True)


def main():
    spark = session()
    expect("Delta, Spark", spark.read.format("delta").load(f"s3a://{ENV['S3_BUCKET']}/stack_check/delta"))
    for key, catalog in (("ICEBERG_REST", "rest"), ("NESSIE", "nessie")):
        if key in ENV:
            expect(f"Iceberg in {key.lower().replace('_', '-')}, Spark", spark.table(f"{catalog}.stack_check.t"))
    spark.stop()


if __name__ == "__main__":
    main()
