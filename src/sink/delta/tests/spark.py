"""Spark on the Delta table in the folder given, `t`: an SQL statement a line on standard input, its rows in JSON a line."""

import json
import pathlib
import sys

from spark_session import session

spark = session("delta", {}, cores=1)
table = f"delta.`{pathlib.Path(sys.argv[1]).as_uri()}`"
for line in sys.stdin:
    try:
        rows = [row[0] if len(row) == 1 else list(row) for row in spark.sql(line.strip().replace("{t}", table)).collect()]
    except Exception as error:  # the test shows what Spark said
        rows = str(error)
    print(json.dumps(rows, default=str), flush=True)
