"""Tables on a local disk that is full, or read-only, or whose log alone is: what a process says, and that it goes on by itself."""
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

from audit import Place
from course import Measured
from stack import Fail, binary, until
from streams import Stream

class Disk:
    """A file system of its own, in memory and in a namespace of its own: it ends with the process that holds it, whatever happens to the test."""

    def __init__(self, folder, size_mib):
        self.folder = folder
        folder.mkdir()
        script = f"mount -t tmpfs -o size={size_mib}m tmpfs '{folder}' && echo mounted && exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if self.holder.stdout.readline() != b"mounted\n":
            raise Fail(f"this machine lets nobody mount a file system of his own (unshare -rm): {self.holder.stderr.read().decode().strip()}")
        # The same folder as the process sees it; from outside it is empty.
        self.inside = Path(f"/proc/{self.holder.pid}/root{folder}")

    def enter(self):
        return ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(self.holder.pid), "--"]

    def do(self, *words):
        done = subprocess.run([*self.enter(), *words], capture_output=True, text=True)
        if done.returncode:
            raise Fail(f"{' '.join(words)}: {done.stderr.strip()}")

    def read_only(self, on):
        self.do("mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.folder))

    def seal(self, path, on):
        """Makes one folder read-only."""
        if on:
            self.do("mount", "--bind", str(path), str(path))
            self.do("mount", "-o", "remount,bind,ro", str(path))
        else:
            self.do("umount", str(path))

    def fill(self, left):
        """Leaves so many bytes."""
        free = os.statvfs(self.inside).f_bavail * os.statvfs(self.inside).f_frsize
        with open(self.inside / "ballast", "wb") as ballast:
            ballast.write(bytes(max(0, free - left)))

    def free(self):
        (self.inside / "ballast").unlink()

    def copy_out(self):
        """What is on it, where readers from outside look for it."""
        shutil.copytree(self.inside, self.folder, dirs_exist_ok=True)

    def end(self):
        self.holder.kill()
        self.holder.wait()


class OnDisk(Measured):
    """A process that sees the disk."""

    disk = None

    def command(self):
        return [*self.disk.enter(), str(binary()), "run", "--config", str(self.config)]


class Files:
    """A folder, asked as the object store is (`logs.Store`)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        # Names as `s3://bucket/prefix` has them.
        self.bucket, self.prefix = "", str(folder)

    def list(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def read(self, path):
        return (self.folder / path).read_bytes()

    def relative(self, url):
        return re.sub(rf"^(file://)?{re.escape(str(self.folder))}/", "", url)


class LocalPlace(Place):
    """A table in a folder."""

    def __init__(self, course, topic):
        self.target, self.name, self.topic, self.catalog = course.target, course.table(topic), topic, None
        self.namespace, _, self.table = self.name.partition(".")
        self.store = Files(f"{course.target.warehouse}/{self.namespace}/{self.table}")
        self.home = "_iceberg/" if len(course.target.formats) > 1 else ""

    def metadata(self, there):
        found = [(int(match[1]), path) for path in there if (match := re.fullmatch(rf"{self.home}metadata/v(\d+)\.metadata\.json", path))]
        return f"{self.store.folder}/{max(found)[1]}" if found else None

    def read(self, log, version, module):
        from audit import reader
        return reader(module).read({"delta": str(self.store.folder)}, {"version": version.name, "metadata": log.metadata})


class LocalDisk:
    """Full, read-only while it runs and at the start, and with a log that cannot be written while data files can."""

    name, targets, memory, size = "local disk", ("delta", "iceberg", "both"), 64, 64
    HOLD, HEAL = 6, 60

    def __init__(self, world, quick):
        self.world = world

    def go(self, course):
        self.course = course
        self.stream = Stream(course.kafka, f"{course.run}.disk{course.target.name}.rows")
        self.disk = Disk(course.folder / "disk", self.size)
        course.target.warehouse = str(self.disk.folder)
        self.table = self.disk.folder / course.table(self.stream.topic).replace(".", "/")
        try:
            self.process = course.instance([self.stream.topic], OnDisk, memory=f"{self.memory}MiB", batch_idle="200ms")
            self.process.disk = self.disk
            self.begin()
            self.full()
            self.read_only()
            self.sealed()
            self.at_start()
            self.process.stop()
            self.disk.copy_out()
        finally:
            self.process.end()
            self.disk.end()
        course.look(self.stream, place=LocalPlace(course, self.stream.topic))
        course.tell(orphans=course.audit.orphans)
        torn = [path for path in LocalPlace(course, self.stream.topic).store.list() if "#" in path]
        course.tell(half_written=len(torn))

    def begin(self):
        self.send(2000)
        self.process.start(known_member=False)
        self.course.settle(self.process, self.stream.needed(), 60)

    def send(self, count):
        self.stream.burst(count, 700, 1500)

    def held(self, moment, words):
        """The table holds for a while, and the log says why."""
        process, begin, log = self.process, time.monotonic(), self.process.log
        told = log.stat().st_size
        self.send(400)
        name = self.course.table(self.stream.topic)

        def says():
            process.expect_alive()
            lines = log.read_bytes()[told:].decode(errors="replace").splitlines()
            return any(re.search(words, line) and name in line for line in lines)

        until(f"{moment}: the log says {words} of {name}", says, 30)
        time.sleep(max(0, self.HOLD - (time.monotonic() - begin)))
        tables = process.status()["tables"]
        self.course.check([table["state"] for table in tables] == ["running"], f"{moment}: {tables}")
        at = sum(one["position"] or 0 for table in tables for one in table["partitions"])
        self.course.check(at < self.stream.sent, f"{moment}: everything got into the table all the same")

    def healed(self, moment):
        begin = time.monotonic()
        self.course.settle(self.process, self.stream.needed(), self.HEAL)
        self.course.tell(**{moment: f"{time.monotonic() - begin:.0f} s"})

    def full(self):
        self.disk.fill(100_000)
        self.held("full", "[Nn]o space left on device")
        self.disk.free()
        self.healed("full")

    def read_only(self):
        self.disk.read_only(True)
        self.held("read-only", "[Rr]ead-only file system")
        self.disk.read_only(False)
        self.healed("read_only")

    def sealed(self):
        """The log alone cannot be written. What is tried again must not write its data files again, or it fills the disk."""
        log = self.table / ("_delta_log" if self.course.target.name != "iceberg" else "metadata")
        before = self.data_files()
        self.disk.seal(log, True)
        self.held("log read-only", "[Rr]ead-only file system")
        time.sleep(self.HOLD)
        more = len(self.data_files() - before)
        self.disk.seal(log, False)
        self.healed("sealed")
        self.course.tell(data_files_while_sealed=more)
        self.course.check(more <= 2, f"a batch whose commit cannot be written left {more} data files")

    def data_files(self):
        inside = Path(f"/proc/{self.disk.holder.pid}/root{self.table}/data")
        return {path.name for path in inside.rglob("*.parquet")}

    def at_start(self):
        process = self.process
        process.stop()
        self.disk.read_only(True)
        told = process.log.stat().st_size
        self.send(100)
        process.start(known_member=False)

        def says():
            process.expect_alive()
            return re.search("[Rr]ead-only file system", process.log.read_bytes()[told:].decode(errors="replace"))

        until("at the start: the log says why", says, 30)
        time.sleep(2)
        self.disk.read_only(False)
        self.healed("at_start")
