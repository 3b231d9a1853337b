#!/usr/bin/env python3
"""What is shipped for Prometheus and Grafana, tried by Prometheus itself.

promtool checks the configuration and the alerts and runs their tests. Then Prometheus, with the shipped configuration, scrapes the program while it
reads topics: every query of the dashboards and every alert is asked through its API. None may fail, and all but those that show only trouble must
give something. A table that is halted on purpose and an instance that ends must show as alerts.
"""
import json
import os
import re
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, urlencode

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e")]

import boto3  # noqa: E402

from catalogs import WORK  # noqa: E402
from connectors import Kafka  # noqa: E402
from envelopes import Table  # noqa: E402
from sinks import Instance, Target  # noqa: E402
from stack import ENV, REPOSITORY, Fail, ended, free_port, run_name, tail, until  # noqa: E402

STARTED = time.monotonic()
TARGET = "cdc-sink:9187"  # where the shipped configuration looks
RATE_INTERVAL = "20s"  # Grafana's for a scrape every 5 s


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


def promtool():
    """What promtool finds wrong with the shipped files."""
    folder = REPOSITORY / "prometheus"
    found = []
    for command in (["check", "config", "prometheus.yml"], ["check", "rules", "--lint-fatal", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([f"{ENV['PROMETHEUS']}/promtool", *command], cwd=folder, capture_output=True, text=True)
        said = " ".join((done.stdout + done.stderr).split())
        say(f"promtool {' '.join(command)}: {done.returncode}: {said[:200]}")
        found += [f"promtool {' '.join(command)}: {said}"] if done.returncode else []
    return found


class Prometheus:
    """Prometheus with the shipped configuration, which finds the program where it is."""

    def __init__(self, folder, target):
        home = folder / "prometheus"
        home.mkdir()
        for path in (REPOSITORY / "prometheus").glob("*.yml"):
            text = path.read_text()
            if path.name == "prometheus.yml":
                if TARGET not in text:
                    raise Fail(f"{path} does not look at {TARGET}")
                text = text.replace(TARGET, target)
            (home / path.name).write_text(text)
        port = free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "prometheus.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [f"{ENV['PROMETHEUS']}/prometheus", f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
                 f"--web.listen-address=127.0.0.1:{port}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def get(self, path, **parameters):
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urlencode(parameters, doseq=True)}", timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return {} if error.code == 503 else json.load(error)  # 503: it starts
        except urllib.error.URLError:
            if self.process.poll() is not None:
                raise Fail(f"Prometheus ended; the end of {self.log}:\n{tail(self.log)}") from None
            return {}

    def health(self):
        targets = self.get("/api/v1/targets").get("data", {}).get("activeTargets", [])
        return [(target["labels"]["job"], target["health"]) for target in targets]

    def alert(self, name):
        """The states of an alert, as `pending` and `firing`, and its labels."""
        alerts = self.get("/api/v1/alerts")["data"]["alerts"]
        return [(alert["state"], alert["labels"]) for alert in alerts if alert["labels"]["alertname"] == name]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def dashboards():
    """Every query as (place, kind, expression), variables aside, and the variables' own."""
    for path in sorted((REPOSITORY / "grafana/dashboards").glob("*.json")):
        dashboard = json.loads(path.read_text())
        everything = {variable["name"]: variable["allValue"] for variable in dashboard["templating"]["list"] if "allValue" in variable}

        def plain(text):
            text = re.sub(r"\$__rate_interval\b", RATE_INTERVAL, text)
            text = re.sub(r"\$(\w+)", lambda hit: everything[hit[1]], text)
            return text

        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{path.name}: variable {variable['name']}", "label", plain(variable["query"]["query"])
        for panel in [inner for panel in dashboard["panels"] for inner in [panel, *panel.get("panels", [])]]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']} {target['refId']}", "instant" if target.get("instant") else "range", plain(target["expr"])


class Course:
    def __init__(self, run):
        self.run, self.folder = run, WORK / run
        self.folder.mkdir(parents=True)
        (self.folder / "pid").write_text(str(os.getpid()))
        self.kafka = Kafka()
        self.tables = [Table(run, name) for name in ("orders", "customers", "broken")]
        target = Target("both", ("delta", "iceberg"), f"s3://{ENV['S3_BUCKET']}/{run}/both")
        options = {"topics": [f"{run}.*"], "batch-age": "1s", "batch-idle": "300ms", "dead-letters": "table", "dead-letter-limit": 1}
        self.instance = Instance(target, "a", run, self.folder, options)
        self.prometheus = None

    def go(self):
        for table in self.tables:
            table.change(100)
        self.instance.start(known_member=True)
        self.prometheus = Prometheus(self.folder, f"127.0.0.1:{self.instance.port}")
        until("Prometheus scrapes the program", lambda: self.prometheus.health() == [("cdc-sink", "up")], 60)
        self.work()
        # A bad record, and in the last table one more than are borne.
        for table in self.tables[1:] + self.tables[2:]:
            table.raw("{", '{"id": 1}')
        Table.producer.flush(30)
        self.work()
        found = self.queries() + self.alerts()
        self.instance.kill()
        until("the alert that the program is away waits", lambda: [state for state, _ in self.prometheus.alert("CdcSinkDown")] == ["pending"], 60)
        return found

    def work(self):
        """Changes, as long as a rate needs."""
        begin = time.monotonic()
        while time.monotonic() - begin < 15:
            for table in self.tables[:2]:
                table.change(50)
            self.tables[0].delete(min(self.tables[0].rows))
            time.sleep(0.5)
        self.tables[1].truncate()
        self.tables[1].change(50)
        ends = self.kafka.ends([table.topic for table in self.tables[:2]])
        until("every record in its table", lambda: not behind_running(self.instance, ends), 60)

    def queries(self):
        found, shown = [], {}
        now = time.time()
        for place, kind, expression in dashboards():
            if kind == "label":
                selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", expression).groups()
                answer = self.prometheus.get(f"/api/v1/label/{quote(label)}/values", **{"match[]": selector})
                results = answer.get("data", [])
            else:
                times = {"time": now} if kind == "instant" else {"start": now - 60, "end": now, "step": 5}
                answer = self.prometheus.get(f"/api/v1/query{'' if kind == 'instant' else '_range'}", query=expression, **times)
                results = answer.get("data", {}).get("result", [])
            said = [answer.get("error"), *answer.get("warnings", []), *answer.get("infos", [])]
            found += [f"{place}: {text}: {expression}" for text in said if text]
            only_trouble = expression.endswith("> 0")
            found += [f"{place}: nothing: {expression}"] if not results and not only_trouble else []
            shown[place] = results
        empty = [place for place, results in shown.items() if not results]
        say(f"{len(shown)} queries, {len(empty)} show trouble that there was not, {len(found)} failed: {', '.join(empty)}")
        return found + self.trouble(shown)

    def trouble(self, shown):
        """The trouble that there was must show: one dead letter of a table that had none before is the least of it."""
        name = "cdc-sink.json:"
        letters = [float(result["value"][1]) for result in shown[f"{name} Dead letters, last hour A"]]
        halted = [float(result["value"][1]) for result in shown[f"{name} Halted tables A"]]
        found = [f"dead letters of the last hour: {letters}"] if not letters or not 1 <= letters[0] < 2 else []
        found += [f"halted tables: {halted}"] if halted != [1] else []
        for panel in ("Dead letters by reason A", "Errors by kind A", "Rows merged by operation B"):
            found += [] if shown[f"{name} {panel}"] else [f"{name} {panel}: nothing"]
        return found

    def alerts(self):
        groups = self.prometheus.get("/api/v1/rules", type="alert")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        found = [f"alert {rule['name']} is {rule['health']}: {rule.get('lastError')}" for rule in rules if rule["health"] != "ok"]
        for rule in rules:
            answer = self.prometheus.get("/api/v1/query", query=rule["query"])
            results = answer.get("data", {}).get("result", [])
            said = [answer.get("error"), *answer.get("warnings", []), *answer.get("infos", [])]
            found += [f"alert {rule['name']}: {text}" for text in said if text]
            say(f"alert {rule['name']}: {rule['state']}, {len(results)} results")
            fires = rule["name"] == "CdcSinkTableHalted"
            found += [f"alert {rule['name']} is {rule['state']}, {len(results)} results"] if (rule["state"] == "firing") != fires else []
        halted = [labels["table"] for _, labels in self.prometheus.alert("CdcSinkTableHalted")]
        return found + ([f"halted: {halted}"] if halted != [f"{self.run}_shop.broken"] else [])

    def clean(self):
        if self.instance.alive():
            self.instance.process.kill()
            self.instance.process.wait()
        if self.prometheus:
            self.prometheus.stop()
        self.kafka.delete([topic for topic in self.kafka.topics() if topic.startswith(f"{self.run}.")])
        store = boto3.resource("s3", endpoint_url=ENV["S3"], aws_access_key_id=ENV["S3_ACCESS_KEY"], aws_secret_access_key=ENV["S3_SECRET_KEY"],
                               region_name=ENV["S3_REGION"])
        store.Bucket(ENV["S3_BUCKET"]).objects.filter(Prefix=f"{self.run}/").delete()


def behind_running(instance, ends):
    """The partitions that are not wholly in their tables."""
    instance.expect_alive()
    tables = (instance.status() or {}).get("tables", [])
    positions = {(table["topic"], partition["partition"]): partition["position"] or 0 for table in tables for partition in table["partitions"]}
    return {place for place, end in ends.items() if positions.get(place, -1) < end}


def main():
    if missing := sorted({"BROKERS", "S3", "PROMETHEUS"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack install all`, `start` and read `stack env`")
        return 1
    found = promtool()
    course = Course(run_name())
    try:
        found += course.go()
    except (Fail, Exception) as error:  # noqa: B014
        found += [str(error) if isinstance(error, Fail) else traceback.format_exc()]
    finally:
        course.clean()
    return ended(course.run, found, say)


if __name__ == "__main__":
    sys.exit(main())
