"""The program under test: its processes, one or two for each target, and how they are killed."""
import json
import os
import signal
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field

from stack import ENV, Fail, binary, free_port, tail, until


@dataclass
class Target:
    """A set of tables that one consumer group keeps."""

    name: str
    formats: tuple
    warehouse: str
    catalog: str = ""
    version: int = 3
    vended: bool = False
    drops: bool = False  # columns that the source dropped go from its tables
    readers: tuple = ()
    connectors: list = field(default_factory=list)


class Instance:
    """One process of a target's group, restarted under the same name."""

    def __init__(self, target, name, run, folder, options):
        self.target, self.name, self.run = target, name, run
        self.log = folder / f"{target.name}-{name}.log"
        self.config = folder / f"{target.name}-{name}.toml"
        self.port = free_port()
        self.options = options
        self.process = None
        self.kills = 0

    def start(self, known_member):
        """`known_member`: the group keeps the partitions for the name, so a restart does not wait for the old session to end."""
        if self.process and self.process.poll() is None:
            raise Fail(f"{self.target.name}-{self.name} runs already")
        self.config.write_text(self.toml(known_member))
        with open(self.log, "ab") as log:
            log.write(f"--- start {time.strftime('%H:%M:%S')}\n".encode())
            log.flush()
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(),
                                            cwd=self.log.parent)

    def command(self):
        return [binary(), "run", "--config", self.config]

    def environment(self):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("CDC_SINK_", "AWS_"))}
        if not self.target.vended:
            environment |= {"AWS_ENDPOINT_URL": ENV["S3"], "AWS_ACCESS_KEY_ID": ENV["S3_ACCESS_KEY"],
                            "AWS_SECRET_ACCESS_KEY": ENV["S3_SECRET_KEY"], "AWS_REGION": ENV["S3_REGION"], "AWS_ALLOW_HTTP": "true"}
        return environment | {"CDC_SINK_LOG": os.environ.get("CDC_SINK_TEST_LOG", "info"), "RUST_BACKTRACE": "1"}

    def toml(self, known_member):
        target = self.target
        general = {
            "brokers": ENV["BROKERS"], "topics": [f"^{connector.prefix}\\.{self.run}\\..*$" for connector in target.connectors],
            "group": f"{self.run}-{target.name}", "registry": ENV.get("REGISTRY"), "to": list(target.formats), "warehouse": target.warehouse,
            "catalog": target.catalog or None, "vended-credentials": target.vended or None, "listen": f"127.0.0.1:{self.port}", "memory": "256MiB",
            "schema-history": [connector.prefix for connector in target.connectors if connector.source.kind != "postgres"] or None,
            "format-version": target.version if "iceberg" in target.formats else None,
            "type-widening": "delta" in target.formats or None, "drop-columns-after": "1s" if target.drops else None, **self.options,
        }
        kafka = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "1000"}
        if known_member:
            kafka["group.instance.id"] = f"{self.run}-{target.name}-{self.name}"
        lines = [f"{key} = {json.dumps(value)}" for key, value in general.items() if value is not None]
        lines += ["", "[kafka]"] + [f'"{key}" = {json.dumps(value)}' for key, value in kafka.items()]
        for connector in target.connectors:
            if connector.encoding == "json":
                for table in connector.source.tables:
                    lines += ["", f'[tables."{connector.topic(table)}".types]']
                    lines += [f"{json.dumps(name)} = {json.dumps(declared)}" for name, declared in connector.declared(table).items()]
        return "\n".join(lines) + "\n"

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL. A process that had ended by itself is a failure."""
        self.expect_alive()
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def expect_alive(self):
        if not self.alive():
            code = self.process.returncode if self.process else None
            raise Fail(f"{self.target.name}-{self.name} ended by itself with exit code {code}; the end of {self.log}:\n{tail(self.log)}")

    def stop(self, seconds=90):
        """SIGTERM; it must commit what it has and end with 0. One that has just started is given the time to listen for signals."""
        until(f"{self.target.name}-{self.name} answers", lambda: self.expect_alive() or self.status(), 30)
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Fail(f"{self.target.name}-{self.name} did not end within {seconds} s of SIGTERM; the end of {self.log}:\n{tail(self.log)}") from None
        if code:
            raise Fail(f"{self.target.name}-{self.name} ended with exit code {code} after SIGTERM; the end of {self.log}:\n{tail(self.log)}")

    def status(self):
        """What it says of its tables; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None


def behind(target, instances, ends, halted=()):
    """The partitions that are not wholly in the target's tables, with what the instances say of them; a halted table fails the run, unless its
    topic is among `halted`."""
    positions, reasons = {}, []
    for instance in instances:
        instance.expect_alive()
        status = instance.status()
        for table in status["tables"] if status else []:
            if table["state"] != "running" and table["topic"] not in halted:
                reasons.append(f"{target.name}-{instance.name}: table {table['table']} is {table['state']}: {table['reason']}")
            for partition in table["partitions"]:
                place = (table["topic"], partition["partition"])
                positions[place] = max(positions.get(place, -1), partition["position"] or 0)
    if reasons:
        raise Fail("\n".join(reasons))
    return {place: (positions.get(place), end) for place, end in ends.items()
            if end and place[0] not in halted and positions.get(place, -1) < end}
