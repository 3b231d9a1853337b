"""What tests are told: where each running server is, as variables; and the checks of the stack itself, which read them."""
import os
import subprocess

from . import process, services
from .base import BUCKET, HERE, HOST, PARTS, S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, Fail, installed, say, shout
from .ports import port

_SERVERS = {
    "POSTGRES": ("postgres", "postgresql://postgres@{}/postgres"),
    "MYSQL": ("mysql", "mysql://cdc:cdc@{}"),
    "MARIADB": ("mariadb", "mysql://cdc:cdc@{}"),
    "BROKERS": ("kafka", "{}"),
    "REGISTRY": ("registry", "http://{}/apis/ccompat/v7"),
    "REGISTRY_NATIVE": ("registry", "http://{}/apis/registry/v2"),
    "CONNECT": ("connect", "http://{}"),
    "S3": ("minio", "http://{}"),
    "ICEBERG_REST": ("iceberg-rest", "http://{}"),
    "NESSIE": ("nessie", "http://{}/iceberg"),
    "NESSIE_OAUTH": ("nessie-oauth", "http://{}/iceberg"),
    "OAUTH": ("keycloak", "http://{}/realms/lake/protocol/openid-connect/token"),
}


def variables():
    """A server that does not run has no variable: a test that needs it can say so."""
    found = {key: text.format(f"{HOST}:{port(name)}") for key, (name, text) in _SERVERS.items() if process.pid(name)}
    if "S3" in found:
        found |= {"S3_BUCKET": BUCKET, "S3_REGION": S3_REGION, "S3_ACCESS_KEY": S3_ACCESS_KEY, "S3_SECRET_KEY": S3_SECRET_KEY}
    if "MYSQL" in found:
        found["MYSQL_IS"] = "mysql"
    elif "MARIADB" in found:
        found |= {"MYSQL": found["MARIADB"], "MYSQL_IS": "mariadb"}
    if installed("readers"):
        found["PYTHON"] = PARTS / "readers/bin/python"
    if installed("prometheus"):
        found["PROMETHEUS"] = PARTS / "prometheus"
    if installed("spark"):
        found |= {"SPARK_PYTHON": PARTS / "spark/bin/python", "SPARK_JARS": PARTS / "spark/jars"}
    return {f"CDC_SINK_TEST_{key}": str(value) for key, value in found.items()}


def _warn(found):
    if found.get("CDC_SINK_TEST_MYSQL_IS") == "mariadb":
        shout("MySQL does not run: CDC_SINK_TEST_MYSQL IS MARIADB")


def env(names):
    """Shell lines for `eval`; fails when a named server does not run."""
    if names:
        services.check_running(names)
    found = variables()
    _warn(found)
    for key, value in found.items():
        print(f"export {key}={value}")


def check(names):
    """Runs the checks of what is up: sources, lake, spark; or only the named ones."""
    found = variables()
    _warn(found)
    needs = {"sources": ("PYTHON", ["BROKERS", "CONNECT"]), "lake": ("PYTHON", ["S3"]), "spark": ("SPARK_PYTHON", ["S3"])}
    unknown = set(names) - set(needs)
    if unknown:
        raise Fail(f"unknown check {', '.join(sorted(unknown))}: there are {', '.join(needs)}")
    for name in names or needs:
        python, servers = needs[name]
        missing = [key for key in (python, *servers) if f"CDC_SINK_TEST_{key}" not in found]
        if missing and names:
            raise Fail(f"check {name}: not there: {', '.join(missing)}")
        if missing:
            say(f"check {name}: LEFT OUT, not there: {', '.join(missing)}")
            continue
        script = HERE / "checks" / f"{name}.py"
        if subprocess.run([found[f"CDC_SINK_TEST_{python}"], "-B", script], env=os.environ | found).returncode:
            raise Fail(f"check {name} failed")
        say(f"check {name}: ok")
