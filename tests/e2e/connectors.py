"""Debezium connectors: the configurations that the project ships, filled in for a run."""
import json
import re
import zlib
from urllib.parse import urlparse

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from stack import ENV, REPOSITORY, Fail, http, until

# Tables whose topics always have one partition: a TRUNCATE, or the end of a snapshot, has an order among the records of its own only.
ORDERED = ("emptied", "again")
ENCODINGS = {"json": "j", "json-schema": "s", "avro": "a"}


class Connector:
    """One connector: a database in one encoding. Its topics are `<prefix>.<run>.<table>`."""

    def __init__(self, run, source, encoding, partitions):
        self.run, self.source, self.encoding, self.partitions = run, source, encoding, partitions
        self.prefix = f"{run}{source.short}{ENCODINGS[encoding]}"

    def topic(self, table):
        return f"{self.prefix}.{self.run}.{table.name}"

    def namespace(self):
        """Of the tables that cdc-sink makes of it."""
        return f"{self.prefix}_{self.run}"

    def declared(self, table):
        """The types that cdc-sink is told where records have no schema."""
        return {name: column.declared for column in table.columns for name in column.names()}

    def register(self):
        http("POST", f"{ENV['CONNECT']}/connectors", self.body())

    def body(self):
        text = (REPOSITORY / "connectors" / f"{self.source.kind}-{self.encoding}.json").read_text()
        variables = self.variables()
        body = json.loads(re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1], found[2]), text))
        body["config"] |= {"poll.interval.ms": "50", "topic.creation.groups": "single", "topic.creation.single.replication.factor": "1",
                           "topic.creation.single.partitions": "1", "topic.creation.single.include": rf".*\.({'|'.join(ORDERED)})"}
        return body

    def variables(self):
        kind = self.source.kind.upper()
        url = urlparse(self.source.url)
        found = {"CONNECTOR_NAME": self.prefix, "TOPIC_PREFIX": self.prefix, "TOPIC_PARTITIONS": str(self.partitions),
                 f"{kind}_HOST": url.hostname, f"{kind}_PORT": str(url.port), f"{kind}_USER": url.username, "KAFKA_BROKERS": ENV["BROKERS"],
                 f"{kind}_PASSWORD": url.password or "any", "REGISTRY_API": ENV.get("REGISTRY_NATIVE", "")}
        if kind == "POSTGRES":
            return found | {"POSTGRES_DATABASE": url.path[1:], "POSTGRES_SCHEMAS": self.run}
        return found | {f"{kind}_DATABASES": self.run, f"{kind}_SERVER_ID": str(10_000 + zlib.crc32(self.prefix.encode()) % 1_000_000)}

    def check(self):
        """Fails when its task failed."""
        for task in http("GET", f"{ENV['CONNECT']}/connectors/{self.prefix}/status")["tasks"]:
            if task["state"] == "FAILED":
                raise Fail(f"connector {self.prefix} failed: {task['trace'][:1500]}")


class Kafka:
    """What is in the topics."""

    def __init__(self):
        common = {"bootstrap.servers": ENV["BROKERS"], "log_level": 2}
        self.consumer = Consumer(common | {"group.id": "e2e-observer", "enable.auto.commit": False})
        self.admin = AdminClient(common)

    def topics(self):
        return {name: len(topic.partitions) for name, topic in self.consumer.list_topics(timeout=15).topics.items()}

    def ends(self, topics):
        """The next offset of every partition of those topics that are there."""
        there = self.topics()
        return {(topic, partition): self.consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=15)[1]
                for topic in topics for partition in range(there.get(topic, 0))}

    def wait_for(self, wanted, connectors, seconds):
        """Waits until each topic has its number of records: nothing else writes there, so offsets count them."""
        def arrived():
            for connector in connectors:
                connector.check()
            try:
                ends = self.ends(wanted)
            except KafkaException:  # A topic that was made just now has no leader yet.
                return None
            counts = {topic: sum(end for (name, _), end in ends.items() if name == topic) for topic in wanted}
            state.clear()
            state.update({topic: (counts[topic], wanted[topic]) for topic in wanted if counts[topic] != wanted[topic]})
            return ends if not state else None

        state = {}
        try:
            return until("every record in Kafka", arrived, seconds, step=0.2)
        except Fail as error:
            lines = [f"{topic}: {have} records, expected {want}" for topic, (have, want) in sorted(state.items())]
            raise Fail(f"{error}\n" + "\n".join(lines)) from None

    def delete(self, topics):
        if topics:
            for future in self.admin.delete_topics(topics).values():
                future.result()


def remove(prefix):
    """Offsets go before the connector: a new one of the same name would go on from them and take no initial snapshot."""
    base = f"{ENV['CONNECT']}/connectors/{prefix}"
    http("PUT", f"{base}/stop")
    until(f"{prefix} stopped", lambda: http("GET", f"{base}/status")["connector"]["state"] == "STOPPED", 30)
    until(f"offsets of {prefix} removed", lambda: http("DELETE", f"{base}/offsets"), 30)
    http("DELETE", base)
