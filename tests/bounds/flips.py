"""One bit of a table's files is another one: a process says so and writes nothing, or it does not matter."""
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

from audit import READERS, different
from disk import LocalPlace
from logs import Iceberg, Log, Version, vector
from streams import Stream

# What there is to read again, by format.
KINDS = {
    "delta": {"data": r"data/.*\.parquet", "vector": r"deletion_vector_.*\.bin", "commit": r"_delta_log/\d{20}\.json",
              "checkpoint": r"_delta_log/\d{20}\.checkpoint.*\.parquet", "hint": r"_delta_log/_last_checkpoint"},
    "iceberg": {"data": r"data/.*\.parquet", "vector": r"data/.*\.puffin", "manifest": r"metadata/.*-m\d+\.avro", "list": r"metadata/snap-.*\.avro",
                "metadata": r"metadata/v\d+\.metadata\.json", "hint": r"metadata/version-hint\.text"},
}


def live(place):
    """Data files of the newest version of a Delta table, and their vectors."""
    found = {}
    for name in sorted(path for path in place.store.list() if re.fullmatch(r"_delta_log/\d{20}\.json", path)):
        for action in map(json.loads, place.store.read(name).splitlines()):
            if remove := action.get("remove"):
                found.pop(remove["path"], None)
            if add := action.get("add"):
                found[add["path"]] = vector(add)
    return set(found).union(*found.values())


def live_in_iceberg(place, there):
    """Manifests of the newest snapshot of an Iceberg table, and what they name."""
    table = Iceberg(place.store, place.metadata(there))
    snapshot = table.content.current_snapshot()
    found = {place.store.relative(snapshot.manifest_list)}
    for manifest in snapshot.manifests(table.io):
        found.add(place.store.relative(manifest.manifest_path))
        found |= {path for _, status, _, path in table.entries(manifest) if status != 2}
    return found


class FlippedBits:
    """A table is copied, a bit flipped, and a process sent on with it, which has to read keys, deletions, and values that updates leave out."""

    name, targets, memory = "flipped bits", ("delta", "iceberg"), 64
    KEYS, COMMITS, EACH = 60, 56, 8
    ENDS = 15

    def __init__(self, world, quick):
        self.each = 2 if quick else self.EACH
        self.seed = world.seed

    def go(self, course):
        self.course = course
        self.stream = Stream(course.kafka, f"{course.run}.flips{course.target.name}.rows")
        self.home, self.kept = course.folder / "lake", course.folder / "kept"
        course.target.warehouse = str(self.home)
        place = LocalPlace(course, self.stream.topic)
        self.table = Path(place.store.folder)
        self.make()
        random, outcomes = Random(f"{self.seed} {course.target.name}"), Counter()
        # Of the log the newest files are in use.
        there = sorted(place.store.list(), key=lambda path: -(self.table / path).stat().st_mtime_ns)
        used = live(place) if course.target.name == "delta" else live_in_iceberg(place, there)
        for kind, pattern in KINDS[course.target.name].items():
            found = [path for path in there if re.fullmatch(pattern, path)]
            newest = ([path for path in found if path in used] or found)[:2]
            course.check(newest, f"there is no file of the kind {kind}")
            for number in range(self.each if newest else 0):
                outcomes[f"{kind} {self.flip(newest[number % len(newest)], random)}"] += 1
        course.tell(**{name.replace(" ", "_"): times for name, times in sorted(outcomes.items())})

    def make(self):
        """A table with a checkpoint, and changes that are not yet in it."""
        stream = self.stream
        process = self.course.instance([stream.topic], memory=f"{self.memory}MiB", batch_idle="10ms", batch_age="20ms")
        process.start(known_member=False)
        stream.burst(self.KEYS, self.KEYS, 200)
        for commit in range(self.COMMITS):
            self.course.settle(process, stream.needed(), 30, step=0.02)
            for number in range(5):
                # Some rows stay as they were: the first file always has a vector.
                stream.send("u", (commit * 5 + number * 7) % (self.KEYS - 10), 200)
            stream.flush()
        self.course.settle(process, stream.needed(), 30)
        process.stop()
        for key in range(self.KEYS):
            stream.send("d" if key % 10 == 0 else "u", key, None if key % 3 == 0 else 100)
            if key % 10 == 0:
                stream.send("c", key + 1000, 100)
        stream.flush()
        shutil.copytree(self.home, self.kept)

    def run(self):
        """How a process ends that is to take in what there is; none when it still waits."""
        process = self.process = self.course.instance([self.stream.topic], memory=f"{self.memory}MiB", once=True)
        process.start(known_member=False)
        try:
            code = process.process.wait(self.ENDS)
        except subprocess.TimeoutExpired:
            code = None
        process.end()
        return code

    def flip(self, path, random):
        """What became of a flip."""
        shutil.rmtree(self.home)
        shutil.copytree(self.kept, self.home)
        content = bytearray((self.table / path).read_bytes())
        at, bit = random.randrange(len(content)), random.randrange(8)
        content[at] ^= 1 << bit
        (self.table / path).write_bytes(content)
        before = self.newest()
        code = self.run()
        what = f"bit {bit} of byte {at} in {path}"
        log = self.process.log.read_text(errors="replace")
        self.course.check("ended by a bug" not in log, f"{what}: its worker ended, see {self.process.log}")
        after = self.newest()
        if code == 0:
            wrong = self.differences()
            self.course.check(not wrong, f"{what}: {wrong[:1]}, see {self.process.log}")
            if wrong:
                return "WRONG"
        if code == 0:
            return "harmless"
        self.course.check(after == before, f"{what}: exit code {code}, and {sorted(set(after) - set(before))}, see {self.process.log}")
        told = [line for line in log.splitlines() if ("ERROR" in line or "WARN" in line)]
        self.course.check(told, f"{what}: exit code {code} and not a word, see {self.process.log}")
        return "halted" if code == 1 else "waits" if code is None else f"ended_{code}"

    def newest(self):
        place = LocalPlace(self.course, self.stream.topic)
        return sorted(path for path in place.store.list() if re.fullmatch(r"_delta_log/\d{20}\.json|metadata/v\d+\.metadata\.json", path))

    def differences(self):
        """The newest version against all that was sent. What earlier ones need may be damaged."""
        place = LocalPlace(self.course, self.stream.topic)
        path = self.newest()[-1]
        if self.course.target.name == "delta":
            log, name = Log("delta"), int(Path(path).stem)
        else:
            newest = max(self.newest(), key=lambda path: int(re.search(r"v(\d+)", path)[1]))
            log = Log("iceberg", metadata=str(self.table / newest))
            name = json.loads((self.table / newest).read_text())["current-snapshot-id"]
        expected = self.stream.fold(self.stream.ends())
        found = []
        for module in READERS[log.format]:
            found += different(lambda: self.stream.seen(place.read(log, Version(name, {}), module)), expected)  # noqa: B023  called at once
        return found
