"""What comes fast or goes slowly: one row that changes all the time, one transaction of a million rows, a store that takes little."""
import time

from course import ALLOWANCE_MIB, some
from stack import ENV, Fail, until
from streams import Stream, Transaction
from toxics import Toxiproxy


class HotKey:
    """100,000 updates of one row among a few others, with values of 2 KiB."""

    name, targets, memory = "hot key", ("delta", "iceberg"), 64

    def __init__(self, world, quick):
        self.stream = Stream(world.kafka, f"{world.run}.hot.rows")
        for number in range(25_000 if quick else 100_000):
            key = 7 if number % 50 else number // 50 % 40
            self.stream.send("u" if number > 2000 else "c", key, 2000)
        self.stream.flush()

    def go(self, course):
        course.tell(updates=self.stream.sent)
        process = course.instance([self.stream.topic], memory=f"{self.memory}MiB")
        course.takes_all(process, self.stream, 180, self.memory)
        course.look(self.stream)


class LongTransaction:
    """All rows of one transaction of the source, in four partitions."""

    name, targets, memory = "long transaction", ("delta", "iceberg"), 256

    def __init__(self, world, quick):
        self.stream = Transaction(world.kafka, f"{world.run}.long.rows")
        self.stream.fill(100_000 if quick else 1_000_000)

    def go(self, course):
        course.tell(rows=self.stream.sent)
        process = course.instance([self.stream.topic], memory=f"{self.memory}MiB")
        course.takes_all(process, self.stream, 600, self.memory)
        course.look(self.stream, some)
        # All keys are read again.
        begin = time.monotonic()
        process.start(known_member=False)
        course.settle(process, self.stream.needed(), 120)
        course.tell(opened=f"{time.monotonic() - begin:.1f} s")
        course.bounded(process, self.memory)
        process.stop()


class SlowStore:
    """A store behind a narrow line, first so narrow that no batch gets through in the time that a request has."""

    name, targets, memory = "slow store", ("delta", "iceberg"), 96
    HELD, SLOW, TABLES = 25, 30, 1
    # Of the limit of what is buffered, and MiB beside the memory.
    OVER, ALLOWANCE_MIB = 1.5, ALLOWANCE_MIB

    def __init__(self, world, quick):
        changes = (20_000 if quick else 100_000) // self.TABLES
        self.streams = [Stream(world.kafka, f"{world.run}.slow{self.TABLES}.t{number}") for number in range(self.TABLES)]
        for stream in self.streams:
            stream.burst(changes, 5000, 2000)

    def go(self, course):
        proxy = Toxiproxy(course.folder, ENV["S3"].removeprefix("http://"))
        try:
            self.run(course, proxy)
        finally:
            proxy.stop()
        for stream in self.streams[::10]:
            course.look(stream, some)

    def run(self, course, proxy):
        process = course.instance([stream.topic for stream in self.streams], memory=f"{self.memory}MiB")
        process.added |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}", "AWS_TIMEOUT": "10 seconds"}
        process.start(known_member=False)
        until("the first commit", lambda: self.position(process), 60, step=0.02)
        proxy.add("trickle")
        time.sleep(3)
        before = self.position(process)
        self.watch(course, process, self.HELD)
        course.check(self.position(process) == before, f"a batch got through, from {before} to {self.position(process)}: nothing was held")
        proxy.heal()
        proxy.add("narrow")
        self.watch(course, process, self.SLOW)
        slow = self.position(process)
        course.tell(held_at=before, slowly_to=slow)
        proxy.heal()
        begin = time.monotonic()
        needed = {place: end for stream in self.streams for place, end in stream.needed().items()}
        course.settle(process, needed, 180)
        course.tell(recovered=f"{time.monotonic() - begin:.0f} s")
        course.check(process.metric("cdc_sink_rebalances_total") in (None, 0, 1), "the group has lost its member meanwhile")
        course.bounded(process, self.memory, self.ALLOWANCE_MIB)
        process.stop()

    def position(self, process):
        tables = (process.status() or {"tables": []})["tables"]
        for table in tables:
            if table["state"] != "running":
                raise Fail(f"table {table['table']} is {table['state']}: {table['reason']}")
        return sum(one["position"] or 0 for table in tables for one in table["partitions"])

    def watch(self, course, process, seconds):
        """What is buffered stays within its share of the memory."""
        end, most = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            process.measure().expect_alive()
            most = max(most, process.metric("cdc_sink_buffered_bytes") or 0)
            time.sleep(0.5)
        limit = process.metric("cdc_sink_buffer_limit_bytes") or self.memory * 2**20 / 4
        course.tell(buffered=f"{most / 2**20:.0f} MiB of {limit / 2**20:.0f}")
        course.check(most <= limit * self.OVER, f"{most} bytes were buffered, the limit is {limit}")


class SlowStoreOfMany(SlowStore):
    """The same with many tables, each of which waits with what it has."""

    name, targets, TABLES = "slow store of many", ("delta",), 100
    # What is buffered stays within its limit as with one table. The client has a batch of the producer of each partition, of a megabyte, though; and each
    # thread that writes or opens a table keeps some megabytes.
    ALLOWANCE_MIB = 500
