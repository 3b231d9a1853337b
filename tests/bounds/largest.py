"""Records that are larger than what clients take by default: as they lie in the log, and as they are once unpacked."""
from contextlib import contextmanager
from random import Random

from connectors import Kafka
from large import Rows
from stack import ENV
from streams import Stream, envelope, producer
from toxics import Broker

LIMIT = 300_000_000


class LargestRecords:
    """One of 104 MB that is not packed, which is about what a broker takes in a request, and one of 190 MB that packs to half: both among small
    ones, refused for their size, and complete in the table of dead letters."""

    name, targets, memory = "largest records", ("delta",), 256
    PLAIN, PACKED = 104_000_000, 190_000_000
    # Of each copy of the largest record that there is at one time.
    ALLOWANCE_MIB = 1400

    def __init__(self, world, quick):
        self.world = world

    @contextmanager
    def broker(self, folder):
        """One that takes such records, and has the memory for them."""
        before = ENV["BROKERS"]
        broker = Broker(folder, "1500m", f"socket.request.max.bytes={LIMIT}")
        broker.start()
        ENV["BROKERS"] = f"127.0.0.1:{broker.port}"
        try:
            yield Kafka()
        finally:
            ENV["BROKERS"] = before
            broker.stop()

    def go(self, course):
        with self.broker(course.folder) as kafka:
            self.fill(course, kafka)
            place = f"table:{course.run}_largest.letters_{course.target.name}"
            process = course.instance([self.stream.topic], memory=f"{self.memory}MiB", dead_letters=[place])
            course.takes_all(process, self.stream, 180, self.memory, self.ALLOWANCE_MIB)
        course.look(Rows(self.stream))
        course.compare_letters("the table", course.letters(place.partition(":")[2]), self.large)

    def fill(self, course, kafka):
        most = {"max.message.bytes": str(LIMIT), "segment.bytes": str(LIMIT)}
        plain = {"message.max.bytes": LIMIT, "compression.type": "none", "queue.buffering.max.kbytes": LIMIT // 500}
        self.stream, self.large = Stream(kafka, f"{course.run}.largest.rows", most, **plain), {}
        self.stream.burst(40, 10)
        self.put(self.PLAIN)
        self.stream.burst(5, 10)
        self.stream.producer = producer(**plain | {"compression.type": "zstd"})
        self.put(self.PACKED)
        self.stream.burst(5, 10)

    def put(self, size):
        stream = self.stream
        words = Random(stream.sent).randbytes(size // 2).hex()
        self.large[stream.sent] = value = envelope(stream.topic, "u", (3, stream.sent, words), stream.sent)
        stream.log.append(("refused", 3, None))
        stream.put(value, '{"id":3}')
        stream.flush()
