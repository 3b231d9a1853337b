"""Toxiproxy, and a broker of the test's own that is reached through it: a broker tells its clients its address, so the usual one cannot be."""
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from urllib.error import URLError

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stack import REPOSITORY, Fail, free_port, http, tail, until

sys.path.insert(0, str(REPOSITORY / "tests" / "stack"))
from stacklib import java  # noqa: E402
from stacklib.base import HERE, PARTS  # noqa: E402

# What is done to the answers, or to what is sent; rates are KB/s.
TOXICS = {
    "latency": {"type": "latency", "attributes": {"latency": 800, "jitter": 200}},
    "reset": {"type": "reset_peer", "attributes": {"timeout": 300}},
    "cut": {"type": "limit_data", "attributes": {"bytes": 4000}},
    "silence": {"type": "timeout", "attributes": {"timeout": 0}},
    "narrow": {"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 3000}},
    "trickle": {"type": "bandwidth", "stream": "upstream", "attributes": {"rate": 2}},
    "slow": {"type": "latency", "attributes": {"latency": 3000, "jitter": 200}},
    "short": {"type": "limit_data", "attributes": {"bytes": 200}},
}


class Toxiproxy:
    """One proxy before one server."""

    def __init__(self, folder, upstream):
        self.api, self.port = f"http://127.0.0.1:{free_port()}", free_port()
        with open(folder / "toxiproxy.log", "ab") as log:
            self.process = subprocess.Popen([PARTS / "toxiproxy/server", "-host", "127.0.0.1", "-port", self.api.rpartition(":")[2]],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("toxiproxy", self.answers, 20)
        http("POST", f"{self.api}/proxies", {"name": "it", "listen": f"127.0.0.1:{self.port}", "upstream": upstream, "enabled": True})

    def answers(self):
        with suppress(URLError):
            http("GET", f"{self.api}/proxies")
            return True

    def add(self, trouble):
        if trouble == "down":
            http("POST", f"{self.api}/proxies/it", {"enabled": False})
        else:
            http("POST", f"{self.api}/proxies/it/toxics", {"name": trouble, "stream": "downstream"} | TOXICS[trouble])

    def lead_to(self, upstream):
        """Another server from now on; connections are cut."""
        http("POST", f"{self.api}/proxies/it", {"upstream": upstream})

    def heal(self):
        http("POST", f"{self.api}/reset")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Broker:
    """Kafka on a port of its own; to those who ask through `proxy` it says that it is there. `more` are lines of its configuration."""

    def __init__(self, folder, heap="256m", more=""):
        self.heap = heap
        self.folder, self.port, self.proxied = folder, free_port(), free_port()
        self.proxy = Toxiproxy(folder, f"127.0.0.1:{self.proxied}")
        self.settings, self.process = folder / "broker.properties", None
        text = (HERE / "conf/kafka.properties").read_text()
        for name, value in {"KAFKA": self.port, "CONTROLLER": free_port(), "DATA": folder / "broker"}.items():
            text = text.replace(f"@{name}@", str(value))
        controller = next(line for line in text.splitlines() if line.startswith("listeners=")).rpartition(",")[2]
        direct = f"PLAINTEXT://127.0.0.1:{self.port}"
        self.settings.write_text(f"""{text}
listeners={direct},PROXIED://127.0.0.1:{self.proxied},{controller}
advertised.listeners={direct},PROXIED://127.0.0.1:{self.proxy.port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
{more}
""")
        subprocess.run([*self.java(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", self.settings],
                       check=True, stdout=subprocess.DEVNULL)

    def java(self):
        return [java.need(17), "-Xms64m", f"-Xmx{self.heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                f"-Dlog4j2.configurationFile={HERE / 'conf/log4j2.xml'}", "-cp", f"{PARTS / 'kafka/libs'}/*"]

    def start(self):
        log = self.folder / "broker.log"
        with open(log, "ab") as out:
            self.process = subprocess.Popen([*self.java(), "kafka.Kafka", self.settings], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            env=os.environ, cwd=self.folder)
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 2})

        def ready():
            if self.process.poll() is not None:
                raise Fail(f"the broker died; the end of {log}:\n{tail(log)}")
            with suppress(KafkaException):
                return admin.list_topics(timeout=2).brokers

        until("the broker's answer", ready, 120)

    def end(self):
        self.process.terminate()
        self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process:
            self.kill()
        shutil.rmtree(self.folder / "broker", ignore_errors=True)
        self.proxy.stop()
