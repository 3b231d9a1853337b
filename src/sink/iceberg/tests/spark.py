"""Runs SQL in Spark: a statement a line on standard input, its rows as a line of JSON on standard output. The catalog
`lake` is the folder that is named."""

import json
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # Spark and its JVM write to standard output as they like.

from spark_session import session

spark = session("iceberg", {
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.lake.type": "hadoop",
    "spark.sql.catalog.lake.warehouse": sys.argv[1],
    "spark.sql.catalog.lake.cache-enabled": "false",
})
for line in sys.stdin:
    rows = [list(row) for row in spark.sql(line.strip()).collect()]
    print(json.dumps(rows, default=str), file=answers, flush=True)
