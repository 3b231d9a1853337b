"""Topics whose source blocks name schemas and tables that would leave the warehouse, hide in it or meet each other."""
import re

import boto3
from confluent_kafka import Consumer, TopicPartition
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

import delta_rs
from program import Program
from records import Sender
from sinks import behind
from stack import ENV, Fail, lake, tail, until

# Schema and table, as a source may name them.
NAMES = (
    ("../x", "t"), ("..", ".."), ("../../..", "etc/passwd"), ("a/b", "c/d"), ("/abs", "/t"), ("s", "_delta_log"), (".hidden", ".t"), ("_", "__"),
    ("_delta_log", "data"), ("%2e%2e", "%2Fetc%2F"), ("_x2e_x2e", "t"), ("..\\..", "t"), ("schémà", "täble 表"), ("s\n", "t\0"), ("s", "metadata"),
    ("", "empty"), ("s", "t" * 150), ("s" * 100, "."),
)
# Topics that a router named, whatever the source says.
ROUTED = ("routed", "_routed", "-", "a..b", "...", "x" * 230)
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def spelled(part):
    """As Debezium writes it in a topic's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", part)


class Names:
    def __init__(self, run, folder, broker, say):
        self.run, self.folder, self.broker, self.say = run, folder, broker, say
        self.local = folder / "outer" / "inner" / "warehouse"

    def check(self):
        sender, self.rows = Sender(self.broker.at["PLAIN"]), {}
        for schema, table in NAMES:
            topic = f"{self.run}n.{spelled(schema)}.{spelled(table)}"
            self.send(sender, topic, {"name": f"{self.run}n", "schema": schema, "table": table})
        for name in ROUTED:
            self.send(sender, f"{self.run}n{name}", {"name": "../..", "db": "../..", "schema": "../../..", "table": "../../../x" + "y" * 245})
        store = boto3.resource("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                               region_name=ENV["S3_REGION"])
        bucket = store.create_bucket(Bucket=f"{self.run}-names")
        try:
            remote = f"s3://{bucket.name}/inner/warehouse"
            found = self.keep("remote", remote, ("delta", "iceberg"), lambda: [item.key for item in bucket.objects.all()], "inner/warehouse/")
            outer = self.folder / "outer"
            listed = lambda: [str(path.relative_to(outer)) for path in outer.rglob("*") if path.is_file()]  # noqa: E731
            found += self.keep("local", str(self.local), ("delta",), listed, "inner/warehouse/")
        finally:
            bucket.objects.all().delete()
            bucket.delete()
        return found + self.meet(sender)

    def send(self, sender, topic, source):
        if topic in self.rows:
            raise Fail(f"two cases have the topic {topic}")
        self.rows[topic] = [{"id": number, "name": f"{number} of {topic}"} for number in range(3)]
        sender.json(topic, self.rows[topic], source)

    def program(self, name, warehouse, formats, topics):
        environment = {"AWS_ENDPOINT_URL": ENV["S3"], "AWS_ACCESS_KEY_ID": ENV["S3_ACCESS_KEY"], "AWS_SECRET_ACCESS_KEY": ENV["S3_SECRET_KEY"]}
        options = {"brokers": self.broker.at["PLAIN"], "topics": topics, "warehouse": warehouse, "batch-age": "1s", "batch-idle": "300ms"}
        return Program(f"names-{name}", self.run, self.folder, formats, options, {}, environment)

    def keep(self, name, warehouse, formats, listed, prefix):
        """Each topic has a table of its own with its rows, and no file is elsewhere."""
        program = self.program(name, warehouse, formats, [rf"^{self.run}n.*$"])
        program.start(known_member=False)
        try:
            observer = Consumer({"bootstrap.servers": self.broker.at["PLAIN"], "group.id": "observer", "enable.auto.commit": False})
            ends = {(topic, 0): observer.get_watermark_offsets(TopicPartition(topic, 0), timeout=15)[1] for topic in self.rows}
            until("every topic is in its table", lambda: not behind(program.target, [program], ends), 90)
            tables = {table["topic"]: table["table"] for table in program.status()["tables"]}
        except Fail as error:
            return [f"names, {name}: {error}\nthe end of {program.log}:\n{tail(program.log)}"]
        finally:
            program.shut()
        folders = {f"{prefix}{table.replace('.', '/')}/": topic for topic, table in tables.items()}
        found = [f"{table} is no safe name" for table in tables.values() if not all(SAFE.fullmatch(part) for part in table.split("."))]
        found += [f"{len(tables)} topics have {len(folders)} tables"] if len(folders) < len(self.rows) or len(tables) != len(self.rows) else []
        files = listed()
        found += [f"{file} is in no table's folder" for file in files if not any(file.startswith(folder) for folder in folders)]
        for folder, topic in folders.items():
            got = self.read(f"{warehouse}/{folder.removeprefix(prefix)}")
            found += [] if got == self.rows[topic] else [f"{folder} of {topic!r} has {got}"]
        self.say(f"names, {name}: {len(tables)} topics, {len(set(tables.values()))} tables, {len(files)} files, {len(found)} failed")
        return [f"names, {name}: {text}" for text in found]

    def read(self, where):
        try:
            version = DeltaTable(where, storage_options=delta_rs.storage_options(lake())).version()
        except TableNotFoundError:
            return None
        rows = delta_rs.Reader(lake()).read({"delta": where}, {"version": version}).select(["id", "name"]).to_pylist()
        return sorted(rows, key=lambda row: row["id"])

    def meet(self, sender):
        """Topics that some file systems and catalogs could not tell apart: the second one is refused, not mixed in."""
        topics = [f"{self.run}m.s.orders", f"{self.run}m.s.Orders"]
        for topic in topics:
            sender.json(topic, [{"id": 1, "name": topic}], {"name": f"{self.run}m", "schema": "s", "table": topic.split(".")[-1]})
        program = self.program("meet", str(self.folder / "meet"), ("delta",), topics)
        program.start(known_member=False)
        try:
            until("the refusal", lambda: "would both feed the table" in program.said(), 60)
        except Fail as error:
            return [f"names that meet: {error}; the end of {program.log}:\n{tail(program.log)}"]
        finally:
            if program.ended(1) is None:
                program.shut()
        folders = {path.parent.name.lower() for path in (self.folder / "meet").rglob("_delta_log")}
        self.say(f"names that meet: {[line for line in program.said().splitlines() if 'would both' in line][0][:200]}")
        return [] if folders <= {"orders"} else [f"names that meet: {folders}"]
