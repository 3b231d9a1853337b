"""Spark on the Delta table in the folder given, `t`: an SQL statement a line on standard input, its rows in JSON a line."""

import glob
import json
import os
import pathlib
import sys

from pyspark.sql import SparkSession

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
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}
builder = SparkSession.builder.master("local[1]")
for name, value in settings.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
table = f"delta.`{pathlib.Path(sys.argv[1]).as_uri()}`"
for line in sys.stdin:
    try:
        rows = [row[0] if len(row) == 1 else list(row) for row in spark.sql(line.strip().replace("{t}", table)).collect()]
    except Exception as error:  # the test shows what Spark said
        rows = str(error)
    print(json.dumps(rows, default=str), flush=True)
