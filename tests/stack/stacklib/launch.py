"""How Kafka, the registry, MinIO and the catalogs are started: one function each, called once the folder for its data is there."""
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field

from . import java, probes
from .base import BUCKET, DATA, HERE, HOST, NESSIE_BUCKET, PARTS, RUN, S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY
from .clients import run
from .ports import claim, port


@dataclass
class Launch:
    """A server's command, how to see that it is ready and within how many seconds."""

    command: list
    ready: Callable[[], bool]
    seconds: int = 60
    env: dict = field(default_factory=dict)
    user: object = None


def _jvm(name, heap, least=17):
    """A small JVM: one compiler tier and the serial collector start faster and take less memory on few cores."""
    heap = os.environ.get(f"CDC_SINK_STACK_{name.upper().replace('-', '_')}_HEAP", heap)
    return [java.need(least), "-Xms64m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k"]


def _fill(name, target=None, **values):
    """A configuration file of conf/ with its @NAME@ filled in, under run/ as `target` or by its own name."""
    text = (HERE / "conf" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    filled = RUN / (target or name)
    filled.write_text(text)
    return filled


def _kafka_java(name, heap):
    return [*_jvm(name, heap), f"-Dlog4j2.configurationFile={HERE / 'conf/log4j2.xml'}", "-cp", f"{PARTS / 'kafka/libs'}/*"]


def kafka():
    number, data = claim("kafka"), DATA / "kafka"
    settings = _fill("kafka.properties", KAFKA=number, CONTROLLER=claim("kafka-controller"), DATA=data)
    if not (data / "meta.properties").is_file():
        run("kafka", [*_kafka_java("kafka", "128m"), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", settings])
    return Launch([*_kafka_java("kafka", "384m"), "kafka.Kafka", settings], lambda: probes.kafka(number), 90)


def connect():
    number = claim("connect")
    settings = _fill("connect.properties", KAFKA=port("kafka"), CONNECT=number, CONNECTORS=PARTS / "connectors", CONVERTER=PARTS / "converter")
    return Launch([*_kafka_java("connect", "640m"), "org.apache.kafka.connect.cli.ConnectDistributed", settings],
                  lambda: probes.http_ok(number, "/connectors"), 120)


def registry():
    number, data = claim("registry"), DATA / "registry"
    data.mkdir(exist_ok=True)
    options = {
        "quarkus.http.host": HOST, "quarkus.http.port": number, "quarkus.management.host": HOST, "quarkus.management.port": 0,
        # A file: the default database is in memory and would forget the schema ids that records in Kafka still name.
        "apicurio.datasource.url": f"jdbc:h2:file:{data}/db", "apicurio.datasource.jdbc.initial-size": 2,
        "apicurio.datasource.jdbc.min-size": 2, "apicurio.datasource.jdbc.max-size": 10,
    }
    return Launch([*_jvm("registry", "384m", least=21), *(f"-D{key}={value}" for key, value in options.items()),
                   "-jar", PARTS / "registry/quarkus-run.jar"], lambda: probes.http_ok(number, "/apis/ccompat/v7/subjects"), 120)


def minio():
    number = claim("minio")
    env = {"MINIO_ROOT_USER": S3_ACCESS_KEY, "MINIO_ROOT_PASSWORD": S3_SECRET_KEY, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off",
           "MINIO_PROMETHEUS_AUTH_TYPE": "public", "GOMEMLIMIT": "512MiB"}

    def ready():
        return probes.http_ok(number, "/minio/health/ready") and all(probes.make_bucket(number, bucket) for bucket in (BUCKET, NESSIE_BUCKET))

    return Launch([PARTS / "minio/minio", "server", DATA / "minio", "--address", f"{HOST}:{number}"], ready, env=env)


def iceberg_rest():
    number, data = claim("iceberg-rest"), DATA / "iceberg-rest"
    data.mkdir(exist_ok=True)
    # The server drops CATALOG_, reads `__` as `-` and `_` as `.`, and lowers the rest.
    env = {
        "AWS_REGION": S3_REGION,
        "CATALOG_REST_PORT": str(number),
        "CATALOG_CATALOG__IMPL": "org.apache.iceberg.jdbc.JdbcCatalog",
        "CATALOG_JDBC_SCHEMA__VERSION": "V1",
        "CATALOG_URI": f"jdbc:sqlite:{data}/catalog.db?journal_mode=WAL&busy_timeout=10000",
        "CATALOG_JDBC_USER": "x",
        "CATALOG_JDBC_PASSWORD": "x",
        "CATALOG_WAREHOUSE": f"s3://{BUCKET}/iceberg",
        "CATALOG_IO__IMPL": "org.apache.iceberg.aws.s3.S3FileIO",
        "CATALOG_S3_ENDPOINT": f"http://{HOST}:{port('minio')}",
        "CATALOG_S3_PATH__STYLE__ACCESS": "true",
        "CATALOG_S3_ACCESS__KEY__ID": S3_ACCESS_KEY,
        "CATALOG_S3_SECRET__ACCESS__KEY": S3_SECRET_KEY,
        "CATALOG_CLIENT_REGION": S3_REGION,
        "CATALOG_INCLUDE__CREDENTIALS": "true",
    }
    return Launch([*_jvm("iceberg-rest", "512m"), "-cp", f"{PARTS / 'iceberg-rest/libs'}/*", "org.apache.iceberg.rest.RESTCatalogServer"],
                  lambda: probes.http_ok(number, "/v1/config"), env=env)


def nessie():
    return _nessie("nessie", [], 200)


def nessie_oauth():
    """Nessie again, for those alone who bring a token of Keycloak's that is made out to `catalog`."""
    options = {
        "nessie.server.authentication.enabled": "true", "quarkus.oidc.auth-server-url": f"http://{HOST}:{port('keycloak')}/realms/lake",
        "quarkus.oidc.client-id": "nessie", "quarkus.oidc.token.audience": "catalog",
    }
    return _nessie("nessie-oauth", [f"-D{key}={value}" for key, value in options.items()], 401)


def _nessie(name, options, ready):
    number = claim(name)
    settings = _fill("nessie.properties", f"{name}.properties", NESSIE=number, MINIO=port("minio"), DATA=DATA / name, BUCKET=NESSIE_BUCKET,
                     REGION=S3_REGION, ACCESS_KEY=S3_ACCESS_KEY, SECRET_KEY=S3_SECRET_KEY)
    return Launch([*_jvm(name, "640m", least=21), *options, "-jar", PARTS / "nessie/nessie.jar"],
                  lambda: probes.http_ok(number, "/iceberg/v1/config", ready), 120, env={"QUARKUS_CONFIG_LOCATIONS": str(settings)})


def keycloak():
    number, home, data = claim("keycloak"), PARTS / "keycloak", DATA / "keycloak"
    realm = (HERE / "conf/realm.json").read_text()
    if not (data / "realm.json").is_file() or (data / "realm.json").read_text() != realm:
        shutil.rmtree(data, ignore_errors=True)  # a realm that is there is not imported again
        data.mkdir()
        (data / "realm.json").write_text(realm)
    (home / "data/import").mkdir(parents=True, exist_ok=True)
    (home / "data/import/lake.json").write_text(realm)
    # A file: the keys that tokens are signed with outlive a restart.
    options = {
        "http-enabled": "true", "http-host": HOST, "http-port": number, "hostname": f"http://{HOST}:{number}", "cache": "local",
        "db-url": f"jdbc:h2:file:{data}/db;NON_KEYWORDS=VALUE",
    }
    return Launch([*_jvm("keycloak", "384m"), *java.keycloak(home), "start", "--optimized", "--import-realm",
                   *(f"--{key}={value}" for key, value in options.items())],
                  lambda: probes.http_ok(number, "/realms/lake/.well-known/openid-configuration"), 180)
