"""What a person does to a group's tables: a second deployment on them, taking them over, accepting that records are lost."""
import re
import subprocess
import time

from logs import Store
from scenarios import halts_on_loss, joined, records_lost_unread
from scene import Group
from stack import binary, until


def two_deployments_on_one_table(scene):
    """The second is refused, and ends with the exit code for that, whoever of them runs; told to, it takes the tables over and the first is refused."""
    scene.usual(partitions=2)
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    firsts, rivals = dict(scene.groups), {name: rival_of(scene, group) for name, group in scene.groups.items()}
    for name, rival in rivals.items():
        rival.start("b")
        refused(scene, name, rival, "b", firsts[name])
    scene.each(Group.empty)
    for name, rival in rivals.items():
        rival.start("b")
        refused(scene, name, rival, "b", firsts[name])
    scene.groups = rivals
    for rival in rivals.values():
        rival.members.clear()
        rival.start("c", **{"take-over": True})
    joined(scene, "c")
    time.sleep(3)
    for name, first in firsts.items():
        first.members.clear()
        first.start("a")
        refused(scene, name, first, "a", rivals[name])
    for name, rival in rivals.items():
        scene.check(name, f"taken over from {owner(firsts[name])}" in history(rival.target), "the history does not tell that the table was taken over")
        rival.kill("c")
        rival.members.clear()
        rival.start("d")


def records_that_are_lost_are_accepted(scene):
    """The table that halted goes on behind them, and its history tells what is missing, and why."""
    rows, low = records_lost_unread(scene)
    scene.start("a")
    halts_on_loss(scene, rows, low)
    for name, group in scene.groups.items():
        stored = group.positions()[rows.name, 1]
        group.kill("a")
        said = command(group, "--topic", rows.name, "--partition", "1", "--reason", "a test of it")
        gap = f"offsets {stored} to {low} (not included) of {rows.name}[1]"
        scene.check(name, said.returncode == 0 and gap in said.stdout, f"accept-gap ended with {said.returncode}: {said.stdout}{said.stderr[-600:]}")
        scene.check(name, f"accepted as lost: {gap}: a test of it" in history(group.target), "the history does not tell what was accepted")
        rows.read[name] = {partition: log if partition != 1 else Left(log, stored, low) for partition, log in rows.logs.items()}
        again = command(group, "--topic", rows.name, "--partition", "1", "--reason", "once more")
        scene.check(name, again.returncode == 2 and "the topic has offsets" in again.stderr, f"a gap that is none was accepted: {again.stderr[-600:]}")
    scene.halted = set()
    scene.start("a")


class Left:
    """A partition's log, which grows, without what was lost of it."""

    def __init__(self, log, begin, end):
        self.log, self.begin, self.end = log, begin, end

    def items(self):
        return [(offset, change) for offset, change in self.log.items() if not self.begin <= offset < self.end]


def rival_of(scene, group):
    """Another deployment that writes the same tables."""
    rival = Group(scene, group.target.name)
    rival.name, rival.target = f"{group.name}-rival", group.target
    return rival


def owner(group):
    return f"consumer group {group.name} of Kafka cluster "


def refused(scene, name, group, member, other):
    """It ends by itself as one that is fenced, and says by whom and what can be done."""
    instance = group.members.pop(member)
    code = instance.process.wait(40)
    last = instance.log.read_text().rpartition("--- start")[2]
    scene.check(name, code == 3, f"{group.name} ended with exit code {code}, not as one that is fenced")
    for told in (owner(other), owner(group), "--take-over"):
        scene.check(name, told in last, f"{group.name} does not tell of: {told}")


def command(group, *arguments):
    member = group.members["a"]
    return subprocess.run([binary(), "offsets", "accept-gap", "--config", member.config, *arguments], capture_output=True, text=True, timeout=60,
                          env=member.environment(), check=False)


def history(target):
    """The text of the logs of all tables."""
    store = Store(target.warehouse)
    until("there is a table", store.list, 10)
    paths = [path for path in store.list() if re.search(r"_delta_log/\d+\.json$|metadata\.json$", path)]
    return "\n".join(store.read(path).decode() for path in paths)


SCENARIOS = {scenario.__name__.replace("_", " "): scenario for scenario in (two_deployments_on_one_table, records_that_are_lost_are_accepted)}
