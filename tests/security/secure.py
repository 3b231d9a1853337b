"""Runs of the program over TLS: with what is right, and with one thing wrong each."""
import re
import secrets
import shutil
import string
import time

import boto3
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable
from pyiceberg.catalog import load_catalog

import canary
import delta_rs
from broker import USER, Broker
from certificates import Certificates
from gate import Gates, basic
from program import Program
from py_iceberg import keys
from records import Sender
from sinks import behind
from stack import ENV, Fail, lake, tail, until
from vending import Vending

ROWS = [{"id": number, "name": f"row {number}"} for number in range(200)]
# How long a program with something wrong goes on before it is looked at; the first words must come within the longer time.
SOME, LONG = 6, 40
# Lines of the log of such a program, most: what is retried is told each time, and the waits in between double.
LINES = 80
REASONS = {"another host": "not valid for name", "expired": "certificate expired", "unknown authority": "UnknownIssuer"}
LISTENERS = {"another host": "HOST", "expired": "EXPIRED", "unknown authority": "UNKNOWN"}


def word():
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))


class Secured:
    def __init__(self, run, folder, say):
        self.run, self.folder, self.say = run, folder, say
        self.secrets = {name: word() for name in ("PLAIN password", "SCRAM password", "registry password", "catalog password", "catalog token",
                                                  "client secret", "row that nobody can use", "wrong password")}
        self.certificates = Certificates(folder)
        self.broker = Broker(folder, self.certificates, {"LOGIN": self.secrets["PLAIN password"], "SCRAM": self.secrets["SCRAM password"]})
        self.gates, self.programs = Gates(), []

    def prepare(self):
        self.broker.start()
        self.say("Kafka runs, with eight listeners")
        self.sender, self.admin = Sender(self.broker.at["PLAIN"]), AdminClient({"bootstrap.servers": self.broker.at["PLAIN"]})
        given = boto3.client("sts", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                             region_name=ENV["S3_REGION"])
        self.store_keys = given.assume_role(RoleArn="arn:aws:iam::123456789012:role/any", RoleSessionName=self.run, DurationSeconds=3600)["Credentials"]
        self.secrets |= {"store's secret key": self.store_keys["SecretAccessKey"], "store's session token": self.store_keys["SessionToken"]}
        registry = basic(f"{USER}:{self.secrets['registry password']}")
        self.gate = {}
        for name, certificate in self.certificates.servers.items():
            self.gate["store", name] = self.gates.open(ENV["S3"], certificate)
            self.gate["registry", name] = self.gates.open(ENV["REGISTRY"], certificate, registry)
            self.gate["catalog", name] = self.gates.open(ENV["ICEBERG_REST"], certificate, basic(f"{USER}:{self.secrets['catalog password']}"))
        right = self.certificates.servers["right"]
        self.gate["catalog", "token"] = self.gates.open(ENV["ICEBERG_REST"], right, f"Bearer {self.secrets['catalog token']}")
        self.gate["catalog", "client"] = self.gates.open(ENV["ICEBERG_REST"], right, "Bearer client-credentials-token:sub=reader")

    def kafka(self, listener, password=None):
        """Properties of a client that trusts the run's authority and knows its password."""
        common = {"ssl.ca.location": self.certificates.authority}
        if listener == "CLIENT":
            return common | {"security.protocol": "SSL", "ssl.certificate.location": self.certificates.client, "ssl.key.location": self.certificates.client}
        if listener in ("LOGIN", "SCRAM"):
            mechanism = {"LOGIN": "PLAIN", "SCRAM": "SCRAM-SHA-512"}[listener]
            return common | {"security.protocol": "SASL_SSL", "sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": "${env:THE_PASSWORD}"}
        return common | {"security.protocol": "SSL"}

    def program(self, name, topics, listener="RIGHT", formats=("delta", "iceberg"), gates=None, options=None, settings=None, kafka=None):
        """One with everything right but for what is given."""
        gate = {server: self.gate[server, (gates or {}).get(server, "right")] for server in ("store", "registry", "catalog")}
        passwords = {"LOGIN": self.secrets["PLAIN password"], "SCRAM": self.secrets["SCRAM password"]}
        general = {
            "brokers": self.broker.at[listener], "topics": topics, "registry": gate["registry"].url, "ca-file": str(self.certificates.authority),
            "catalog": gate["catalog"].url if "iceberg" in formats else None, "batch-age": "1s", "batch-idle": "300ms", "once": True,
        }
        environment = {
            "AWS_ENDPOINT_URL": gate["store"].url, "AWS_ACCESS_KEY_ID": self.store_keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": self.store_keys["SecretAccessKey"], "AWS_SESSION_TOKEN": self.store_keys["SessionToken"],
            "CDC_SINK_REGISTRY_AUTH": f"{USER}:{self.secrets['registry password']}",
            "CDC_SINK_CATALOG_AUTH": f"{USER}:{self.secrets['catalog password']}", "THE_PASSWORD": passwords.get(listener, ""),
        }
        program = Program(name, self.run, self.folder, formats, general | (options or {}), kafka or self.kafka(listener), environment | (settings or {}))
        program.gate = gate
        self.programs.append(program)
        return program

    def right(self):
        """All rows come over TLS with each login; one program stays up, gets records that nobody can use, and shows its pages."""
        token = {"CDC_SINK_CATALOG_TOKEN": self.secrets["catalog token"]}
        client = {"CDC_SINK_CATALOG_CREDENTIAL": f"{USER}:{self.secrets['client secret']}"}
        cases = {
            "certificate": {"listener": "RIGHT", "formats": ("delta",)},
            "plain": {"listener": "LOGIN", "formats": ("iceberg",)},
            "scram": {"listener": "SCRAM", "gates": {"catalog": "token"}, "settings": token},
            "mutual": {"listener": "CLIENT", "formats": ("iceberg",), "gates": {"catalog": "client"}, "settings": client},
        }
        programs = []
        for name, case in cases.items():
            self.sender.avro(self.topic(name), ROWS)
            programs.append(self.program(name, [self.topic(name)], **case))
        serving = self.serve()
        for program in programs:
            program.start(known_member=False)
        wrong = []
        for program in programs:
            code = program.ended(90)
            if code != 0:
                wrong.append(f"{program.target.name}: exit code {code}; the end of {program.log}:\n{tail(program.log)}")
                continue
            for reader, rows in self.read(program).items():
                self.say(f"{program.target.name}: {len(rows)} rows by {reader}")
                if sorted(rows, key=lambda row: row["id"]) != ROWS:
                    wrong.append(f"{program.target.name}: {reader} reads {len(rows)} rows, not the {len(ROWS)} that were sent")
        return wrong + self.served(serving)

    def topic(self, name):
        return f"{self.run}.shop.{name}"

    def read(self, program):
        found, name = {}, program.target.name
        if "delta" in program.target.formats:
            table = DeltaTable(f"{program.target.warehouse}/{self.run}_shop/{name}", storage_options=delta_rs.storage_options(lake()))
            found["deltalake"] = delta_rs.Reader(lake()).read({"delta": table.table_uri}, {"version": table.version()}).select(["id", "name"]).to_pylist()
        if "iceberg" in program.target.formats:
            table = self.catalog().load_table(f"{self.run}_shop.{name}")
            found["PyIceberg"] = table.scan(selected_fields=("id", "name")).to_arrow().to_pylist()
        return found

    def catalog(self):
        return load_catalog("reader", type="rest", uri=ENV["ICEBERG_REST"], **keys(lake()))

    def serve(self):
        """Records that nobody can use, each with the secret row in it, in Avro and in JSON whose types are declared."""
        secret, avro, json = self.secrets["row that nobody can use"], self.topic("served"), self.topic("letters")
        write = self.sender.avro(avro, ROWS[:5])
        framed = write({"before": None, "after": {"id": 1, "name": secret}, "op": secret, "ts_ms": 1, "source": dict.fromkeys(
            ("connector", "name", "db", "schema", "table", "snapshot"), secret) | {"ts_ms": 1, "lsn": 1}})
        for value in (f'{{"after": "{secret}"}}'.encode(), framed, framed[:-9], framed[:5] + secret.encode()):
            self.sender.raw(avro, value)
        self.sender.json(json, ROWS[:5])
        self.sender.json(json, [{"id": 6, "name": secret, "amount": secret}, {"id": 7, "amount": {secret: secret}}, {"id": 8, "day": secret}])
        for value in (f'{{"op": "{secret}", "after": {{"id": 9}}}}', f'{{"{secret}', secret):
            self.sender.raw(json, value.encode(), f'{{"id": "{secret}"}}'.encode())
        types = {"id": "long", "amount": "int", "day": "date"}
        serving = self.program("served", [avro, json], "LOGIN", options={"once": None, "dead-letters": [f"topic:{self.run}.dead"]})
        plain = serving.toml
        serving.toml = lambda known: plain(known) + f'\n[tables."{json}".types]\n' + "".join(f'{name} = "{kind}"\n' for name, kind in types.items())
        serving.start(known_member=False)
        return serving

    def served(self, serving):
        topics = [self.topic("served"), self.topic("letters")]
        observer = Consumer({"bootstrap.servers": self.broker.at["PLAIN"], "group.id": "observer", "enable.auto.commit": False})
        ends = {(topic, 0): self.end(observer, topic) for topic in topics}
        try:
            until("every record is in a table or a dead letter", lambda: not behind(serving.target, [serving], ends), 60)
        except Fail as error:
            raise Fail(f"{error}\nthe end of {serving.log}:\n{tail(serving.log)}") from None
        serving.look()
        serving.shut()
        letters = self.end(observer, f"{self.run}.dead")
        self.say(f"served: {letters} dead letters")
        missing = [f"served: no page {page}" for page in ("metrics", "status") if page not in serving.pages]
        return missing + ([] if letters >= 8 else [f"served: {letters} dead letters, not the 8 and more of records that nobody can use"])

    def end(self, observer, topic):
        return observer.get_watermark_offsets(TopicPartition(topic, 0), timeout=15)[1]

    def cases(self):
        """Programs with one thing wrong: the server, what the log must say of why, and whether it ends by itself."""
        wrong = self.secrets["wrong password"]
        for what, listener in LISTENERS.items():
            yield f"Kafka, {what}", {"listener": listener}, f"ssl://{self.broker.at[listener]}", "certificate", None
            for server in ("store", "registry", "catalog"):
                yield f"{server}, {what}", {"gates": {server: what}}, self.gate[server, what].url, REASONS[what], None
        yield "Kafka, wrong PLAIN password", {"listener": "LOGIN", "settings": {"THE_PASSWORD": wrong}}, self.broker.at["LOGIN"], "uthentication", None
        yield "Kafka, wrong SCRAM password", {"listener": "SCRAM", "settings": {"THE_PASSWORD": wrong}}, self.broker.at["SCRAM"], "uthentication", None
        yield "Kafka, no certificate of the client's", {"listener": "CLIENT", "kafka": self.kafka("RIGHT")}, self.broker.at["CLIENT"], "SSL", None
        stranger = self.kafka("CLIENT") | dict.fromkeys(("ssl.certificate.location", "ssl.key.location"), self.certificates.stranger)
        yield "Kafka, a stranger's certificate", {"listener": "CLIENT", "kafka": stranger}, self.broker.at["CLIENT"], "SSL", None
        yield "store, wrong key", {"settings": {"AWS_SECRET_ACCESS_KEY": wrong}}, "s3://", "403", 1
        registry = {"settings": {"CDC_SINK_REGISTRY_AUTH": f"{USER}:{wrong}"}}
        yield "registry, wrong password", registry, self.gate["registry", "right"].url, "401", None
        yield "catalog, wrong password", {"settings": {"CDC_SINK_CATALOG_AUTH": f"{USER}:{wrong}"}}, self.gate["catalog", "right"].url, "401", 1
        token = {"gates": {"catalog": "token"}, "settings": {"CDC_SINK_CATALOG_TOKEN": wrong}}
        yield "catalog, wrong token", token, self.gate["catalog", "token"].url, "401", 1

    def wrong(self):
        """All of them at once, beside each other."""
        self.sender.avro(self.topic("wrong"), ROWS)
        started, found = [], []
        for name, case, server, reason, ends in self.cases():
            program = self.program(re.sub("[^a-zA-Z]+", "-", name), [self.topic("wrong")], **case)
            program.start(known_member=False)
            started.append((name, case, program, server, reason, ends, time.monotonic()))
        for name, case, program, server, reason, ends, since in started:
            failed = self.judge(case, program, server, reason, ends, since)
            said = [line for line in program.said().splitlines() if reason in line]
            self.say(f"{name}: {len(failed)} failed{': ' + said[-1][:300] if said else ''}")
            found += [f"{name}: {text}; the end of {program.log}:\n{tail(program.log, 6)}" for text in failed]
        if self.catalog().namespace_exists(f"{self.run}_shop") and self.catalog().table_exists(f"{self.run}_shop.wrong"):
            found.append("somebody with something wrong made a table in the catalog")
        return found

    def judge(self, case, program, server, reason, ends, since):
        try:
            until("it says why", lambda: reason in program.said() and server in program.said(), LONG - (time.monotonic() - since))
        except Fail:
            return [f"the log does not say {word}" for word in (server, reason) if word not in program.said()]
        code = program.ended(max(SOME - (time.monotonic() - since), 5 if ends is not None else 0.1))
        failed = [] if code == ends else [f"exit code {code}, not {ends}"]
        lines = len(program.said().splitlines())
        failed += [f"{lines} lines of log in {time.monotonic() - since:.0f} s"] if lines > LINES else []
        if code is None:
            program.look()
            program.shut()
        prefix = program.target.warehouse.removeprefix(f"s3://{ENV['S3_BUCKET']}/") + "/"
        failed += [f"wrote {item.key}" for item in self.bucket().objects.filter(Prefix=prefix)]
        group = f"{self.run}-{program.target.name}"
        answer = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(15)
        failed += [f"acknowledged {place.topic} up to {place.offset}" for place in answer.topic_partitions if place.offset > 0]
        shut = [gate for kind, gate in (case.get("gates") or {}).items() if gate in REASONS and self.gate[kind, gate].passed]
        return failed + [f"a request came through the gate that is {gate}" for gate in shut]

    def settings(self):
        """What may not be set."""
        nothing = self.folder / "nothing.pem"
        nothing.write_text("nothing\n")
        cases = {
            "no-file": ({"options": {"ca-file": str(self.folder / "missing.pem")}}, "option ca-file: cannot read"),
            "no-certificates": ({"options": {"ca-file": str(nothing)}}, "option ca-file: there are no certificates"),
            "any-certificate": ({"settings": {"AWS_ALLOW_INVALID_CERTIFICATES": "true"}}, "AWS_ALLOW_INVALID_CERTIFICATES"),
            "no-check": ({"kafka": self.kafka("RIGHT") | {"enable.ssl.certificate.verification": "false"}}, "always verified"),
            "written-out": ({"kafka": self.kafka("RIGHT") | {"sasl.password": self.secrets["wrong password"]}}, "cannot be written out"),
        }
        found = []
        for name, (case, words) in cases.items():
            program = self.program(name, [self.topic("wrong")], **case)
            program.start(known_member=False)
            code, said = program.ended(30), program.said()
            program.process.kill()
            wrong = ([f"exit code {code}, not 2"] if code != 2 else []) + ([f"does not say {words}"] if words not in said else [])
            self.say(f"setting {name}: {len(wrong)} failed: {said.strip().splitlines()[-1]}")
            found += [f"setting {name}: {text}" for text in wrong]
        return found

    def vended(self):
        """Nessie hands out credentials for a store behind TLS; where its certificate is not to be trusted, nothing is written."""
        if "NESSIE" not in ENV:
            return ["there is no Nessie"]
        self.sender.avro(self.topic("vended"), ROWS)
        nothing = dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "CDC_SINK_CATALOG_AUTH"))
        found = []
        for name in ("expired", "right"):
            vending = Vending(ENV["NESSIE"], self.certificates.servers["right"], ENV["S3"], self.gate["store", name].url)
            options = {"catalog": vending.url, "vended-credentials": True, "warehouse": f"s3://lake-nessie/{self.run}", "once": name == "right" or None}
            program = self.program(f"vended-{name}", [self.topic("vended")], formats=("iceberg",), options=options, settings=nothing)
            passed = self.gate["store", name].passed
            program.start(known_member=False)
            wrong = self.vends(program) if name == "right" else self.vends_nothing(program)
            wrong += [] if vending.told else ["Nessie did not name its store"]
            wrong += [] if (self.gate["store", name].passed > passed) == (name == "right") else ["the store's gate was not asked as it should be"]
            self.say(f"vended credentials, {name}: {len(wrong)} failed")
            found += [f"vended credentials, {name}: {text}; the end of {program.log}:\n{tail(program.log, 6)}" for text in wrong]
        return found

    def vends_nothing(self, program):
        try:
            until("it says why", lambda: REASONS["expired"] in program.said(), LONG)
        except Fail as error:
            return [str(error)]
        finally:
            program.shut()
        return []

    def vends(self, program):
        if code := program.ended(90):
            return [f"exit code {code}"]
        reader = load_catalog("vended", type="rest", uri=ENV["NESSIE"], **keys(lake()))
        rows = reader.load_table(f"{self.run}_shop.vended").scan(selected_fields=("id", "name")).to_arrow().to_pylist()
        return [] if sorted(rows, key=lambda row: row["id"]) == ROWS else [f"PyIceberg reads {len(rows)} rows, not the {len(ROWS)} that were sent"]

    def bucket(self):
        return boto3.resource("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                              region_name=ENV["S3_REGION"]).Bucket(ENV["S3_BUCKET"])

    def written(self):
        """Everything that the program wrote, by what it is: what it said, showed, stored and sent."""
        for program in self.programs:
            yield program.log.name, program.log.read_bytes()
            yield from ((f"page {page} of {program.target.name}", text) for page, text in program.pages.items())
        for prefix in (f"{self.run}/", f"iceberg/{self.run}_shop"):
            yield from ((item.key, item.get()["Body"].read()) for item in self.bucket().objects.filter(Prefix=prefix))
        observer = Consumer({"bootstrap.servers": self.broker.at["PLAIN"], "group.id": "observer", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
        observer.subscribe([f"{self.run}.dead"])
        for number in range(self.end(observer, f"{self.run}.dead")):
            letter = until("dead letters", lambda: observer.poll(5), 30)
            yield f"headers of dead letter {number}", repr(letter.headers()).encode()

    def shown(self):
        searched, found, count, size = canary.forms(self.secrets), [], 0, 0
        for where, data in self.written():
            count, size = count + 1, size + len(data)
            found += canary.found(where, data, searched)
        self.say(f"{len(self.secrets)} secrets searched for in {count} files, pages and headers, {size / 1e6:.1f} MB: found {len(found)} times")
        return found

    def stop(self):
        for program in self.programs:
            if program.alive():
                program.process.kill()
                program.process.wait()
        self.broker.stop()

    def clean(self):
        shutil.rmtree(self.folder / "kafka", ignore_errors=True)
