"""How each server is prepared and started: one function for each, which returns its command and how to see that it is ready."""
import glob
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import Callable

from . import java, probes
from .base import (BUCKET, DATA, HERE, HOST, LOGS, NESSIE_BUCKET, PARTS, RUN, S3_ACCESS_KEY, S3_REGION, S3_SECRET_KEY, Fail,
                   check_reachable, server_user)
from .clients import run
from .ports import claim, port


@dataclass
class Launch:
    command: list
    ready: Callable[[], bool]
    seconds: int = 60
    env: dict = field(default_factory=dict)
    user: object = None
    after: Callable[[], None] = lambda: None


def _jvm(name, heap, least=17):
    """A small JVM: one compiler tier and the serial collector start faster and take less memory on few cores."""
    heap = os.environ.get(f"CDC_SINK_STACK_{name.upper().replace('-', '_')}_HEAP", heap)
    return [java.need(least), "-Xms64m", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss512k"]


def _fill(name, **values):
    """A configuration file of conf/ with its @NAME@ filled in, under run/."""
    text = (HERE / "conf" / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    target = RUN / name
    target.write_text(text)
    return target


def postgres():
    number, user, data = claim("postgres"), server_user(), DATA / "postgres"
    programs = PARTS / "postgres/bin"
    if user:
        check_reachable(programs / "postgres", user)
        check_reachable(data, user)
    if not (data / "stack.conf").is_file():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(mode=0o700)
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
        if user:
            os.chown(data, user.pw_uid, user.pw_gid)
        run("postgres", [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd="/", **identity)
        with open(data / "postgresql.conf", "a") as settings:
            settings.write("include 'stack.conf'\n")
        shutil.copyfile(HERE / "conf/postgresql.conf", data / "stack.conf")
    (data / "postmaster.pid").unlink(missing_ok=True)
    return Launch([programs / "postgres", "-D", data, "-p", number], lambda: probes.postgres(number), user=user)


def _own_libc(part, program):
    """Runs an unpacked Debian program through the loader and libraries that were unpacked with it."""
    root = PARTS / part
    loader = next(iter(glob.glob(f"{root}/usr/lib/*/ld-linux-*.so.*") + glob.glob(f"{root}/lib/*/ld-linux-*.so.*")), None)
    if not loader:
        raise Fail(f"{part}: no loader in {root}: run `stack install {part}`")
    libraries = ":".join(glob.glob(f"{root}/usr/lib/*-linux-gnu") + glob.glob(f"{root}/lib/*-linux-gnu"))
    return [loader, "--library-path", libraries, root / program, "--no-defaults", f"--basedir={root / 'usr'}"]


_BINLOG = ["--binlog-format=ROW", "--binlog-row-image=FULL", "--binlog-row-metadata=FULL", "--sync-binlog=0", "--innodb-buffer-pool-size=32M",
           "--innodb-flush-log-at-trx-commit=2", "--performance-schema=OFF", "--max-connections=100", "--default-time-zone=+00:00",
           "--sql-mode=NO_ENGINE_SUBSTITUTION", f"--bind-address={HOST}", f"--init-file={HERE / 'conf/mysql.sql'}"]


def mysql():
    number, data = claim("mysql"), DATA / "mysql"
    base = [*_own_libc("mysql", "usr/sbin/mysqld"), f"--datadir={data}", *(["--user=root"] if os.geteuid() == 0 else [])]
    if not (data / "mysql.ibd").is_file() or not (data / "initialized").is_file():
        shutil.rmtree(data, ignore_errors=True)
        run("mysql", [*base, "--initialize-insecure", "--innodb-redo-log-capacity=8M"])
        (data / "initialized").touch()
    return Launch([*base, f"--port={number}", f"--socket={RUN / 'mysql.sock'}", "--mysqlx=OFF", "--server-id=1", "--log-bin=binlog",
                   "--binlog-rows-query-log-events=ON", "--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--secure-file-priv=NULL",
                   "--innodb-redo-log-capacity=8M", "--table-open-cache=200", *_BINLOG], lambda: probes.mysql(number))


def mariadb():
    number, data, share = claim("mariadb"), DATA / "mariadb", PARTS / "mariadb/usr/share/mysql"
    base = [*_own_libc("mariadb", "usr/sbin/mariadbd"), f"--datadir={data}", f"--lc-messages-dir={share}",
            *(["--user=root"] if os.geteuid() == 0 else [])]
    if not (data / "initialized").is_file():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir()
        _mariadb_bootstrap(base, share)
        (data / "initialized").touch()
    return Launch([*base, f"--port={number}", f"--socket={RUN / 'mariadb.sock'}", f"--pid-file={RUN / 'mariadb-own.pid'}", "--server-id=2",
                   "--log-bin=mariadb-bin", "--binlog-annotate-row-events=ON", "--gtid-strict-mode=ON", *_BINLOG], lambda: probes.mysql(number))


def _mariadb_bootstrap(base, share):
    """What mariadb-install-db does; that script cannot be told to use another loader."""
    files = ["mysql_system_tables", "mysql_performance_tables", "mysql_system_tables_data", "maria_add_gis_sp_bootstrap", "mysql_sys_schema"]
    script = b"create database if not exists mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n"
    script += b"".join((share / f"{name}.sql").read_bytes() for name in files)
    with open(LOGS / "install-mariadb.log", "ab") as log:
        done = subprocess.run(list(map(str, [*base, "--bootstrap", "--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K"])),
                              input=script, stdout=log, stderr=log)
    if done.returncode:
        raise Fail(f"mariadb: making the system tables failed: see {LOGS / 'install-mariadb.log'}")


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

    def buckets():
        for bucket in (BUCKET, NESSIE_BUCKET):
            probes.make_bucket(number, bucket)

    return Launch([PARTS / "minio/minio", "server", DATA / "minio", "--address", f"{HOST}:{number}"],
                  lambda: probes.http_ok(number, "/minio/health/ready"), env=env, after=buckets)


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
    number = claim("nessie")
    settings = _fill("nessie.properties", NESSIE=number, MINIO=port("minio"), DATA=DATA / "nessie", BUCKET=NESSIE_BUCKET,
                     REGION=S3_REGION, ACCESS_KEY=S3_ACCESS_KEY, SECRET_KEY=S3_SECRET_KEY)
    return Launch([*_jvm("nessie", "640m", least=21), "-jar", PARTS / "nessie/nessie.jar"],
                  lambda: probes.http_ok(number, "/iceberg/v1/config"), 120, env={"QUARKUS_CONFIG_LOCATIONS": str(settings)})
