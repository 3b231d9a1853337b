#!/usr/bin/env python3
"""Chaos: kills, pauses, instances that come and go, growing topics, retention, servers that are cut off, brokers that restart, answers that are lost,
and somebody else who rewrites data files, at random, from a seed, for as long as is asked for.

In rounds of some minutes, each with topics and tables of its own: changes come all the time, something happens every few seconds to the group that keeps
Delta tables and to the one that keeps Iceberg tables, and after each everything that was in Kafka by then must get into the tables by itself. At the end
of a round two readers in turn, and both at the end, must find at every version of every table the fold of its topic up to the position that is stored
with it.
"""
import argparse
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

import strangers  # noqa: E402
import watch  # noqa: E402
from connectors import Kafka  # noqa: E402
from lossy import Lossy  # noqa: E402
from scenarios import delete_records, joined  # noqa: E402
from scene import SESSION, TARGETS, Scene  # noqa: E402
from stack import ENV, Fail, until  # noqa: E402
from toxics import Broker, Toxiproxy  # noqa: E402
from world import World  # noqa: E402

ROUND = 300
MEMBERS = "abcd"
PARTITIONS = 4
# After this long without a fault nothing may be left.
RECOVERS = 90
# How a server is cut off, and for how many seconds at most.
CUTS, LONGEST_CUT = ("silence", "reset", "down", "latency"), 8
# Of the requests that write, while answers are lost: a commit in a catalog, and a file in the store.
LOST, WRITES = 0.3, r"^POST .*/tables/[^/]+$|^PUT .*\.(json|parquet|bin|puffin|avro)$"
# Fewer versions than elsewhere: each is looked at.
BATCHES = {"batch-age": "2s", "batch-idle": "1s", "batch-rows": 1000}
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:7.1f}s] {text}", flush=True)


class Between:
    """What stands between the processes and the servers: before each one that cuts off, and for store and catalog one that loses answers, to which the first
    leads for a while. The brokers are the run's own, which tell clients another address."""

    def __init__(self, folder, seed):
        self.servers = {"store": ENV["S3"], "catalog": ENV["ICEBERG_REST"]}
        self.lossy = {name: Lossy(url, WRITES, LOST, f"{seed} {name}", silence=5) for name, url in self.servers.items()}
        self.proxies = {}
        for name, url in self.servers.items():
            (folder / name).mkdir()
            self.proxies[name] = Toxiproxy(folder / name, url.removeprefix("http://"))
        (folder / "brokers").mkdir()
        self.broker = Broker(folder / "brokers")
        self.proxies["brokers"] = self.broker.proxy
        try:
            self.broker.start()
        except Fail:
            self.stop()
            raise
        ENV["BROKERS"] = f"127.0.0.1:{self.broker.port}"

    def place(self, scene):
        for name, group in scene.groups.items():
            group.options |= {"brokers": self.address("brokers")}
            group.added |= {"AWS_ENDPOINT_URL": f"http://{self.address('store')}", "AWS_TIMEOUT": "3 seconds"}
            if name == "iceberg":
                # PyIceberg, the stranger, writes no other version.
                group.options |= {"catalog": f"http://{self.address('catalog')}", "format-version": 2}

    def address(self, name):
        return f"127.0.0.1:{self.proxies[name].port}"

    def lose_answers(self, seconds):
        for name, lossy in self.lossy.items():
            self.proxies[name].lead_to(lossy.url.removeprefix("http://"))
        time.sleep(seconds)
        for name, url in self.servers.items():
            self.proxies[name].lead_to(url.removeprefix("http://"))

    def lost(self):
        return sum((lossy.lost for lossy in self.lossy.values()), Counter())

    def stop(self):
        for server in (self.broker, self.proxies["store"], self.proxies["catalog"], *self.lossy.values()):
            server.stop()


class Chaos:
    """One round."""

    def __init__(self, scene, seed, between):
        self.scene, self.random, self.between = scene, Random(seed), between
        self.faults, self.recovered = Counter(), defaultdict(list)
        between.place(scene)
        scene.by_turns = True
        self.rows, self.other = scene.usual(PARTITIONS)
        self.watch = watch.Watch(lambda: [member for group in scene.groups.values() for member in group.members.values()])

    def go(self, seconds):
        begin = time.monotonic()
        self.scene.start("a", "b", **BATCHES)
        joined(self.scene, "ab")
        deeds = [self.kill] * 4 + [self.rewrite_files, self.cut_off, self.lose_answers] * 2 + [
            self.kill_all, self.pause, self.pause_past_the_session, self.join, self.leave, self.lose_what_was_read, self.grow, self.restart_brokers]
        left = []
        while time.monotonic() - begin < seconds:
            time.sleep(self.random.uniform(0.5, 4))
            if not left:
                left = self.random.sample(deeds, len(deeds))
            deed = left.pop()
            if deed():
                self.faults[deed.__name__.replace("_", " ")] += 1
                self.recover(deed.__name__)
        self.scene.end()

    def recover(self, deed):
        """Whatever was in Kafka when the fault was over gets into the tables."""
        begin = time.monotonic()
        wanted = {place: end for topic in self.scene.topics.values() for place, end in topic.needed().items()}
        for name, group in self.scene.groups.items():
            def is_there():
                for member in group.members.values():
                    if member.process.returncode is None:
                        member.expect_alive()
                positions = group.positions()
                return all(positions.get(place, -1) >= end for place, end in wanted.items())

            until(f"{name} recovers after {deed}; halted: {group.reasons()}", is_there, RECOVERS, step=0.05)
        self.recovered[deed].append(time.monotonic() - begin)

    def one(self, group):
        return self.random.choice(group.alive())

    def kill(self):
        for group in self.scene.groups.values():
            member = self.one(group)
            member.kill()
            if self.random.random() < 0.5:
                time.sleep(self.random.uniform(0, 1.5))
            member.start(known_member=self.random.random() < 0.5)
        return True

    def kill_all(self):
        for group in self.scene.groups.values():
            for member in group.alive():
                member.kill()
            group.start("a", "b", **BATCHES)
        return True

    def pause(self):
        return self.stop_for(self.random.uniform(0.2, SESSION - 2))

    def pause_past_the_session(self):
        """Others commit what was its meanwhile; then it goes on in the middle of what it did."""
        return self.stop_for(SESSION + self.random.uniform(1, 4))

    def stop_for(self, seconds):
        members = [self.one(group) for group in self.scene.groups.values()]
        for member in members:
            member.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        for member in members:
            member.process.send_signal(signal.SIGCONT)
        return True

    def join(self):
        done = False
        for group in self.scene.groups.values():
            absent = [name for name in MEMBERS if name not in group.members or not group.members[name].alive()]
            if absent:
                group.start(absent[0], **BATCHES)
                done = True
        return done

    def leave(self):
        done = False
        for group in self.scene.groups.values():
            if len(group.alive()) > 1:
                self.one(group).stop()
                done = True
        return done

    def lose_what_was_read(self):
        """Retention takes what every group has read."""
        stored = [group.positions() for group in self.scene.groups.values()]
        places = [(self.rows.name, partition) for partition in self.rows.logs]
        low = {place: min(positions.get(place, 0) for positions in stored) for place in places}
        self.scene.kafka.admin.list_topics(self.rows.name, 10)  # else it does not know of new partitions
        delete_records(self.scene, {place: at for place, at in low.items() if at > 0})
        return True

    def grow(self):
        if self.rows.partitions >= PARTITIONS + 2:
            return False
        self.rows.grow(self.rows.partitions + 1)
        return True

    def rewrite_files(self):
        """By somebody else, while commits go on; who is slower than a commit has done nothing."""
        before = sum(self.faults.values())
        for topic in (self.rows, self.other):
            place = self.scene.place("delta", topic)
            self.faults["OPTIMIZE by deltalake"] += strangers.optimize(f"s3://{place.store.bucket}/{place.store.prefix}")
            self.faults["rewrite by PyIceberg"] += strangers.rewrite(place.namespace, place.table)
        return sum(self.faults.values()) > before

    def cut_off(self):
        name, how = self.random.choice(list(self.between.proxies)), self.random.choice(CUTS)
        self.between.proxies[name].add(how)
        time.sleep(self.random.uniform(1, LONGEST_CUT))
        self.between.proxies[name].heal()
        return True

    def lose_answers(self):
        self.between.lose_answers(self.random.uniform(3, LONGEST_CUT))
        return True

    def restart_brokers(self):
        self.between.broker.kill() if self.random.random() < 0.5 else self.between.broker.end()
        time.sleep(self.random.uniform(0, 5))
        self.between.broker.start()
        return True


def run_round(world, between, number, seed, seconds):
    scene = Scene(world.run, world.folder, f"chaos {number}", seed, ENV["ICEBERG_REST"])
    chaos = None
    try:
        chaos = Chaos(scene, f"{seed} {number}", between)
        chaos.go(seconds)
    except Exception as error:  # What was found before, and the other rounds, are worth knowing.
        for wrong in scene.wrong.values():
            wrong.append(str(error) if isinstance(error, Fail) else traceback.format_exc())
    finally:
        scene.close()
        if chaos:
            chaos.watch.stop()
    for name in TARGETS:
        say(f"round {number}, {name}: {'FAILED' if scene.wrong[name] else 'passed'}, {scene.seen(name)}")
        for text in scene.wrong[name][:6]:
            print(f"    {text}", flush=True)
    return chaos, sum(len(wrong) for wrong in scene.wrong.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", default=str(int(time.time())), help="printed; the same one makes the same plan, though not the same moments")
    parser.add_argument("--keep", action="store_true", help="leave topics, tables and objects where they are, as after a failure")
    options = parser.parse_args()
    if missing := sorted({"BROKERS", "S3", "ICEBERG_REST"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    world, left, number, wrong, rounds = World.new(), options.minutes * 60, 0, 0, []
    say(f"seed {options.seed}, {options.minutes:g} minutes")
    between = Between(world.folder, options.seed)
    world.kafka = Kafka()
    try:
        while left > 0:
            chaos, differences = run_round(world, between, number, options.seed, min(left, ROUND))
            wrong += differences
            rounds += [chaos] if chaos else []
            left, number = left - ROUND, number + 1
        report(rounds, wrong, between, world.folder)
        if not (wrong or options.keep):
            world.remove()
    finally:
        between.stop()
    return 1 if wrong or not rounds else 0


def report(rounds, wrong, between, folder):
    faults = sum((chaos.faults for chaos in rounds), Counter())
    print("faults survived: " + counts(faults))
    print("answers lost: " + counts(between.lost()))
    print("seconds until everything was in the tables again, after each:")
    for deed in sorted({deed for chaos in rounds for deed in chaos.recovered}):
        took = sorted(seconds for chaos in rounds for seconds in chaos.recovered[deed])
        print(f"  {deed.replace('_', ' '):24}{len(took):4} times, median {median(took):5.1f}, longest {took[-1]:5.1f}")
    print("commits, by how they ended: " + counts(sum((chaos.watch.outcomes() for chaos in rounds), Counter())))
    begin = min((chaos.watch.started for chaos in rounds), default=0)
    memory = [(at + chaos.watch.started - begin, mib) for chaos in rounds for at, mib in chaos.watch.memory]
    print(f"MiB of memory of a process, at most, over the time: {watch.told(memory)}")
    watch.picture(memory, folder / "memory.svg")
    print(f"{wrong} wrong; logs and memory.svg: {folder}")


def counts(counter):
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()) if count) or "none"


if __name__ == "__main__":
    sys.exit(main())
