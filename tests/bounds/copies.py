"""Local copies of data files: what they spare the store, and what becomes of values when a copy is damaged, its disk full, or its folder taken."""
from random import Random

from course import some
from disk import Disk, OnDisk
from streams import Stream


class LocalCopies:
    """Updates leave out a text that the process finds in copies, on a disk of its own, of files in the object store."""

    name, targets, memory = "copies", ("delta", "iceberg"), 96
    KEYS, SIZE, DISK_MIB = 6000, 2000, 64
    # Batches that rows of the first files are read for, each row once: then it is in the batch's own file.
    SHARES = 30

    def __init__(self, world, quick):
        self.world, self.rounds = world, 2 if quick else 6

    def go(self, course):
        self.course, self.random, self.shares = course, Random(f"{self.world.seed} {course.target.name}"), iter(range(self.SHARES))
        self.stream = Stream(course.kafka, f"{course.run}.copies{course.target.name}.rows")
        self.disk = Disk(course.folder / "disk", self.DISK_MIB)
        try:
            self.process = self.instance()
            self.stream.burst(self.KEYS, self.KEYS, self.SIZE)
            self.process.start(known_member=False)
            self.settle()
            self.used()
            self.flipped()
            self.full()
            self.taken()
            self.killed()
            course.bounded(self.process, self.memory)
            self.process.stop()
        finally:
            self.process.end()
            self.disk.end()
        course.look(self.stream, some)

    def instance(self):
        process = self.course.instance([self.stream.topic], OnDisk, memory=f"{self.memory}MiB", batch_idle="200ms", copies=str(self.disk.folder), copies_bytes="48MiB")
        process.disk = self.disk
        return process

    def settle(self):
        self.course.settle(self.process, self.stream.needed(), 60)

    def left_out(self):
        """Updates of some rows, spread evenly; the bytes of data files that came from the store and from copies meanwhile."""
        before = self.read()
        for key in range(next(self.shares), self.KEYS, self.SHARES):
            self.stream.send("u", key, None)
        self.stream.flush()
        self.settle()
        return tuple(now - then for now, then in zip(self.read(), before, strict=True))

    def read(self):
        return tuple(self.process.metric("cdc_sink_row_read_bytes_total", **{"from": place}) for place in ("store", "copy"))

    def damaged(self):
        return self.process.metric("cdc_sink_damaged_copies_total")

    def copies(self):
        return sorted(self.disk.inside.glob("*.copy"))

    def used(self):
        self.left_out()
        spared = [self.left_out() for _ in range(self.rounds)]
        store, copy = (sum(bytes_of) for bytes_of in zip(*spared, strict=True))
        self.course.tell(from_store=f"{store / 2**20:.1f} MiB", from_copies=f"{copy / 2**20:.1f} MiB")
        self.course.check(copy > 10 * store, f"{store} bytes came from the store and {copy} from copies; there are {self.copies()}")
        self.course.check(self.damaged() == 0, f"{self.damaged()} copies were damaged by nobody")

    def flipped(self):
        for _ in range(self.rounds):
            for path in self.copies():
                content = bytearray(path.read_bytes())
                for _ in range(20):
                    content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
                path.write_bytes(content)
            self.left_out()
        self.course.tell(damaged=int(self.damaged()))
        self.course.check(self.damaged() > 0, "no copy was found to be damaged")
        self.course.check(self.process.says("a local copy cannot be used", ".parquet"), "the log does not say that a copy is damaged")

    def full(self):
        for path in self.copies():
            path.unlink()
        self.disk.fill(0)
        self.left_out()
        self.left_out()
        self.course.check(self.process.says("cannot write local copies", "o space left on device"), "the log does not say that the disk is full")
        self.course.check(not self.copies(), f"copies on a full disk: {self.copies()}")
        self.disk.free()

    def taken(self):
        other = self.instance()
        other.start(known_member=False)
        code = other.process.wait(30)
        self.course.check(code == 2 and other.says("another process uses it"), f"a second process with the folder ended with {code}, see {other.log}")

    def killed(self):
        """What a process that was killed left is taken over."""
        self.process.end()
        self.process.start(known_member=False)
        self.settle()
        self.left_out()
        self.left_out()
        self.course.check(self.copies(), "there are no copies after a restart")
        self.course.check(self.damaged() == 0, f"{self.damaged()} copies were damaged after a restart")
