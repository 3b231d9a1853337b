"""Spark's MERGE into Delta with deletion vectors and into Iceberg 3 with merge on read, in one warm JVM; and the reader
that checks all tables."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/readers"))
from spark_session import session
from worker import COLUMNS, KEY, base, batch, serve, timed

TYPES = ["bigint", "string", "string", "string", "string", "string", "decimal(18,2)", "timestamp"]


SPARK = session("side-by-side", {
    "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
    "spark.sql.catalog.lake.type": "hadoop",
    "spark.sql.catalog.lake.warehouse": sys.argv[1],
}, memory="6g")


def path(kind, folder):
    return f"{folder}/spark/{kind}"


def table(kind, folder):
    if kind == "delta":
        return f"delta.`{path(kind, folder)}`"
    return "lake." + ".".join(f"`{part}`" for part in Path(path(kind, folder)).relative_to(sys.argv[1]).parts)


def create(kind, folder):
    properties = {
        "delta": "USING delta TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
        "iceberg": "USING iceberg TBLPROPERTIES ('format-version' = '3', 'write.merge.mode' = 'merge-on-read', "
                   "'write.update.mode' = 'merge-on-read', 'write.delete.mode' = 'merge-on-read')",
    }[kind]
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(COLUMNS, TYPES))
    SPARK.sql(f"CREATE TABLE {table(kind, folder)} ({columns}) {properties}")
    insert = f"INSERT INTO {table(kind, folder)} SELECT {', '.join(COLUMNS)} FROM parquet.`{base(folder)}`"
    return timed(lambda: SPARK.sql(insert).collect())


def merge(kind, folder, number):
    assignments = ", ".join(f"{column} = s.{column}" for column in COLUMNS)
    values = ", ".join(f"s.{column}" for column in COLUMNS)
    statement = f"""MERGE INTO {table(kind, folder)} t USING parquet.`{batch(folder, number)}` s ON t.{KEY} = s.{KEY}
        WHEN MATCHED AND s.op = 'd' THEN DELETE
        WHEN MATCHED THEN UPDATE SET {assignments}
        WHEN NOT MATCHED AND s.op <> 'd' THEN INSERT ({', '.join(COLUMNS)}) VALUES ({values})"""
    return timed(lambda: SPARK.sql(statement).collect())


def where(kind, folder):
    return {kind: path(kind, folder)}


def summary(kind, place):
    """A few numbers that differ when the rows do."""
    frame = SPARK.read.format(kind).load(place).selectExpr(
        "count(*) AS rows", f"count(DISTINCT {KEY}) AS keys",
        "cast(sum(balance) AS string) AS balance", "cast(sum(unix_micros(updated_at) % 1000000007) AS string) AS updated_at",
        "cast(sum(cast(crc32(cast(concat_ws('|', name, email, phone, city, status) AS binary)) AS bigint)) AS string) AS texts")
    return frame.collect()[0].asDict()


serve({"create": create, "merge": merge, "where": where, "summary": summary})
