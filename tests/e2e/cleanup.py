"""Removes what runs made: connectors, slots, tables, topics, schemas in the registry, catalog entries, objects."""
import os
import re
from contextlib import suppress
from urllib.error import HTTPError
from urllib.parse import quote

import boto3

from catalogs import WORK, Catalog
from connectors import Kafka, remove
from sources import SOURCES
from stack import ENV, http

RUN = re.compile(r"^(e[0-9a-z]{6})(?:(?:pg|my|ma)[jsa][0-9]?)?$")


def connectors_and_sources(run):
    prefixes = [name for name in http("GET", f"{ENV['CONNECT']}/connectors") if belongs(name, run)]
    for prefix in prefixes:
        remove(prefix)
    for kind, source in SOURCES.items():
        if kind.upper() in ENV and not (kind == "mysql" and ENV["MYSQL_IS"] == "mariadb"):
            source(run).drop([f"{run}{source.short}{letter}{variant}" for letter in "jsa" for variant in ("", *range(10))])


def everything(run):
    connectors_and_sources(run)
    kafka = Kafka()
    kafka.delete([topic for topic in kafka.topics() if any(belongs(part, run) for part in re.split(r"[.\-]", topic))])
    if "REGISTRY" in ENV:
        for subject in http("GET", f"{ENV['REGISTRY']}/subjects"):
            if belongs(subject.split(".")[0], run):
                with suppress(HTTPError):  # What several subjects share is gone already.
                    http("DELETE", f"{ENV['REGISTRY']}/subjects/{quote(subject, safe='')}")
    for key in ("ICEBERG_REST", "NESSIE"):
        if key in ENV:
            catalog = Catalog(ENV[key])
            for namespace in catalog.namespaces():
                if belongs(namespace.split("_")[0], run):
                    catalog.remove(namespace)
    store = boto3.resource("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                           region_name=ENV["S3_REGION"])
    for bucket in (ENV["S3_BUCKET"], "lake-nessie"):
        store.Bucket(bucket).objects.filter(Prefix=f"{run}/").delete()


def belongs(name, run):
    found = RUN.match(name)
    return found is not None and found[1] == run


def is_running(run):
    """Other runs may be under way."""
    try:
        os.kill(int((WORK / run / "pid").read_text()), 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return False
    return True


def earlier_runs():
    """Runs that ended and left something behind."""
    names = [topic.split(".")[0] for topic in Kafka().topics()] + http("GET", f"{ENV['CONNECT']}/connectors")
    store = boto3.client("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                         region_name=ENV["S3_REGION"])
    folders = store.list_objects_v2(Bucket=ENV["S3_BUCKET"], Delimiter="/").get("CommonPrefixes", [])
    names += [folder.name for folder in WORK.iterdir()] if WORK.is_dir() else []
    names += [folder["Prefix"].rstrip("/") for folder in folders]
    return sorted({found[1] for found in map(RUN.match, names) if found and not is_running(found[1])})
