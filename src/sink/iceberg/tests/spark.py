"""Runs SQL in Spark: a statement a line on standard input, its rows as a line of JSON on standard output. The catalog
`lake` is the folder that is named."""

import glob
import json
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Spark and its JVM write to standard output as they like.

from pyspark.sql import SparkSession

settings = {
    "spark.jars": ",".join(glob.glob(os.environ["CDC_SINK_TEST_SPARK_JARS"] + "/*.jar")),
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.lake.type": "hadoop",
    "spark.sql.catalog.lake.warehouse": sys.argv[1],
    "spark.sql.catalog.lake.cache-enabled": "false",
}
builder = SparkSession.builder.master("local[2]").appName("iceberg")
for key, value in settings.items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
for line in sys.stdin:
    rows = [list(row) for row in spark.sql(line.strip()).collect()]
    print(json.dumps(rows, default=str), file=answers, flush=True)
