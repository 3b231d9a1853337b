"""What a run makes on the shared servers, and its removal: all names begin with the run's."""
import os
import re
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from catalogs import WORK, Catalog
from cleanup import is_running
from connectors import Kafka
from logs import Store
from stack import ENV, Fail, run_name


class World:
    def __init__(self, run):
        self.run, self.folder, self.kafka = run, WORK / run, Kafka()

    @classmethod
    def new(cls):
        world = cls(run_name("f", 7, 10))
        world.folder.mkdir(parents=True)
        (world.folder / "pid").write_text(str(os.getpid()))
        return world

    def fill(self, tables):
        """Makes the topics of tables, by name, with every record in its partition."""
        make(self.kafka.admin, tables)
        producer = sender()
        for topic, table in tables.items():
            send(producer, topic, table.records)
        wanted = {(topic, partition): end for topic, table in tables.items() for partition, end in table.ends().items()}
        if (ends := self.kafka.ends(list(tables))) != wanted:
            raise Fail(f"the topics end at {ends}, not at {wanted}")

    def play(self, go, cases, processes, keep):
        """What `go` answers of each case, some at a time, told as they end; the outcomes, and the answers. What the run made goes, if nothing is
        wrong."""
        results = []
        try:
            with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
                for done in as_completed([pool.submit(go, *case) for case in cases]):
                    results.append(done.result())
                    print(results[-1].line(), flush=True)
        finally:
            if not keep and not any(result.wrong for result in results):
                self.remove()
        return [(result.name, "failed" if result.wrong else "passed", result.wrong) for result in results], results

    def remove(self):
        mine = f"{self.run}-"
        groups = [group.group_id for group in self.kafka.admin.list_consumer_groups().result(20).valid if group.group_id.startswith(mine)]
        if groups:
            for future in self.kafka.admin.delete_consumer_groups(groups).values():
                future.exception()  # A killed member may be waited for; the broker forgets the group by itself.
        self.kafka.delete([name for name in self.kafka.topics() if name.startswith((f"{self.run}.", mine))])
        catalog = Catalog(ENV["ICEBERG_REST"])
        for namespace in catalog.namespaces():
            if namespace.startswith(f"{self.run}_"):
                catalog.remove(namespace)
        store = Store(f"s3://{ENV['S3_BUCKET']}/{self.run}")
        paths = [{"Key": f"{store.prefix}/{path}"} for path in store.list()]
        for at in range(0, len(paths), 1000):
            store.client.delete_objects(Bucket=store.bucket, Delete={"Objects": paths[at:at + 1000], "Quiet": True})


def clean():
    """Removes what runs left behind that failed."""
    names = [folder.name for folder in WORK.iterdir() if re.fullmatch("f[0-9a-z]{7}", folder.name)]
    for name in names:
        if not is_running(name):
            World(name).remove()
            shutil.rmtree(WORK / name)
            print(f"removed what run {name} left")


def topic(run, table):
    return f"{run}.shop.{table}"


def make(admin, tables):
    for future in admin.create_topics([NewTopic(topic, table.partitions, 1) for topic, table in tables.items()]).values():
        future.result()


def sender():
    return Producer({"bootstrap.servers": ENV["BROKERS"], "enable.idempotence": True, "linger.ms": 5, "log_level": 2})


def send(producer, topic, records):
    for record in records:
        producer.produce(topic, record.value, record.key, record.partition, headers=record.headers)
        producer.poll(0)
    if left := producer.flush(60):
        raise Fail(f"{left} records did not get into Kafka")
