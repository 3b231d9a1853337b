"""A bound met with one target: its processes, what they took, and the look at the versions of its tables."""
import json
import time
import urllib.request
from pathlib import Path

from audit import READERS, Audit, Place, different
from program import settled
from sinks import Instance, Target
from stack import ENV, Fail, tail, until

FORMATS = {"delta": ("delta",), "iceberg": ("iceberg",), "both": ("delta", "iceberg")}
# What a process may have in memory beside what it is given: its code, its libraries, and the batches that are being merged.
ALLOWANCE_MIB = 160


class Measured(Instance):
    """A process, and the most that it ever took."""

    def __init__(self, target, name, run, folder, options):
        super().__init__(target, name, run, folder, options)
        self.added, self.kafka = {}, {}
        self.peak = self.threads = self.files = 0

    def environment(self):
        return super().environment() | self.added

    def toml(self, known_member):
        more = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in self.kafka.items())
        return super().toml(known_member) + more

    def measure(self):
        """Notes what it takes, as long as it runs."""
        folder = Path(f"/proc/{self.process.pid}")
        try:
            status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines() if ":\t" in line)
            files = len(list((folder / "fd").iterdir()))
        except OSError:
            return self
        if "VmHWM" in status:
            self.peak = max(self.peak, int(status["VmHWM"].split()[0]) // 1024)
            self.threads, self.files = max(self.threads, int(status["Threads"])), max(self.files, files)
        return self

    def metric(self, name, **labels):
        """The sum of a metric over what the labels leave open; none while there is none."""
        found = None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith((f"{name} ", f"{name}{{")) and all(f'{label}="{value}"' in line for label, value in labels.items()):
                    found = (found or 0) + float(line.rpartition(" ")[2])
        return found

    def stop(self, seconds=90):
        self.measure()
        super().stop(seconds)

    def says(self, *words):
        """True when a line of the log has all of the words."""
        return any(all(word in line for word in words) for line in self.log.read_text(errors="replace").splitlines())

    def end(self):
        if self.alive():
            self.process.kill()
        if self.process:
            self.process.wait()


class Course:
    """One bound with one target."""

    def __init__(self, world, slug, target, warehouse=None):
        self.run, self.kafka, self.slug = world.run, world.kafka, slug
        self.folder = world.folder / f"{slug}-{target}"
        self.folder.mkdir()
        warehouse = warehouse or f"s3://{ENV['S3_BUCKET']}/{self.run}/{slug}/{target}"
        self.target = Target(target, FORMATS[target], warehouse)
        self.group = f"{self.run}-{slug}-{target}"
        self.audit, self.wrong, self.told, self.instances = Audit(), [], {}, []

    def instance(self, topics, make=Measured, **options):
        options = {"group": self.group, "topics": topics, "registry": None} | {name.replace("_", "-"): value for name, value in options.items()}
        made = make(self.target, f"p{len(self.instances)}", self.group, self.folder, options)
        self.instances.append(made)
        return made

    def check(self, is_so, what):
        if not is_so:
            self.wrong.append(what)

    def tell(self, **numbers):
        self.told |= numbers

    def settle(self, process, needed, seconds, step=0.2):
        """Waits until everything is in the tables; measures meanwhile."""
        def done():
            process.measure().expect_alive()
            return settled([process], needed)

        try:
            until(f"{self.group}: every record in its table", done, seconds, step)
        except Fail as error:
            raise Fail(f"{error}\nthe end of {process.log}:\n{tail(process.log, 12)}") from None

    def bounded(self, process, memory_mib, allowance=ALLOWANCE_MIB):
        """Tells the peak, which must be within the budget."""
        process.measure()
        self.tell(peak=f"{process.peak} MiB of {memory_mib} + {allowance}")
        self.check(process.peak <= memory_mib + allowance, f"{process.peak} MiB were resident, the option memory says {memory_mib}")

    def takes_all(self, process, stream, seconds, memory_mib, allowance=ALLOWANCE_MIB):
        """Runs the process until the stream is in its table; tells how long that takes, and the peak, which must be within the budget."""
        begin = time.monotonic()
        process.start(known_member=False)
        self.settle(process, stream.needed(), seconds)
        self.tell(seconds=round(time.monotonic() - begin))
        self.bounded(process, memory_mib, allowance)
        process.stop()

    def table(self, topic):
        connector, schema, table = topic.split(".")
        return f"{connector}_{schema}.{table}"

    def place(self, topic):
        return Place(self.target, self.table(topic), topic, None)

    def letters(self, name):
        """Dead letters of a table, by offset: value and reason."""
        namespace, _, table = name.partition(".")
        place = self.place(f"{namespace.replace('_', '.', 1)}.{table}")
        place.topic = "(dead letters)"
        logs, _ = place.logs()
        got = place.read(logs[0], logs[0].versions[-1], READERS[logs[0].format][0]).select(["offset", "value", "reason"])
        return {row["offset"]: (row["value"], row["reason"]) for row in got.to_pylist()}

    def compare_letters(self, where, found, refused):
        """The dead letters that were found are the records that were refused, which are by offset."""
        self.check(sorted(found) == sorted(refused), f"{where} of dead letters has offsets {sorted(found)}, refused were {sorted(refused)}")
        for offset, (value, reason) in found.items():
            same = value == refused.get(offset, "").encode()
            self.check(same, f"the dead letter of offset {offset} in {where} is not the record: {len(value)} bytes")
            self.check(reason == "too_large", f"the dead letter of offset {offset} in {where} has the reason {reason}")

    def look(self, stream, chosen=lambda versions: versions, place=None):
        """Looks at a table's log, and at the rows of the chosen versions with each reader."""
        place = place or self.place(stream.topic)
        logs, there = place.logs()
        self.check(len(logs) == len(self.target.formats), f"{place.name}: {len(logs)} logs are there")
        for log in logs:
            self.audit.log(place, log, there)
            self.check(log.position() == stream.ends(), f"{place.name} ({log.format}) is at {log.position()}, its topic ends at {stream.ends()}")
            for version in chosen(log.versions):
                expected = stream.fold(version.position)
                for module in READERS[log.format]:
                    found = different(lambda: stream.seen(place.read(log, version, module)), expected)  # noqa: B023  called at once
                    self.wrong += [f"{place.name} ({module.__name__}) at {version.name}, {version.position}: {text}" for text in found]
                    self.audit.rows += len(expected)
        self.audit.left_over(logs, there)

    def close(self):
        self.wrong += self.audit.wrong
        for process in self.instances:
            process.end()


def some(versions):
    """The first, the last, and three between."""
    if len(versions) <= 5:
        return versions
    return [versions[len(versions) * part // 4 - (part == 4)] for part in range(5)]
