"""Iceberg REST catalogs: further ones like the stack's, as several targets keep tables of the same names."""
import json
import os
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import boto3

from stack import ENV, REPOSITORY, Fail, free_port, http, tail, until

sys.path.insert(0, str(REPOSITORY / "tests" / "stack"))
from stacklib import java  # noqa: E402
from stacklib.base import PARTS, ROOT  # noqa: E402

WORK = ROOT / "e2e"


class Server:
    """Apache's REST catalog over a database file of its own; it ends with the run."""

    def __init__(self, name, warehouse, folder):
        self.log = folder / f"catalog-{name}.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The server drops CATALOG_, reads `__` as `-` and `_` as `.`, and lowers the rest.
        self.env = {
            "AWS_REGION": ENV["S3_REGION"], "CATALOG_REST_PORT": str(port), "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog",
            "CATALOG_JDBC_SCHEMA__VERSION": "V1", "CATALOG_URI": f"jdbc:sqlite:{folder}/{name}.db?journal_mode=WAL&busy_timeout=10000",
            "CATALOG_JDBC_USER": "x", "CATALOG_JDBC_PASSWORD": "x", "CATALOG_WAREHOUSE": warehouse,
            "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO", "CATALOG_S3_ENDPOINT": ENV["S3"],
            "CATALOG_S3_PATH__STYLE__ACCESS": "true", "CATALOG_S3_ACCESS__KEY__ID": ENV["S3_ACCESS_KEY"],
            "CATALOG_S3_SECRET__ACCESS__KEY": ENV["S3_SECRET_KEY"], "CATALOG_CLIENT_REGION": ENV["S3_REGION"],
        }
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [java.need(17), "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{PARTS / 'iceberg-rest/libs'}/*",
                 "org.apache.iceberg.rest.RESTCatalogServer"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self.env)

    def wait(self):
        def ready():
            if self.process.poll() is not None:
                raise Fail(f"the catalog died; the end of {self.log}:\n{tail(self.log)}")
            try:
                return urllib.request.urlopen(f"{self.url}/v1/config", timeout=5).status == 200
            except OSError:
                return False

        until("the catalog's answer", ready, 60)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Catalog:
    """What a REST catalog says of its tables, asked directly: no library between."""

    def __init__(self, url):
        config = http("GET", f"{url}/v1/config")
        prefix = config.get("overrides", {}).get("prefix") or config.get("defaults", {}).get("prefix")
        self.base = f"{url}/v1" + (f"/{quote(prefix, safe='')}" if prefix else "")

    def table(self, namespace, name):
        answer = http("GET", f"{self.base}/namespaces/{quote(namespace)}/tables/{quote(name)}")
        return answer["metadata"]["current-snapshot-id"], answer["metadata-location"]

    def remove(self, namespace):
        for table in http("GET", f"{self.base}/namespaces/{quote(namespace)}/tables")["identifiers"]:
            http("DELETE", f"{self.base}/namespaces/{quote(namespace)}/tables/{quote(table['name'])}")
        http("DELETE", f"{self.base}/namespaces/{quote(namespace)}")

    def namespaces(self):
        return [".".join(levels) for levels in http("GET", f"{self.base}/namespaces")["namespaces"]]


class Folders:
    """Tables without a catalog: the newest metadata is the one that their hint names."""

    def __init__(self, warehouse):
        self.bucket, _, self.prefix = warehouse.removeprefix("s3://").partition("/")
        self.store = boto3.client("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"],
                                  aws_secret_access_key=ENV["S3_SECRET_KEY"], region_name=ENV["S3_REGION"])

    def table(self, namespace, name):
        folder = f"{self.prefix}/{namespace}/{name}/metadata"
        path = f"{folder}/v{self.read(f'{folder}/version-hint.text').decode().strip()}.metadata.json"
        return json.loads(self.read(path))["current-snapshot-id"], f"s3://{self.bucket}/{path}"

    def read(self, path):
        return self.store.get_object(Bucket=self.bucket, Key=path)["Body"].read()
