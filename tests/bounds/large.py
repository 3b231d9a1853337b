"""Records that are too large: refused, and in the dead letters complete, or their table halts; nothing is lost."""
from random import Random

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic

from stack import ENV, Fail, until
from streams import Stream, envelope, text

MIB = 2**20
LARGEST = 80 * MIB


class LargeRecords:
    """Records of 50 MB among small ones and one of 20 MB, which fits."""

    name, targets, memory = "large records", ("delta", "iceberg"), 256
    LARGE, FITS, COUNT = 50_000_000, 20_000_000, 3
    # Of each copy of the largest record that there is at one time.
    ALLOWANCE_MIB = 450

    def __init__(self, world, quick):
        self.world, self.count = world, 1 if quick else self.COUNT
        self.stream = Stream(world.kafka, f"{world.run}.large.rows", {"max.message.bytes": str(LARGEST)}, **{"message.max.bytes": LARGEST})
        self.large = {}
        self.stream.burst(40, 10)
        self.put("c", 100, self.FITS)
        for number in range(self.count):
            self.burst(3)
            self.put("u", 3, self.LARGE, refused=True)
            self.burst(3)
        self.stream.flush()

    def burst(self, count):
        for key in range(count):
            self.stream.send("u", key)

    def put(self, op, key, size, refused=False):
        """A row with a text of `size` characters; the table has nothing of it when it is refused."""
        stream = self.stream
        # It does not get small in a packed batch.
        words = Random(stream.sent).randbytes(size // 2).hex()
        value = envelope(stream.topic, op, (key, stream.sent, words), stream.sent)
        if refused:
            self.large[stream.sent] = value
        stream.log.append(("large", key, words) if not refused else ("refused", key, None))
        stream.put(value, f'{{"id":{key}}}')

    def go(self, course):
        self.to_both(course)
        self.halts(course)

    def letters_topic(self, course, most):
        name = f"{course.run}-letters-{course.target.name}-{most}"
        course.kafka.admin.create_topics([NewTopic(name, 1, 1, config={"max.message.bytes": str(most)})])[name].result(20)
        return name

    def to_both(self, course):
        """A topic that takes them, and a table."""
        letters = self.letters_topic(course, LARGEST)
        place = f"table:{course.run}_large.letters_{course.target.name}"
        process = course.instance([self.stream.topic], memory=f"{self.memory}MiB", dead_letters=[f"topic:{letters}", place])
        course.takes_all(process, self.stream, 180, self.memory, self.ALLOWANCE_MIB)
        course.look(Rows(self.stream))
        course.compare_letters("the topic", self.in_topic(letters), self.large)
        course.compare_letters("the table", course.letters(place.partition(":")[2]), self.large)

    def in_topic(self, letters):
        consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": "bounds-observer", "enable.auto.commit": False,
                             "fetch.message.max.bytes": LARGEST, "receive.message.max.bytes": 2 * LARGEST, "fetch.max.bytes": LARGEST})
        consumer.assign([TopicPartition(letters, 0, 0)])
        found = {}
        while (record := consumer.poll(5)) is not None:
            if record.error():
                raise Fail(f"{letters}: {record.error()}")
            headers = {name: value.decode() for name, value in record.headers()}
            found[int(headers["__connect.errors.offset"])] = (record.value(), headers["cdc_sink.reason"])
        consumer.close()
        return found

    def halts(self, course):
        """The topic of dead letters does not take them: the table halts, and goes on once it does."""
        letters = self.letters_topic(course, MIB)
        process = course.instance([self.stream.topic], memory=f"{self.memory}MiB", dead_letters=[f"topic:{letters}"], group=f"{course.group}-h",
                                  table_name=f"{course.run}_large.halted_{{table}}_{course.target.name}")
        process.start(known_member=False)

        def reason():
            for table in (process.status() or {"tables": []})["tables"]:
                if table["state"] != "running":
                    return table["reason"]

        why = until("the table halts", reason, 120)
        first = min(self.large)
        for words in (f"offset {first}", letters, "too large for the topic", "max.message.bytes"):
            course.check(words in why, f"the table halts without the words {words}: {why}")
        process.end()
        course.check(not self.in_topic(letters), "a dead letter is there that was refused")
        resource = ConfigResource(ConfigResource.Type.TOPIC, letters, incremental_configs=[
            ConfigEntry("max.message.bytes", str(LARGEST), incremental_operation=AlterConfigOpType.SET)])
        course.kafka.admin.incremental_alter_configs([resource])[resource].result(20)
        process.start(known_member=False)
        course.settle(process, self.stream.needed(), 180)
        process.stop()
        course.compare_letters("the topic", self.in_topic(letters), self.large)


class Rows:
    """The rows of a stream whose large ones say what they are themselves."""

    def __init__(self, stream):
        self.stream, self.topic = stream, stream.topic

    def ends(self):
        return self.stream.ends()

    def seen(self, got):
        return self.stream.seen(got)

    def fold(self, position):
        last = {}
        for offset, (op, key, what) in enumerate(self.stream.log[:position.get(0, 0)]):
            if op == "large":
                last[key] = (key, offset, what, "c", 0, offset)
            elif op != "refused":
                last[key] = (key, offset, text(offset, what), op, 0, offset)
        return [last[key] for key in sorted(last)]
