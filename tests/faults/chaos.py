#!/usr/bin/env python3
"""Chaos: kills, pauses, instances that come and go, growing topics and retention at random, from a seed, for as long as is asked for.

In rounds of some minutes, each with topics and tables of its own: changes come all the time, something happens every few seconds to the group that keeps
Delta tables and to the one that keeps Iceberg tables, and after each everything that was in Kafka by then must get into the tables by itself. At the end
of a round two readers must find at every version of every table the fold of its topic up to the position that is stored with it.
"""
import argparse
import re
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "readers"), str(HERE.parent / "e2e")]

from scenarios import delete_records, joined  # noqa: E402
from scene import SESSION, TARGETS, Scene  # noqa: E402
from stack import ENV, Fail, until  # noqa: E402
from world import World  # noqa: E402

ROUND = 300
MEMBERS = "abcd"
PARTITIONS = 4
# After this long without a fault nothing may be left.
RECOVERS = 60
# Fewer versions than elsewhere: each is looked at.
BATCHES = {"batch-age": "2s", "batch-idle": "1s", "batch-rows": 1000}
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:7.1f}s] {text}", flush=True)


class Chaos:
    """One round."""

    def __init__(self, scene, seed):
        self.scene, self.random = scene, Random(seed)
        self.faults, self.recovered, self.memory = Counter(), [], []
        self.rows, _ = scene.usual(PARTITIONS)

    def go(self, seconds):
        begin = time.monotonic()
        self.scene.start("a", "b", **BATCHES)
        joined(self.scene, "ab")
        deeds = [self.kill, self.kill, self.kill, self.kill_all, self.pause, self.pause_past_the_session, self.join, self.leave, self.lose_what_was_read, self.grow]
        while time.monotonic() - begin < seconds:
            time.sleep(self.random.uniform(0.5, 4))
            deed = self.random.choice(deeds)
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
        self.recovered.append(time.monotonic() - begin)
        self.memory += [(time.monotonic() - STARTED, resident(member)) for group in self.scene.groups.values() for member in group.alive()]

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


def resident(member):
    """MiB of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{member.process.pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0


def run_round(world, number, seed, seconds):
    scene = Scene(world.run, world.folder, f"chaos {number}", seed)
    chaos = None
    try:
        chaos = Chaos(scene, f"{seed} {number}")
        chaos.go(seconds)
    except Exception as error:  # What was found before, and the other rounds, are worth knowing.
        for wrong in scene.wrong.values():
            wrong.append(str(error) if isinstance(error, Fail) else traceback.format_exc())
    finally:
        scene.close()
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
    if missing := sorted({"BROKERS", "S3"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start` and read `stack env`")
        return 1
    world, left, number, wrong, rounds = World.new(), options.minutes * 60, 0, 0, []
    say(f"seed {options.seed}, {options.minutes:g} minutes")
    while left > 0:
        chaos, differences = run_round(world, number, options.seed, min(left, ROUND))
        wrong += differences
        rounds += [chaos] if chaos else []
        left, number = left - ROUND, number + 1
    report(rounds, wrong)
    print(f"logs: {world.folder}")
    if not (wrong or options.keep):
        world.remove()
    return 1 if wrong or not rounds else 0


def report(rounds, wrong):
    faults = sum((chaos.faults for chaos in rounds), Counter())
    print("faults survived: " + ", ".join(f"{name} {count}" for name, count in sorted(faults.items())))
    if recovered := sorted(seconds for chaos in rounds for seconds in chaos.recovered):
        print(f"seconds until everything was in the tables again: median {median(recovered):.1f}, 9 of 10 {recovered[len(recovered) * 9 // 10]:.1f}, "
              f"longest {recovered[-1]:.1f}")
    memory = [mib for chaos in rounds for _, mib in chaos.memory]
    if memory:
        quarter = max(len(memory) // 4, 1)
        print(f"MiB of memory of a process: {max(memory[:quarter])} at most in the first quarter, {max(memory[-quarter:])} in the last, {max(memory)} ever")
    print(f"{wrong} wrong")


if __name__ == "__main__":
    sys.exit(main())
