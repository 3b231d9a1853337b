#!/usr/bin/env python3
"""A catalog that wants OAuth2 tokens: Nessie lets those in whom Keycloak gave a token of a few seconds, and the program gets it.

Who is not let in is told why, and nothing is written. Who is goes on committing while tokens expire, and while Keycloak is killed waits for
it. At the end PyIceberg, with a token of its own, must read every row. No secret may be in what the processes said.
"""
import base64
import json
import os
import signal
import sys
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parent / "readers")]

import boto3  # noqa: E402
from pyiceberg.catalog import load_catalog  # noqa: E402
from pyiceberg.exceptions import NoSuchTableError  # noqa: E402

from catalogs import WORK  # noqa: E402
from connectors import Kafka  # noqa: E402
from envelopes import Table  # noqa: E402
from py_iceberg import keys  # noqa: E402
from sinks import Instance, Target, behind  # noqa: E402
from stack import ENV, Fail, ended, lake, run_name, tail, until  # noqa: E402
from stacklib import process, services  # noqa: E402
from stacklib.base import HERE as STACK, locked  # noqa: E402

STARTED = time.monotonic()
REALM = json.loads((STACK / "conf/realm.json").read_text())
SECRETS = {client["clientId"]: client["secret"] for client in REALM["clients"]}
BUCKET = "lake-nessie"
TOKENS_LIVE = 5  # seconds, those of the client `brief`
GIVEN_LIVES = 15  # seconds, that of the client `given`: the program must start with it


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


class Client(Instance):
    """The program as a client of the authorization server; `settings` are its CDC_SINK_ variables."""

    def __init__(self, name, run, folder, options, settings):
        target = Target(name, ("iceberg",), f"s3://{BUCKET}/{run}/{name}", ENV["NESSIE_OAUTH"], vended=True)
        topics = {"topics": [f"{run}.shop.{name}"], "batch-age": "1s", "batch-idle": "300ms"}
        super().__init__(target, "a", run, folder, topics | options)
        self.settings = settings

    def environment(self):
        return super().environment() | {f"CDC_SINK_CATALOG_{name}": value for name, value in self.settings.items()}

    def said(self):
        return self.log.read_text()

    def ended(self):
        try:
            return self.process.wait(30)
        except Exception:
            raise Fail(f"{self.target.name} does not end; the end of {self.log}:\n{tail(self.log)}") from None


def credential(client, secret=None):
    return {"CREDENTIAL": f"{client}:{secret or SECRETS[client]}"}


def token(client):
    """One of Keycloak's, asked for without the program."""
    form = {"grant_type": "client_credentials", "client_id": client, "client_secret": SECRETS[client], "scope": "catalog"}
    with urllib.request.urlopen(ENV["OAUTH"], urlencode(form).encode(), timeout=30) as answer:
        return json.load(answer)["access_token"]


def answer_to(bearer):
    """The status of the catalog's answer to somebody with this token."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(f"{ENV['NESSIE_OAUTH']}/v1/config", headers=headers), timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code


class Course:
    def __init__(self, run):
        self.run, self.folder = run, WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka = Kafka()
        self.store = boto3.resource("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"],
                                    aws_secret_access_key=ENV["S3_SECRET_KEY"], region_name=ENV["S3_REGION"]).Bucket(BUCKET)
        self.clients, self.tables = [], {}

    def go(self):
        found = self.refused()
        for name, check in (("lets nobody in without a token", self.strangers), ("a token of five minutes", self.steady),
                            ("tokens of a few seconds", self.brief), ("a token of one's own that ends", self.given)):
            try:
                wrong = check()
            except Fail as error:
                wrong = [str(error)]
            say(f"{name}: {len(wrong)} failed")
            found += [f"{name}: {text}" for text in wrong]
        return found + self.shown()

    def client(self, name, settings, options):
        self.clients.append(Client(name, self.run, self.folder, options, settings))
        return self.clients[-1]

    def refused(self):
        """What is missing or wrong, and what the error must say."""
        server = {"catalog-oauth2-server": ENV["OAUTH"]}
        cases = {
            "none": ({}, {}, ["answers 401", "CDC_SINK_CATALOG_CREDENTIAL"]),
            "secret": (credential("sink", "another-secret"), server, [ENV["OAUTH"], "unauthorized_client", "CDC_SINK_CATALOG_CREDENTIAL"]),
            "stranger": (credential("nobody", "another-secret"), server, [ENV["OAUTH"], "invalid_client"]),
            "scope": (credential("sink"), server | {"catalog-scope": "nothing"}, ["invalid_scope", "--catalog-scope"]),
            "audience": (credential("sink"), server | {"catalog-scope": "elsewhere"}, ["answers 401", "audience"]),
            "server": (credential("sink"), {}, ["answer is 501", "--catalog-oauth2-server"]),
            "token": ({"TOKEN": "another-secret"}, {}, ["answers 401", "CDC_SINK_CATALOG_TOKEN is wrong"]),
        }
        found = []
        for name, (settings, options, words) in cases.items():
            self.send(name, 5)
            client = self.client(name, settings, options)
            client.start(known_member=True)
            code = client.ended()
            said = client.said()
            wrong = [f"exit code {code}"] if code != 1 else []
            wrong += [f"does not say {word}" for word in [ENV["NESSIE_OAUTH"], *words] if word not in said]
            wrong += [f"wrote {item.key}" for item in self.store.objects.filter(Prefix=f"{self.run}/{name}/")]
            wrong += ["a table was made"] if self.table(name) else []
            say(f"refused, {name}: {len(wrong)} failed: {said.strip().splitlines()[-1]}")
            found += [f"refused, {name}: {text}" for text in wrong]
        return found

    def strangers(self):
        forged = ".".join(part[::-1] if place == 1 else part for place, part in enumerate(token("sink").split(".")))
        asked = {"nobody": None, "a word": "word", "a forged token": forged}
        answers = {who: answer_to(bearer) for who, bearer in asked.items()}
        return [f"{who} is answered {status}" for who, status in answers.items() if status != 401]

    def steady(self):
        client = self.client("steady", credential("sink"), {"catalog-oauth2-server": ENV["OAUTH"]})
        client.start(known_member=True)
        for _ in range(3):
            self.send("steady", 200)
            self.settle(client)
        client.stop()
        return self.compare("steady")

    def brief(self):
        """Commits over several lives of a token, then over a death of the authorization server."""
        client = self.client("brief", credential("brief"), {"catalog-oauth2-server": ENV["OAUTH"]})
        client.start(known_member=True)
        self.send("brief", 50)
        self.settle(client)
        first, begin, commits = token("brief"), time.monotonic(), 1
        while time.monotonic() - begin < 4 * TOKENS_LIVE:
            self.send("brief", 20)
            self.settle(client)
            commits += 1
            time.sleep(0.5)
        wrong = [] if answer_to(first) == 401 else ["a token of the first seconds is still taken"]
        say(f"{commits} rounds of changes in {4 * TOKENS_LIVE} s")
        wrong += self.outage(client)
        self.send("brief", 50)
        self.settle(client)
        client.stop()
        return wrong + self.compare("brief")

    def outage(self, client):
        with locked():
            process.stop("keycloak", signal.SIGKILL)
            try:
                time.sleep(TOKENS_LIVE + 1)
                before = self.positions(client)
                self.send("brief", 50)
                time.sleep(5)
                wrong = [] if self.positions(client) == before else ["commits went on without tokens"]
                client.expect_alive()
            finally:
                services.start(["keycloak"])
        said = client.said()
        wrong += [] if "cannot get a token for the Iceberg catalog" in said else ["nothing was said of the authorization server"]
        begin = time.monotonic()
        self.settle(client)
        say(f"went on {time.monotonic() - begin:.1f} s after the authorization server was back")
        return wrong

    def given(self):
        """A token that is given and not asked for cannot be renewed: its table halts, and says why."""
        client = self.client("given", {"TOKEN": token("given")}, {})
        self.send("given", 5)
        client.start(known_member=True)
        self.settle(client)
        stored = dict(self.tables["given"].rows)
        time.sleep(GIVEN_LIVES + 1)
        self.send("given", 5)

        def halted():
            tables = (client.status() or {}).get("tables", [])
            return [table["reason"] for table in tables if table["state"] == "halted"]

        reason = until("the table halts", halted, 30)[0]
        client.kill()
        wrong = [f"the reason does not say {word}: {reason}" for word in ("answers 401", "CDC_SINK_CATALOG_TOKEN") if word not in reason]
        self.tables["given"].rows = stored
        return wrong + self.compare("given")

    def send(self, name, count):
        self.tables.setdefault(name, Table(self.run, name)).change(count)

    def positions(self, client):
        return [partition["position"] for table in client.status()["tables"] for partition in table["partitions"]]

    def settle(self, client):
        ends = self.kafka.ends([f"{self.run}.shop.{client.target.name}"])
        try:
            until(f"{client.target.name}: every record in its table", lambda: client.status() and not behind(client.target, [client], ends), 90)
        except Fail as error:
            raise Fail(f"{error}\nthe end of {client.log}:\n{tail(client.log)}") from None

    def catalog(self):
        return load_catalog("reader", type="rest", uri=ENV["NESSIE_OAUTH"], credential=f"reader:{SECRETS['reader']}", scope="catalog",
                            **{"oauth2-server-uri": ENV["OAUTH"]}, **keys(lake()))

    def table(self, name):
        try:
            return self.catalog().load_table(f"{self.run}_shop.{name}")
        except NoSuchTableError:
            return None

    def compare(self, name):
        read = self.table(name).scan(selected_fields=("id", "name")).to_arrow().to_pylist()
        got, want = {row["id"]: row["name"] for row in read}, self.tables[name].rows
        say(f"{name}: {len(read)} rows read by PyIceberg, {len(want)} expected")
        wrong = [f"{name}: {len(read) - len(got)} keys twice"] if len(read) != len(got) else []
        return wrong + [f"{name}: row {key} is {got.get(key)}, not {want.get(key)}" for key in sorted(got.keys() | want.keys())
                        if got.get(key) != want.get(key)][:10]

    def shown(self):
        """Secrets, and tokens by their first letters, in what the processes said."""
        header = base64.urlsafe_b64encode(b'{"alg":').decode()[:9]
        words = [*SECRETS.values(), "another-secret", header]
        return [f"{client.log.name} shows {word}" for client in self.clients for word in words if word in client.said()]

    def clean(self):
        for client in self.clients:
            if client.alive():
                client.process.kill()
                client.process.wait()
        catalog = self.catalog()
        for identifier in catalog.list_tables(f"{self.run}_shop"):
            catalog.drop_table(identifier)
        catalog.drop_namespace(f"{self.run}_shop")
        self.kafka.delete([topic for topic in self.kafka.topics() if topic.startswith(f"{self.run}.")])
        self.store.objects.filter(Prefix=f"{self.run}/").delete()


def main():
    if missing := sorted({"BROKERS", "S3", "NESSIE_OAUTH", "OAUTH"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start default oauth` and read `stack env`")
        return 1
    course = Course(run_name())
    try:
        found = course.go()
    except Exception:
        found = [traceback.format_exc()]
    if not found:
        course.clean()
    return ended(course.run, found, say)


if __name__ == "__main__":
    sys.exit(main())
