"""What can happen to a consumer group and to its topics; each scenario ends with everything settled, or says which tables halt."""
import re
import signal
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource

from scene import NOTICED, SESSION, Group
from stack import ENV, Fail, until


def instances_come_and_go(scene):
    """1 → 3 → 2 → 5 → 1, some by SIGTERM and some by SIGKILL."""
    scene.usual(partitions=6)
    scene.start("a")
    time.sleep(4)
    scene.start("b", "c")
    time.sleep(4)
    scene.each(lambda group: group.kill("c"))
    time.sleep(2)
    scene.start("c", "d", "e")
    time.sleep(SESSION + 3)
    scene.each(lambda group: group.kill("a", "d"))
    scene.each(lambda group: group.stop("b", "e"))


def static_members_restart(scene):
    """The group keeps partitions for a name: a member that comes back in time disturbs no other."""
    scene.usual(partitions=6)
    scene.start("a", "b", "c", known_member=True)
    joined(scene, "abc")
    before = {(name, member): revoked(group, member) for name, group in scene.groups.items() for member in "abc"}
    for member in "abcab":
        scene.each(lambda group: group.kill(member))
        scene.start(member, known_member=True)
        time.sleep(2)
    for (name, member), count in before.items():
        now = revoked(scene.groups[name], member)
        scene.check(name, now == count, f"{member} had partitions taken away {now - count} times while others restarted")


def a_zombie_comes_back(scene):
    """Stopped past its session, others commit what was its; then it goes on where it was."""
    scene.usual()
    scene.start("a", "b")
    joined(scene, "ab")
    for _ in range(2):
        before = {name: group.positions() for name, group in scene.groups.items()}
        scene.each(lambda group: group.members["a"].process.send_signal(signal.SIGSTOP))
        for name, group in scene.groups.items():
            others = group.members["b"]

            def all_moved():
                tables = (others.status() or {"tables": []})["tables"]
                positions = {(table["topic"], one["partition"]): one["position"] or 0 for table in tables for one in table["partitions"]}
                return positions.keys() >= before[name].keys() and all(positions[place] > at for place, at in before[name].items())

            until(f"{name}: b commits to every partition", all_moved, SESSION + 20)
        scene.each(lambda group: group.members["a"].process.send_signal(signal.SIGCONT))
        time.sleep(4)


def a_static_zombie_is_fenced(scene):
    """Another process has its name meanwhile: whoever joined first ends with the exit code for that, and harms nothing. One that was stopped for
    longer than its session joins again when it wakes up."""
    scene.usual()
    scene.start("a", "b", known_member=True)
    joined(scene, "ab")
    scene.each(lambda group: group.members["a"].process.send_signal(signal.SIGSTOP))
    for group in scene.groups.values():
        group.members["zombie"] = group.members.pop("a")
    scene.start("a", known_member=True)
    joined(scene, "a")
    time.sleep(3)
    for name, group in scene.groups.items():
        rivals = {member: group.members[member] for member in ("zombie", "a")}
        rivals["zombie"].process.send_signal(signal.SIGCONT)
        ended = until(f"{name}: one of two with one name ends", lambda: [member for member, one in rivals.items() if not one.alive()], 60)  # noqa: B023
        code = group.members.pop(ended[0]).process.returncode
        scene.check(name, ended != ["zombie", "a"] and code == 3, f"{ended} ended, with exit code {code}, not one with 3")


def partitions_are_added(scene):
    """Keys move to new partitions; one instance is killed before it notices, one notices by itself."""
    rows, _ = scene.usual(partitions=3)
    scene.start("a", "b")
    joined(scene, "ab")
    rows.grow(8)
    time.sleep(2)
    scene.each(lambda group: group.kill("b"))
    time.sleep(1)
    scene.start("b")
    scene.quiet()
    scene.settle(NOTICED)
    for topic in scene.topics.values():
        topic.start()
    time.sleep(3)


def the_group_is_deleted(scene):
    """With all its offsets, as when they expire: the tables know where they are."""
    scene.usual()
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    scene.each(Group.empty)
    for name, group in scene.groups.items():
        scene.check(name, stored_offsets(group), "nothing was acknowledged")
        scene.kafka.admin.delete_consumer_groups([group.name])[group.name].result(20)
    time.sleep(2)
    scene.start("a", "b")
    time.sleep(2)


def offsets_in_kafka_are_wrong(scene):
    """Somebody set them to the beginning, or to the end: they are a hint for lag monitors only."""
    rows, other = scene.usual()
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    scene.each(Group.empty)
    time.sleep(2)
    ends = scene.kafka.ends([rows.name, other.name])
    for group in scene.groups.values():
        wrong = [TopicPartition(*place, end if place[1] % 2 == 0 else 0) for place, end in ends.items()]
        scene.kafka.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group.name, wrong)])[group.name].result(20)
    scene.start("a", "b")
    time.sleep(2)


def records_are_deleted_that_were_read(scene):
    """Retention below the position harms nobody, who reads on or who starts anew."""
    rows, _ = scene.usual()
    scene.start("a", "b")
    joined(scene, "ab")
    for _ in range(2):
        stored = [scene.place(name, rows).logs()[0][0].position() for name in scene.groups]
        read = {partition: min(position.get(partition, 0) for position in stored) for partition in rows.logs}
        delete_records(scene, {(rows.name, partition): at for partition, at in read.items() if at})
        time.sleep(2)
        scene.each(lambda group: group.kill("b"))
        scene.start("b")
        time.sleep(2)


def records_are_deleted_before_they_were_read(scene):
    """The table halts and tells the exact range, in a metric too; the other one goes on; nothing is skipped after a restart either."""
    unread = records_lost_unread(scene)
    for _ in range(2):
        scene.start("a")
        halts_on_loss(scene, *unread)
        time.sleep(2)
        scene.each(lambda group: group.kill("a"))
    scene.start("a")


def a_topic_is_deleted(scene):
    """The log says so, the table stays as it is, and the other one goes on, after a restart too."""
    rows, _ = scene.usual()
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    rows.stop()
    scene.settle(topics=[rows])
    rows.delete()
    for name, group in scene.groups.items():
        log = group.members["a"].log
        until(f"{name}: the log says that {rows.name} is gone", lambda: re.search(rf"WARN .*not available: {re.escape(rows.name)}", log.read_text()), NOTICED)
    scene.each(lambda group: group.kill("a"))
    scene.start("a")
    time.sleep(3)
    scene.gone = {rows.name}


def topics_are_made_again(scene):
    """One with fewer records than were read of the old one, one with more, and one whose records are older, as in a mirror; while they are
    read, and while nobody reads."""
    rows, other = scene.usual(partitions=2)
    longer, mirrored = scene.topic("longer", 2), scene.topic("mirrored", 2)
    again = (rows, longer, mirrored)
    longer.start()
    mirrored.start()
    scene.start("a")
    joined(scene, "a")
    time.sleep(3)
    for topic in again:
        topic.stop()
    scene.settle(topics=again)
    scene.groups["delta"].stop("a")
    old = {topic: topic.logs for topic in again}
    for topic in again:
        topic.delete()
    mirrored.age = 3600
    for topic, count in ((rows, 20), (longer, longer.sent * 2), (mirrored, mirrored.sent * 2)):
        remake(topic)
        topic.burst(count)
        # A reader goes on by number until it notices.
        beyond = {partition: {offset: change for offset, change in log.items() if offset > max(old[topic].get(partition, {-1: None}))}
                  for partition, log in topic.logs.items()}
        both = {partition: old[topic].get(partition, {}) | beyond.get(partition, {}) for partition in (0, 1)}
        topic.read = {name: both for name in scene.groups}
    scene.halted = {topic.name for topic in again}
    scene.groups["delta"].start("a")
    for topic in again:
        why = "its topic has the id [\\w-]{22}, the one that was read had" if topic is mirrored else "offset"
        halts(scene, topic, rf"cannot read {re.escape(topic.name)}\[[01]\] .*{why}")


def transactions_and_compaction(scene):
    """Gaps in the offsets are no loss: aborted transactions, markers, compacted records."""
    written = scene.topic("written", 3, transactions=True)
    compacted = scene.topic("compacted", 2, config={"segment.ms": "500", "min.cleanable.dirty.ratio": "0.01", "max.compaction.lag.ms": "1000"})
    for topic in (written, compacted):
        topic.start()
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    scene.each(lambda group: group.kill("a"))
    time.sleep(2)
    scene.quiet()
    compact(scene, compacted)
    for name in scene.groups:
        at = scene.place(name, compacted).logs()[0][0].position()
        compacted.read[name] = {partition: {offset: change for offset, change in log.items() if offset < at.get(partition, 0) or offset in left}
                                for (partition, log), left in zip(compacted.logs.items(), survivors(compacted))}
    scene.start("a", "b")
    joined(scene, "ab")
    written.start()
    time.sleep(3)


def an_eager_stranger(scene):
    """A consumer of another kind in the group: it is refused while ours are there; one that was there first is waited for."""
    scene.usual()
    scene.start("a")
    joined(scene, "a")
    for name, group in scene.groups.items():
        stranger = stranger_of(scene, group)
        error = join(stranger, 15)
        scene.check(name, error and error.code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL, f"an eager consumer joined the group: {error}")
        stranger.close()
    time.sleep(1)
    scene.each(Group.empty)
    strangers = [stranger_of(scene, group) for group in scene.groups.values()]
    for stranger in strangers:
        if error := join(stranger, 15):
            raise Fail(f"an eager consumer did not get into an empty group: {error}")
    scene.start("a")
    end = time.monotonic() + 8
    while time.monotonic() < end:
        for stranger in strangers:
            stranger.poll(0.1)
    for name, group in scene.groups.items():
        group.members["a"].expect_alive()
        last = group.members["a"].log.read_text().rpartition("--- start")[2]
        scene.check(name, "protocol" in last.lower() and "WARN" in last, "it does not say why it waits")
    for stranger in strangers:
        stranger.close()


def joined(scene, members):
    """Every member has partitions and every topic a position."""
    def all_have():
        for member in members:
            group.members[member].expect_alive()
            if "partitions assigned" not in group.members[member].log.read_text().rpartition("--- start")[2]:
                return False
        return {topic for topic, _ in group.positions()} >= {topic.name for topic in scene.topics.values()}

    for name, group in scene.groups.items():
        until(f"{name}: {members} have partitions", all_have, 40)


def revoked(group, member):
    return group.members[member].log.read_text().count("partitions revoked")


def stored_offsets(group):
    wanted = ConsumerGroupTopicPartitions(group.name)
    return group.scene.kafka.admin.list_consumer_group_offsets([wanted])[group.name].result(20).topic_partitions


def delete_records(scene, offsets):
    for future in scene.kafka.admin.delete_records([TopicPartition(*place, at) for place, at in offsets.items()]).values():
        future.result(20)


def records_lost_unread(scene):
    """Both groups read of two topics and end; then records that neither has read are deleted. The topic, and its oldest offset in partition 1."""
    rows, _ = scene.usual(partitions=2)
    scene.start("a")
    joined(scene, "a")
    time.sleep(2)
    scene.each(Group.empty)
    time.sleep(3)
    place = (rows.name, 1)
    low = max(scene.kafka.ends([rows.name])[place] - 5, 1)
    delete_records(scene, {place: low})
    scene.halted = {rows.name}
    return rows, low


def halts_on_loss(scene, rows, low):
    pattern = rf"cannot read {re.escape(rows.name)}\[1\] from offset (\d+), .* has offsets from {low} to \d+"
    halts(scene, rows, pattern, position_of=(rows.name, 1))


def halts(scene, topic, pattern, position_of=None):
    """The table of a topic halts in every group, with a reason that tells; a metric tells as well."""
    for name, group in scene.groups.items():
        until(f"{name}: the table of {topic.name} halts", lambda: topic.name in group.reasons(), NOTICED)
        member, table, reason = group.reasons()[topic.name]
        found = re.search(pattern, reason)
        scene.check(name, found, f"{topic.name} halted with a reason that does not tell: {reason}")
        if position_of and found:
            stored = group.positions()[position_of]
            scene.check(name, int(found[1]) == stored, f"the reason names offset {found[1]}, the table is at {stored}")
        scene.check(name, group.metric(member, "cdc_sink_table_halted", table) == 1, "the metric cdc_sink_table_halted does not tell")


def remake(topic):
    """Right after a topic's deletion its name is still taken for a moment."""
    def made():
        try:
            topic.make()
        except Exception as error:
            if "already exists" in str(error) or "marked for deletion" in str(error):
                return False
            raise
        return True

    until(f"{topic.name} is made again", made, 20)
    topic.producer = topic.open()


def compact(scene, topic):
    """From now on, and not while it is read: what a reader saw before is known."""
    change = ConfigResource(ConfigResource.Type.TOPIC, topic.name, incremental_configs=[
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)])
    scene.kafka.admin.incremental_alter_configs([change])[change].result(20)

    def is_compacted():
        return all(len(left) < len(log) - 20 for log, left in zip(topic.logs.values(), survivors(topic)))

    until(f"{topic.name} is compacted", is_compacted, 90, step=1)


def survivors(topic):
    """The offsets that are left of each partition."""
    return [read_offsets(topic.name, partition) for partition in topic.logs]


def read_offsets(name, partition):
    consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": "group-observer", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(name, partition, 0)])
    found = set()
    while (record := consumer.poll(20)) is not None:
        if record.error():
            break
        found.add(record.offset())
    consumer.close()
    return found


def stranger_of(scene, group):
    stranger = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": group.name, "enable.auto.commit": False, "session.timeout.ms": 6000,
                         "partition.assignment.strategy": "range", "auto.offset.reset": "earliest"})
    stranger.subscribe([topic.name for topic in scene.topics.values()])
    return stranger


def join(stranger, seconds):
    """Nothing once it has partitions, else the error that it got."""
    end, error = time.monotonic() + seconds, KafkaError(KafkaError._TIMED_OUT)
    while time.monotonic() < end:
        record = stranger.poll(0.2)
        if record is not None and record.error():
            return record.error()
        if stranger.assignment():
            return None
    return error


SCENARIOS = {scenario.__name__.replace("_", " "): scenario for scenario in (
    instances_come_and_go, static_members_restart, a_zombie_comes_back, a_static_zombie_is_fenced, partitions_are_added, the_group_is_deleted,
    offsets_in_kafka_are_wrong, records_are_deleted_that_were_read, records_are_deleted_before_they_were_read, a_topic_is_deleted, topics_are_made_again,
    transactions_and_compaction, an_eager_stranger)}
