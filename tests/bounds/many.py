"""A thousand tables of one process."""
import time
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka.admin import NewTopic

from audit import different
from stack import Fail
from streams import Stream, producer


class Small(Stream):
    """One of many topics, which are made together and share a producer."""

    def __init__(self, kafka, topic, shared):
        self.kafka, self.topic, self.producer = kafka, topic, shared
        self.sent, self.last, self.read_to, self.log = 0, {}, 0, []

    def flush(self):
        pass


class ManyTables:
    """A few rows each, another round of changes, and both once more after a restart; the topics match one pattern."""

    name, targets, memory = "many tables", ("delta", "iceberg"), 512
    # However many tables there are: threads beside those of the runtime are few, and so are files beside the connections of the tables
    # that are merged and opened at once. Those have up to a dozen each in Iceberg, and as many again while tables are made without anything
    # else to do: a client begins a new connection while it waits for one to be free.
    THREADS, FILES = 100, 1000

    def __init__(self, world, quick):
        self.world = world
        self.quick, self.count = quick, 200 if quick else 1000

    def fill(self, course):
        """Topics of the target's own: what is sent depends on how far the other one is."""
        admin, shared = course.kafka.admin, producer()
        names = [f"{course.run}.many{course.target.name}.t{number:04}" for number in range(self.count)]
        for at in range(0, self.count, 200):
            for future in admin.create_topics([NewTopic(name, 1, 1) for name in names[at:at + 200]]).values():
                future.result(60)
        self.streams = [Small(course.kafka, name, shared) for name in names]
        self.shared = shared

    def round(self, course, process, what):
        begin = time.monotonic()
        for number, stream in enumerate(self.streams):
            stream.burst(3 + number % 3, 4)
        if left := self.shared.flush(120):
            raise Fail(f"{left} records did not get into the topics")
        needed = {place: end for stream in self.streams for place, end in stream.needed().items()}
        course.settle(process, needed, 300, step=1)
        course.tell(**{what: f"{time.monotonic() - begin:.0f} s"})

    def go(self, course):
        self.fill(course)
        process = course.instance([rf"^{course.run}\.many{course.target.name}\..*$"], memory=f"{self.memory}MiB")
        begin = time.monotonic()
        process.start(known_member=False)
        self.round(course, process, "made")
        self.round(course, process, "again")
        process.stop()
        begin = time.monotonic()
        process.start(known_member=False)
        self.round(course, process, "after a restart")
        lag = process.metric("cdc_sink_lag_records")
        course.check(lag == 0, f"the lag is {lag} when everything is in the tables")
        course.bounded(process, self.memory)
        course.tell(threads=process.threads, files=process.files)
        course.check(process.threads <= self.THREADS, f"{process.threads} threads ran")
        course.check(process.files <= self.FILES, f"{process.files} files were open")
        process.stop()
        begin = time.monotonic()
        self.compare(course)
        course.tell(compared=f"{time.monotonic() - begin:.0f} s")

    def compare(self, course):
        """Every table as it is now; of some each version, by both readers."""
        for stream in self.streams[::self.count // 10]:
            course.look(stream)
        others = self.streams[1::5 if self.quick else 1]
        with ThreadPoolExecutor(2) as pool:
            for found in pool.map(lambda stream: self.newest(course, stream), others):
                course.wrong += found
        course.audit.rows += 4 * len(others)

    def newest(self, course, stream):
        import deltalake
        from pyiceberg.table import StaticTable

        from delta_rs import storage_options
        from logs import newest_metadata
        from py_iceberg import keys
        from stack import lake
        place = course.place(stream.topic)

        def read():
            if course.target.name == "delta":
                table = deltalake.DeltaTable(f"s3://{place.store.bucket}/{place.store.prefix}", storage_options=storage_options(lake()))
                return stream.seen(deltalake.QueryBuilder().register("t", table).execute("SELECT * FROM t").read_all())
            metadata = newest_metadata(place.store, place.store.list(), "")
            return stream.seen(StaticTable.from_metadata(metadata, keys(lake())).scan().to_arrow())

        return [f"{place.name}: {text}" for text in different(read, stream.fold(stream.ends()))]
