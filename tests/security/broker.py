"""A Kafka of the run's own, from the stack's parts, with a listener for each certificate and each login."""
import os
import subprocess

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stack import Fail, free_port, tail, until
from stacklib import java
from stacklib.base import HERE, PARTS

USER = "reader"
GENERAL = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
auto.create.topics.enable=true
"""
LOGIN = "org.apache.kafka.common.security"


class Broker:
    """`at` has the addresses: PLAIN, RIGHT, HOST, EXPIRED, UNKNOWN with certificates alone, CLIENT which asks for the client's, and two with logins."""

    def __init__(self, folder, certificates, passwords):
        self.folder, self.log = folder, folder / "kafka.log"
        kinds = {"PLAIN": "PLAINTEXT", "RIGHT": "SSL", "HOST": "SSL", "EXPIRED": "SSL", "UNKNOWN": "SSL", "CLIENT": "SSL",
                 "LOGIN": "SASL_SSL", "SCRAM": "SASL_SSL", "CONTROLLER": "PLAINTEXT"}
        # A name for those who look at the certificate's, which is also the one they are told to go on with.
        self.at = {name: f"localhost:{free_port()}" for name in kinds}
        addresses = {name: f"{name}://{at}" for name, at in self.at.items()}
        lines = [GENERAL, f"listeners={','.join(addresses.values())}", f"log.dirs={folder / 'kafka'}",
                 f"advertised.listeners={','.join(address for name, address in addresses.items() if name != 'CONTROLLER')}",
                 f"controller.quorum.voters=1@{self.at['CONTROLLER']}",
                 f"listener.security.protocol.map={','.join(f'{name}:{kind}' for name, kind in kinds.items())}"]
        shown = {"HOST": "another host", "EXPIRED": "expired", "UNKNOWN": "unknown authority"}
        for name, kind in kinds.items():
            own = f"listener.name.{name.lower()}."
            if kind != "PLAINTEXT":
                lines += [f"{own}ssl.keystore.type=PEM", f"{own}ssl.keystore.location={certificates.servers[shown.get(name, 'right')]}"]
        lines += ["listener.name.client.ssl.client.auth=required", "listener.name.client.ssl.truststore.type=PEM",
                  f"listener.name.client.ssl.truststore.location={certificates.authority}",
                  "listener.name.login.sasl.enabled.mechanisms=PLAIN", "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512",
                  f'listener.name.login.plain.sasl.jaas.config={LOGIN}.plain.PlainLoginModule required user_{USER}="{passwords["LOGIN"]}";',
                  f"listener.name.scram.scram-sha-512.sasl.jaas.config={LOGIN}.scram.ScramLoginModule required;"]
        self.settings = folder / "kafka.properties"
        self.settings.write_text("\n".join(lines) + "\n")
        self.scram, self.process = f"SCRAM-SHA-512=[name={USER},password={passwords['SCRAM']}]", None

    def java(self, heap, *arguments):
        return [java.need(17), f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k",
                f"-Dlog4j2.configurationFile={HERE / 'conf/log4j2.xml'}", "-cp", f"{PARTS / 'kafka/libs'}/*", *map(str, arguments)]

    def start(self):
        with open(self.log, "wb") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "cwd": self.folder, "env": os.environ}
            form = self.java("128m", "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", self.settings, "--add-scram", self.scram)
            if subprocess.run(form, **options).returncode:
                raise Fail(f"Kafka's folder cannot be prepared:\n{tail(self.log)}")
            self.process = subprocess.Popen(self.java("320m", "kafka.Kafka", self.settings), **options)
        until("Kafka answers", self.ready, 90)

    def ready(self):
        if self.process.poll() is not None:
            raise Fail(f"Kafka died; the end of {self.log}:\n{tail(self.log)}")
        try:
            return AdminClient({"bootstrap.servers": self.at["PLAIN"], "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return None

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
