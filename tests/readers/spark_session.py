"""A Spark on this machine that reads Delta and Iceberg: one set of settings for whoever asks it."""
import glob
import os

from pyspark.sql import SparkSession

EXTENSIONS = "io.delta.sql.DeltaSparkSessionExtension,org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"


def session(name, settings, memory="1g", cores=2):
    """A session with the jars of `stack install spark` and `settings` above the common ones."""
    common = {
        "spark.jars": ",".join(glob.glob(f"{os.environ['CDC_SINK_TEST_SPARK_JARS']}/*.jar")),
        "spark.driver.memory": memory,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        # As many as cores, and no 50 for Delta's log: the defaults make small tables slow.
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.extensions": EXTENSIONS,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    builder = SparkSession.builder.master(f"local[{cores}]").appName(name)
    for key, value in (common | settings).items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("OFF")
    return made


def minio(endpoint, region, key, secret):
    """Settings for Delta tables at `s3a://`."""
    return {
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.endpoint.region": region,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.access.key": key,
        "spark.hadoop.fs.s3a.secret.key": secret,
    }


def rest(name, uri, region, endpoint=None, key=None, secret=None):
    """Settings of an Iceberg REST catalog called `name`; without `endpoint` it vends the store's credentials."""
    settings = {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "rest", ".uri": uri, ".client.region": region,
                ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO"}
    if endpoint:
        settings |= {".s3.endpoint": endpoint, ".s3.path-style-access": "true", ".s3.access-key-id": key, ".s3.secret-access-key": secret}
    return {f"spark.sql.catalog.{name}{setting}": value for setting, value in settings.items()}
