"""Spark, for its two readers. It has a Python of its own, without Arrow: what it reads, it writes as Parquet files, which are then compared.

    spark.py FORMAT JOB FOLDER      one folder of Parquet files per version, `<table>.<phase>`, the table's slashes as dots
"""
import glob
import json
import os
import sys

from pyspark.sql import SparkSession


def session(lake):
    settings = {
        "spark.jars": ",".join(glob.glob(f"{os.environ['CDC_SINK_TEST_SPARK_JARS']}/*.jar")),
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        # As the readers return them: microseconds, days without the calendar of before 1582.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
        "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension,org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.hadoop.fs.s3a.endpoint": lake["endpoint"],
        "spark.hadoop.fs.s3a.endpoint.region": lake["region"],
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": lake["key"],
        "spark.hadoop.fs.s3a.secret.key": lake["secret"],
    }
    if lake.get("catalog"):
        settings |= {f"spark.sql.catalog.rest{key}": value for key, value in {
            "": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": lake["catalog"], ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
            ".s3.endpoint": lake["endpoint"], ".s3.path-style-access": "true", ".s3.access-key-id": lake["key"],
            ".s3.secret-access-key": lake["secret"], ".client.region": lake["region"]}.items()}
    builder = SparkSession.builder.master("local[2]").appName("readers")
    for key, value in settings.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def main():
    form, path, folder = sys.argv[1:]
    with open(path) as file:
        job = json.load(file)
    spark = session(job["lake"])
    for table in job["tables"]:
        where = table["where"]
        for version in table["versions"]:
            name = f"{folder}/{table['name'].replace('/', '.')}.{version['phase']}"
            try:
                if form == "delta":
                    frame = spark.read.format("delta").option("versionAsOf", version["version"]).load(where["delta"].replace("s3://", "s3a://", 1))
                else:
                    frame = spark.read.option("versionAsOf", version["version"]).table(f"rest.`{where['namespace']}`.`{where['table']}`")
                frame.coalesce(1).write.mode("overwrite").parquet(name)
            except Exception as error:  # The next table shall be read all the same.
                os.makedirs(name, exist_ok=True)
                with open(f"{name}/error.txt", "w") as file:
                    file.write(str(error)[:1000])
    spark.stop()


if __name__ == "__main__":
    main()
