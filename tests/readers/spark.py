"""Spark, for its two readers. It has a Python of its own, without Arrow: what it reads, it writes as Parquet files, which are then compared.

    spark.py FORMAT JOB FOLDER      one folder of Parquet files per version, `<table>.<phase>`, the table's slashes as dots
"""
import json
import os
import sys

from spark_session import minio, rest, session


# As the other readers return them: microseconds, days without the calendar of before 1582.
WRITTEN = {
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
}


def settings(lake):
    store = (lake["endpoint"], lake["region"], lake["key"], lake["secret"])
    found = WRITTEN | minio(*store)
    if lake.get("catalog"):
        found |= rest("rest", lake["catalog"], lake["region"], lake["endpoint"], lake["key"], lake["secret"])
    return found


def main():
    form, path, folder = sys.argv[1:]
    with open(path) as file:
        job = json.load(file)
    spark = session("readers", settings(job["lake"]))
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
