"""A scene: topics under load, a group for each target that reads them, and the look at every version of their tables at the end."""
import signal
import urllib.request

from audit import READERS, Audit, Place, different, rows
from catalogs import Catalog
from connectors import Kafka
from load import NAMES, Topic
from sinks import Instance, Target
from stack import ENV, Fail, tail, until

TARGETS = ("delta", "iceberg")
BATCHES = {"memory": "64MiB", "batch-age": "800ms", "batch-idle": "250ms", "batch-rows": 100}
SESSION = 6
# An instance looks for new partitions this often.
NOTICED = 45


class Member(Instance):
    """An instance of a group."""

    def __init__(self, group, name, options):
        super().__init__(group.target, name, group.name, group.scene.folder, options)
        self.group = group

    def environment(self):
        return super().environment() | self.group.added


class Group:
    """The instances that keep the tables of one target; `options` and `added` variables of the environment are theirs."""

    def __init__(self, scene, name, catalog=""):
        self.name, self.scene = f"{scene.run}-{scene.slug}-{name}", scene
        self.target = Target(name, (name,), f"s3://{ENV['S3_BUCKET']}/{scene.run}/{scene.slug}/{name}", catalog)
        self.members, self.options, self.added = {}, {}, {}
        self.catalog = Catalog(catalog) if catalog else None

    def start(self, *names, known_member=False, **more):
        """`more` are options of the program."""
        for name in names:
            options = BATCHES | {"group": self.name, "topics": self.topics(), "registry": None} | self.options | more
            member = self.members.setdefault(name, Member(self, name, options))
            member.start(known_member)

    def topics(self):
        """Named one by one, or by a pattern."""
        names = [topic.name for topic in self.scene.topics.values()]
        return names if self.target.name == "delta" else [names[0].rpartition(".")[0] + ".*"]

    def alive(self):
        return [member for member in self.members.values() if member.alive()]

    def tables(self):
        """What the living say of each topic's table, one after the other."""
        for member in self.alive():
            for table in (member.status() or {"tables": []})["tables"]:
                yield member, table

    def positions(self):
        found = {}
        for _, table in self.tables():
            for partition in table["partitions"]:
                place = (table["topic"], partition["partition"])
                found[place] = max(found.get(place, -1), partition["position"] or 0)
        return found

    def reasons(self):
        return {table["topic"]: (member, table["table"], table["reason"]) for member, table in self.tables() if table["state"] != "running"}

    def metric(self, member, name, table):
        with urllib.request.urlopen(f"http://127.0.0.1:{member.port}/metrics", timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name}{{") and f'table="{table}"' in line:
                    return float(line.rpartition(" ")[2])
        return None

    def kill(self, *names):
        for name in names:
            self.members[name].kill()

    def stop(self, *names):
        for name in names:
            self.members[name].stop()

    def empty(self):
        """Every instance ends as it is asked to, with an exit code that tells whether a table of it has halted."""
        halted = {member.name for member, table in self.tables() if table["state"] != "running"}
        for member in self.alive():
            if member.name not in halted:
                member.stop()
                continue
            member.process.send_signal(signal.SIGTERM)
            if (code := member.process.wait(90)) != 1:
                raise Fail(f"{self.name}, {member.name} has a halted table and ended with exit code {code}")


class Scene:
    def __init__(self, run, folder, name, seed, catalog=""):
        """With a catalog, Iceberg's tables are in it."""
        self.run, self.seed = run, seed
        self.slug = "".join(letter if letter.isalnum() else "-" for letter in name.lower())[:40].strip("-")
        self.folder = folder / self.slug
        self.folder.mkdir()
        self.kafka = Kafka()
        self.topics = {}
        self.groups = {name: Group(self, name, catalog if name == "iceberg" else "") for name in TARGETS}
        self.wrong = {name: [] for name in TARGETS}
        self.audits = {name: Audit() for name in TARGETS}
        self.halted, self.gone = set(), set()
        # Each version but the last is read by one of the readers.
        self.by_turns = False

    def topic(self, name, partitions, **more):
        self.topics[name] = Topic(self.kafka, f"{self.run}.{self.slug.replace('-', '_')}.{name}", partitions, self.seed, **more)
        return self.topics[name]

    def usual(self, partitions=4):
        """Two topics under load."""
        found = self.topic("rows", partitions), self.topic("other", 1)
        for topic in found:
            topic.start()
        return found

    def each(self, what):
        """Does something with every group."""
        for group in self.groups.values():
            what(group)

    def start(self, *names, **more):
        self.each(lambda group: group.start(*names, **more))

    def check(self, target, is_so, what):
        if not is_so:
            self.wrong[target].append(what)

    def quiet(self):
        """No more changes; all are in Kafka."""
        for topic in self.topics.values():
            topic.stop()

    def settle(self, seconds=60, topics=None):
        """Every instance that shall run does, and every record that can be is in its table."""
        topics = [topic for topic in topics or self.topics.values() if topic.name not in self.halted | self.gone]
        for name, group in self.groups.items():
            waiting = {}

            def nothing_left():
                for member in group.members.values():
                    if member.process.returncode is None:
                        member.expect_alive()
                positions = group.positions()
                waiting.clear()
                for topic in topics:
                    waiting.update({place: (positions.get(place), end) for place, end in topic.needed().items() if positions.get(place, -1) < end})
                return not waiting

            try:
                until(f"{name}: every record in its table", nothing_left, seconds, step=0.1)
            except Fail as error:
                logs = "\n".join(f"the end of {member.log}:\n{tail(member.log, 12)}" for member in group.alive())
                raise Fail(f"{error}\nposition and end of what is not: {waiting}\nhalted: {group.reasons()}\n{logs}") from None
            extra = {topic: reason for topic, (_, _, reason) in group.reasons().items() if topic not in self.halted}
            self.check(name, not extra, f"tables halted: {extra}")

    def end(self):
        """Everything is in the tables; the processes end as asked; every version is looked at."""
        self.quiet()
        self.settle()
        # What halted before a restart does so again; how a process ends depends on it.
        for name, group in self.groups.items():
            until(f"{name}: {self.halted} halt", lambda: group.reasons().keys() >= self.halted, NOTICED)  # noqa: B023  called at once
        self.each(Group.empty)
        for name in self.groups:
            for topic in self.topics.values():
                self.look(name, topic)

    def place(self, name, topic):
        connector, schema, table = topic.name.split(".")
        return Place(self.groups[name].target, f"{connector}_{schema}.{table}", topic.name, self.groups[name].catalog)

    def look(self, name, topic):
        audit, place = self.audits[name], self.place(name, topic)
        logs, there = place.logs()
        self.check(name, logs, f"there is no table of {topic.name}")
        for log in logs:
            audit.log(place, log, there)
            for number, version in enumerate(log.versions):
                expected = topic.fold(version.position, name)
                in_turn = self.by_turns and version is not log.versions[-1]
                for module in (READERS[log.format][number % 2],) if in_turn else READERS[log.format]:
                    found = different(lambda: rows(place.read(log, version, module), NAMES), expected)
                    self.wrong[name] += [f"{place.name} ({module.__name__}) at {version.name}, {version.position}: {text}" for text in found]
                    audit.rows += len(expected)
            missing = {partition: end for (_, partition), end in topic.needed().items() if log.position().get(partition, 0) < end}
            self.check(name, topic.name in self.halted or not missing, f"{place.name} is at {log.position()}, its topic has {missing}")
        self.wrong[name] += audit.wrong
        audit.wrong = []

    def seen(self, target):
        audit = self.audits[target]
        return f"{audit.versions} versions, {audit.rows} rows compared"

    def close(self):
        for topic in self.topics.values():
            topic.ended.set()
        for group in self.groups.values():
            for member in group.members.values():
                if member.alive():
                    member.process.send_signal(signal.SIGCONT)
                    member.process.kill()
                    member.process.wait()
