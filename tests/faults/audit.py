"""Is every version of every table the fold of its topic? And is nothing there twice, or missing, or left over?"""
from collections import Counter

import pyarrow as pa

import delta_rs
import duck_delta
import duck_metadata
import py_metadata
from history import NAMES
from logs import Iceberg, Store, delta, newest_metadata
from stack import lake

READERS = {"delta": (delta_rs, duck_delta), "iceberg": (py_metadata, duck_metadata)}
SHOWN = 3
made = {}


def reader(module):
    """One of each for a process: a connection is costly."""
    if module not in made:
        made[module] = module.Reader(lake())
    return made[module]


class Place:
    """Where a table is, in each of its formats."""

    def __init__(self, target, name, topic, catalog):
        self.target, self.name, self.topic, self.catalog = target, name, topic, catalog
        self.namespace, _, self.table = name.partition(".")
        self.store = Store(f"{target.warehouse}/{self.namespace}/{self.table}")
        self.home = "_iceberg/" if len(target.formats) > 1 else ""

    def metadata(self, there):
        if not self.target.catalog:
            return newest_metadata(self.store, there, self.home)
        return self.catalog.table(self.namespace, self.table)[1] if there else None

    def logs(self):
        """The logs, and every file that there is."""
        there, found = self.store.list(), []
        if "delta" in self.target.formats:
            found.append(delta(self.store, there, self.topic))
        if "iceberg" in self.target.formats and (metadata := self.metadata(there)):
            found.append(Iceberg(self.store, metadata).log(there, self.home))
        return [log for log in found if log], there

    def stored(self):
        """The position of each format's newest version."""
        return [log.position() for log in self.logs()[0]]

    def read(self, log, version, module):
        where = {"delta": f"s3://{self.store.bucket}/{self.store.prefix}"}
        return reader(module).read(where, {"version": version.name, "metadata": log.metadata})


class Audit:
    """What was compared, and what is wrong."""

    def __init__(self):
        self.versions = self.rows = self.orphans = 0
        self.wrong = []

    def acknowledged(self, offsets, places):
        """Kafka must never be ahead of a table."""
        for place in places:
            for position in place.stored():
                for (topic, partition), offset in offsets.items():
                    if topic == place.topic and offset > position.get(partition, 0):
                        self.wrong.append(f"{topic}[{partition}] is acknowledged up to {offset}, in {place.name} up to {position.get(partition)}")

    def table(self, place, history, by_turns=False):
        """A table at the end of a case: all of its topic's records are in it. Every version is read by each reader, or by the readers in turn."""
        logs, there = place.logs()
        for log in logs:
            self.log(place, log, there)
            if log.position() != history.ends():
                self.wrong.append(f"{place.name} ({log.format}) is at {log.position()}, its topic ends at {history.ends()}")
            for number, version in enumerate(log.versions):
                expected = history.fold(version.position)
                for module in (READERS[log.format][number % 2],) if by_turns else READERS[log.format]:
                    found = different(lambda: rows(place.read(log, version, module), NAMES), expected)
                    self.wrong += [f"{place.name} ({log.format}, {module.__name__}) at {version.name}, {version.position}: {text}" for text in found]
                    self.rows += len(expected)
        self.left_over(logs, there)

    def letters(self, place, poisoned):
        """Every dead letter once, at every version and in the end."""
        logs, there = place.logs()
        for log in logs:
            self.log(place, log, there)
            for version in log.versions:
                for module in READERS[log.format]:
                    found = [(row[1], row[2]) for row in rows(place.read(log, version, module), ["topic", "partition", "offset"])]
                    last = version is log.versions[-1]
                    if len(set(found)) != len(found) or not set(found) <= set(poisoned) or last and len(found) != len(poisoned):
                        self.wrong.append(f"{place.name} ({log.format}, {module.__name__}) at {version.name} has {found}, expected {poisoned}")
                    self.rows += len(found)
        self.left_over(logs, there)

    def log(self, place, log, there):
        self.versions += len(log.versions)
        where = f"{place.name} ({log.format})"
        position = {}
        for version in log.versions:
            if any(version.position.get(partition, -1) < at for partition, at in position.items()):
                self.wrong.append(f"{where} goes back from {position} to {version.position} at {version.name}")
            position = version.position
        for what, found in (("batch", [version.batch for version in log.versions if version.batch]),
                            ("data file", [path for version in log.versions for path in version.added])):
            self.wrong += [f"{where}: {what} {name} comes {times} times" for name, times in Counter(found).items() if times > 1]
        self.wrong += [f"{where}: {path} is named and not there" for path in sorted(log.needed - set(there))[:SHOWN]]

    def left_over(self, logs, there):
        self.orphans += len(set(there).difference(*(log.needed | log.own for log in logs)))


def rows(got, names):
    """Rows as `History.fold` has them, in its order."""
    columns = []
    for name in names:
        if name not in got.column_names:
            columns.append([None] * got.num_rows)
        elif name == "_cdc_ts":
            columns.append(got[name].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist())
        else:
            columns.append(got[name].to_pylist())
    return sorted(zip(*columns), key=lambda row: row[:1])


def different(read, expected):
    try:
        got = read()
    except Exception as error:  # What other readers and versions show is worth knowing.
        return [f"cannot read: {type(error).__name__}: {' '.join(str(error).split())[:300]}"]
    if got == expected:
        return []
    lost, surplus = set(expected) - set(got), set(got) - set(expected)
    twice = [row for row, times in Counter(got).items() if times > 1]
    return [f"{len(got)} rows, expected {len(expected)}; {len(lost)} lost, as {sorted(lost, key=str)[:SHOWN]}; "
            f"{len(surplus)} wrong, as {sorted(surplus, key=str)[:SHOWN]}; {len(twice)} there twice"]
