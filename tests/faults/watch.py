"""What processes say of themselves while they run: their memory over time, and how their commits ended."""
import re
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

EVERY = 1.0
BUCKETS = 12
# Of the picture, pixels.
WIDTH, HEIGHT, EDGE = 900, 300, 40


class Watch:
    """Looks at members once a second; of a process that is killed the last second is lost."""

    def __init__(self, members):
        self.members, self.started = members, time.monotonic()
        self.memory, self.commits, self.ended = [], {}, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.ended.wait(EVERY):
            for member in list(self.members()):
                process = member.process
                if process is None or process.poll() is not None:
                    continue
                if mib := resident(process.pid):
                    self.memory.append((time.monotonic() - self.started, mib))
                if outcomes := commits(member.port):
                    self.commits[process.pid, member.log] = outcomes

    def stop(self):
        self.ended.set()
        self.thread.join()

    def outcomes(self):
        return sum(self.commits.values(), Counter())


def resident(pid):
    """MiB of memory that a process has; none once it has ended."""
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) // 1024 if found else None


def commits(port):
    """How many commits ended how, since the process started."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return None
    found = Counter()
    for line in lines:
        if match := re.match(r'cdc_sink_commits_total\{.*outcome="(\w+)".*\} (\d+)', line):
            found[match[1]] += int(match[2])
    return found


def told(memory):
    """The most memory of a process in each part of the time, as a line of text."""
    if not memory:
        return "nothing was seen"
    last = max(at for at, _ in memory) + 1
    parts = [[mib for at, mib in memory if int(at / last * BUCKETS) == number] for number in range(BUCKETS)]
    return " ".join(str(max(part)) if part else "-" for part in parts)


def picture(memory, path):
    """Each sample a point: seconds to the right, MiB upwards."""
    last, most = max((at for at, _ in memory), default=0) + 1, max((mib for _, mib in memory), default=0) + 1
    points = "".join(f'<circle cx="{EDGE + at / last * WIDTH:.1f}" cy="{EDGE + HEIGHT - mib / most * HEIGHT:.1f}" r="1.2"/>' for at, mib in memory)
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 2 * EDGE}" height="{HEIGHT + 2 * EDGE}" font-family="sans-serif" font-size="12">'
                    f'<rect width="100%" height="100%" fill="white"/><path d="M{EDGE} {EDGE}V{EDGE + HEIGHT}H{EDGE + WIDTH}" fill="none" stroke="black"/>'
                    f'<text x="4" y="{EDGE - 8}">{most} MiB resident, each process</text><text x="{WIDTH - 20}" y="{HEIGHT + 2 * EDGE - 12}">{last:.0f} s</text>'
                    f'<g fill="#3366cc">{points}</g></svg>\n')
