"""The program under test, built to kill itself: its configuration, its processes, and what Kafka holds of its group."""
import json
import re
import signal
from pathlib import Path

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from sinks import Instance
from stack import ENV, Fail, tail, until

# Short sessions, and little memory: that makes for small fetches, so for many batches.
BASE = {"memory": "64MiB", "batch-rows": 150, "batch-age": "500ms", "batch-idle": "200ms"}


class Program(Instance):
    """One instance of a case's group. Each start may have options of its own and a point to be killed at."""

    def __init__(self, target, name, folder, topics, settings):
        super().__init__(target, name, target.name, folder, {})
        self.topics, self.settings, self.point = topics, settings, ""
        self.known_member, self.added, self.kafka = True, {}, {"fetch.wait.max.ms": "20"}

    def begin(self, point="", **options):
        self.point, self.options = point, self.settings | options
        self.start(self.known_member)

    def environment(self):
        return super().environment() | self.added | ({"CDC_SINK_FAILPOINTS": self.point} if self.point else {})

    def toml(self, known_member):
        self.options = BASE | {"topics": list(self.topics), "registry": None} | self.options
        kafka = "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in self.kafka.items())
        tables = "".join(f'\n[tables."{topic}"]\nname = {json.dumps(table)}\n' for topic, table in self.topics.items())
        return super().toml(known_member) + kafka + tables

    def peak_mib(self):
        """The most memory that it had resident."""
        try:
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            found = None
        return int(found[1]) // 1024 if found else 0

    def was_killed(self):
        """True when it died at its point; anything but that or running is a failure."""
        code = self.process.poll()
        if code is None:
            return False
        last = self.log.read_text(errors="replace").splitlines()[-1]
        if code != -signal.SIGKILL or last != f"killed at {self.point.partition('@')[0]}":
            raise Fail(f"{self.target.name}-{self.name} ended with exit code {code}, not at {self.point or 'all'}; the end of {self.log}:\n{tail(self.log)}")
        self.kills += 1
        return True

    def end(self):
        if self.alive():
            self.process.kill()
        if self.process:
            self.process.wait()


class Group:
    """What Kafka keeps of a consumer group."""

    def __init__(self, name, ends):
        self.name, self.ends = name, ends
        self.admin = AdminClient({"bootstrap.servers": ENV["BROKERS"]})

    def acknowledged(self):
        wanted = ConsumerGroupTopicPartitions(self.name, [TopicPartition(*place) for place in self.ends])
        found = self.admin.list_consumer_group_offsets([wanted])[self.name].result(20).topic_partitions
        return {(place.topic, place.partition): place.offset for place in found if place.offset >= 0}

    def remove(self):
        self.admin.delete_consumer_groups([self.name])[self.name].result(20)


def running(instance):
    """What an instance says of its tables; one that halted is a failure."""
    tables = (instance.status() or {"tables": []})["tables"]
    for table in tables:
        if table["state"] != "running":
            raise Fail(f"table {table['table']} is {table['state']}: {table['reason']}")
    return tables


def settled(instances, ends):
    """True once every partition is wholly in its table."""
    positions = {}
    for instance in instances:
        for table in running(instance):
            for partition in table["partitions"]:
                place = table["topic"], partition["partition"]
                positions[place] = max(positions.get(place, 0), partition["position"] or 0)
    return all(positions.get(place, 0) >= end for place, end in ends.items())


def wait_killed(program, seconds=40):
    def killed():
        if program.was_killed():
            return True
        running(program)
        return False

    until(f"{program.target.name}: killed at {program.point}", killed, seconds, step=0.03)


def wait_settled(instances, ends, seconds=60):
    def done():
        for instance in instances:
            instance.expect_alive()
        return settled(instances, ends)

    until(f"{instances[0].target.name}: every record in its table", done, seconds, step=0.05)
