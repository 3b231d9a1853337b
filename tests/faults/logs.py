"""What the logs of a table say: every version with its position, its batch, the data files that it brings in, and every file that it needs.

Read from the objects themselves; rows are for the readers of `tests/readers`.
"""
import json
import re
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import unquote

import boto3
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable

from py_iceberg import keys
from stack import ENV, lake

# What the newest commit notes of rows that left one partition for another: the files with such rows stay.
NOTES = "cdc-sink.departed-rows"
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


class Store:
    """A folder of the object store."""

    def __init__(self, url):
        self.bucket, _, self.prefix = url.removeprefix("s3://").partition("/")
        self.client = boto3.client("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"],
                                   aws_secret_access_key=ENV["S3_SECRET_KEY"], region_name=ENV["S3_REGION"])

    def list(self):
        """Paths below the folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/")
        return [found["Key"].removeprefix(f"{self.prefix}/") for page in pages for found in page.get("Contents", [])]

    def read(self, path):
        return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{path}")["Body"].read()

    def relative(self, url):
        return re.sub(rf"^s3a?://{self.bucket}/{self.prefix}/", "", url)


@dataclass
class Version:
    name: int  # a Delta version, or the id of an Iceberg snapshot
    position: dict
    batch: str | None = None
    added: list = field(default_factory=list)


@dataclass
class Log:
    """One format's log of a table."""

    format: str
    versions: list = field(default_factory=list)
    needed: set = field(default_factory=set)  # files that some version names
    own: set = field(default_factory=set)  # files of the log itself, which nothing names
    metadata: str | None = None  # Iceberg's newest metadata

    def position(self):
        return self.versions[-1].position if self.versions else {}


def delta(store, there, topic):
    """The Delta log; none when there is no table."""
    log = Log("delta", own={path for path in there if path.startswith("_delta_log/")})
    names = sorted(path for path in log.own if re.fullmatch(r"_delta_log/\d{20}\.json", path))
    position, noted = {}, []
    for number, name in enumerate(names):
        if name != f"_delta_log/{number:020}.json":
            raise AssertionError(f"version {number} of the Delta log is not there, {name} is")
        version, removed, added = Version(number, position), set(), []
        for line in store.read(name).splitlines():
            action = json.loads(line)
            if info := action.get("commitInfo"):
                version.batch = info.get("cdc-sink.batch-id")
                noted = info.get(NOTES, {}).get("files", []) if version.batch else noted
            elif txn := action.get("txn"):
                partition = txn["appId"].removeprefix(f"cdc-sink/{topic}/")
                version.position = version.position | {int(partition): txn["version"]}
            elif remove := action.get("remove"):
                removed.add(unquote(remove["path"]))
            elif add := action.get("add"):
                added.append(unquote(add["path"]))
                log.needed |= {added[-1], *vector(add)}
        version.added = [path for path in added if path not in removed]
        position = version.position
        log.versions.append(version)
    log.needed |= set(noted)
    return log if names else None


def vector(add):
    """The file with the deletion vector of a data file, if it has one."""
    if not (descriptor := add.get("deletionVector")):
        return set()
    text, value = descriptor["pathOrInlineDv"], bytearray()
    for group in range(0, 20, 5):
        number = 0
        for letter in text[group:group + 5]:
            number = number * 85 + Z85.index(letter)
        value += number.to_bytes(4, "big")
    return {f"deletion_vector_{uuid.UUID(bytes=bytes(value))}.bin"}


class Iceberg:
    """An Iceberg table, from its newest metadata."""

    def __init__(self, store, metadata):
        self.store, self.metadata = store, metadata
        self.io = PyArrowFileIO(keys(lake()))
        self.manifests = {}

    @cached_property
    def content(self):
        return StaticTable.from_metadata(self.metadata, keys(lake())).metadata

    def log(self, there, home):
        snapshots = {snapshot.snapshot_id: snapshot for snapshot in self.content.snapshots}
        log = Log("iceberg", metadata=self.metadata)
        log.own = {path for path in there if path.startswith(f"{home}metadata/") and re.search(r"(\.metadata\.json|version-hint\.text)$", path)}
        log.needed |= {self.store.relative(entry.metadata_file) for entry in self.content.metadata_log}
        log.needed.add(self.store.relative(self.metadata))
        log.needed |= set(json.loads(self.content.properties.get(NOTES, "{}")).get("files", []))
        chain, at = [], self.content.current_snapshot_id
        while at is not None:
            chain.append(snapshots.pop(at))
            at = chain[-1].parent_snapshot_id
        if snapshots:
            raise AssertionError(f"snapshots {sorted(snapshots)} are not in the history of the table")
        for snapshot in reversed(chain):
            log.versions.append(self.version(snapshot, log))
        return log

    def version(self, snapshot, log):
        """Somebody else's has the position of the one before."""
        summary = snapshot.summary.additional_properties
        version = Version(snapshot.snapshot_id, log.position(), summary.get("cdc-sink.batch-id"))
        if offsets := summary.get("cdc-sink.offsets"):
            version.position = {int(partition): at for partition, at in json.loads(offsets)["offsets"].items()}
        log.needed.add(self.store.relative(snapshot.manifest_list))
        for manifest in snapshot.manifests(self.io):
            log.needed.add(self.store.relative(manifest.manifest_path))
            for snapshot_id, status, content, path in self.entries(manifest):
                if status != 2:
                    log.needed.add(path)
                if content == 0 and status == 1 and snapshot_id == version.name:
                    version.added.append(path)
        return version

    def entries(self, manifest):
        """Of a manifest: the snapshot that made each entry, its status (1 added, 2 deleted), what it is (0 data), and the file."""
        if manifest.manifest_path not in self.manifests:
            self.manifests[manifest.manifest_path] = [
                (entry.snapshot_id, int(entry.status), int(entry.data_file.content), self.store.relative(entry.data_file.file_path))
                for entry in manifest.fetch_manifest_entry(self.io, discard_deleted=False)]
        return self.manifests[manifest.manifest_path]


def newest_metadata(store, there, home):
    """Of a table without a catalog: the metadata with the highest number, whatever the hint says."""
    found = [(int(match[1]), path) for path in there if (match := re.fullmatch(rf"{home}metadata/v(\d+)\.metadata\.json", path))]
    return f"s3://{store.bucket}/{store.prefix}/{max(found)[1]}" if found else None
