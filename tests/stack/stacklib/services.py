"""The servers of the stack: start, stop, status, logs and wipe."""
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from . import databases, launch, process
from .base import DATA, LOGS, ROOT, Fail, installed, say, shout
from .clients import tail
from .ports import port


@dataclass(frozen=True)
class Service:
    parts: tuple
    needs: tuple = ()
    signal: int = signal.SIGTERM
    patience: int = 15


SERVICES = {
    "postgres": Service(("postgres",), signal=signal.SIGINT),  # fast shutdown
    "mysql": Service(("mysql",), patience=2),  # takes 10 s and more while a connector reads its binlog; a kill loses nothing
    "mariadb": Service(("mariadb",)),
    "kafka": Service(("kafka",)),
    "registry": Service(("registry",)),
    "connect": Service(("kafka", "connectors", "converter"), needs=("kafka",)),
    "minio": Service(("minio",)),
    "iceberg-rest": Service(("iceberg-rest",), needs=("minio",)),
    "nessie": Service(("nessie",), needs=("minio",)),
    "keycloak": Service(("keycloak",)),
    "nessie-oauth": Service(("nessie",), needs=("minio", "keycloak")),
}
GROUPS = {
    "databases": ["postgres", "mysql", "mariadb"],
    "lake": ["minio", "iceberg-rest"],
    "default": ["postgres", "mysql", "mariadb", "kafka", "registry", "connect", "minio"],
    "oauth": ["keycloak", "nessie-oauth"],  # for one test, which starts and stops them
    "every": list(SERVICES),
}
GROUPS["all"] = [name for name in SERVICES if name not in GROUPS["oauth"]]


def _expand(names, otherwise):
    wanted = [service for name in names or [otherwise] for service in GROUPS.get(name, [name])]
    unknown = set(wanted) - set(SERVICES)
    if unknown:
        raise Fail(f"unknown server {', '.join(sorted(unknown))}: there are {', '.join(SERVICES)} and the groups {', '.join(GROUPS)}")
    return wanted


def start(names):
    """Starts the named servers and what they need, at the same time where they do not need each other."""
    wanted = _expand(names, "default")
    wanted += [need for name in wanted for need in SERVICES[name].needs]
    if "mysql" in wanted and not installed("mysql"):
        shout("MySQL is not installed: MariaDB STANDS IN FOR IT. What these tests show of MySQL, they show of MariaDB.")
        wanted += ["mariadb"]
        wanted = [name for name in wanted if name != "mysql"]
    wanted = [name for name in SERVICES if name in wanted]
    missing = sorted({part for name in wanted for part in SERVICES[name].parts if not installed(part)})
    if missing:
        raise Fail(f"not installed at the pinned version: {', '.join(missing)}. Run `stack install {' '.join(missing)}`")
    DATA.mkdir(parents=True, exist_ok=True)
    running = {}
    with ThreadPoolExecutor(len(wanted)) as pool:
        for name in wanted:  # in the order of SERVICES, so what a server needs was submitted before it
            running[name] = pool.submit(_start_one, name, [running[need] for need in SERVICES[name].needs])
    failures = [str(future.exception()) for future in running.values() if future.exception()]
    if failures:
        raise Fail("\n".join(dict.fromkeys(failures)))
    check_running(wanted)
    say(f"up: {', '.join(wanted)}")


def check_running(names):
    """Fails when one of the named servers does not run, with what it said last."""
    gone = [name for name in _expand(names, "every") if not process.pid(name) and not _stood_in_for(name)]
    if gone:
        ends = "\n".join(f"the end of {LOGS / name}.log:\n{tail(LOGS / f'{name}.log')}" for name in gone)
        raise Fail(f"not running: {', '.join(gone)}. Run `stack start {' '.join(gone)}`\n{ends}")


def _stood_in_for(name):
    return name == "mysql" and not installed("mysql") and process.pid("mariadb")


def _start_one(name, needs):
    for need in needs:
        need.result()
    if process.pid(name):
        return say(f"{name}: already running")
    module = databases if name in GROUPS["databases"] else launch
    for last in (False, True):
        plan = getattr(module, name.replace("-", "_"))()
        child = process.spawn(name, plan.command, env=plan.env, user=plan.user)
        try:
            process.wait_ready(name, child, plan.ready, plan.seconds)
            break
        except process.Died as died:  # by chance, as when something else takes its port just then
            if last:
                raise
            say(f"{died}\n{name}: starting it once more")


def stop(names):
    """Stops the named servers, all when none is named, and what needs them: Connect and the catalogs first."""
    wanted = set(_expand(names, "every"))
    wanted |= {name for name, service in SERVICES.items() if wanted & set(service.needs)}
    later = [name for name in wanted if not SERVICES[name].needs]
    for group in ([name for name in wanted if SERVICES[name].needs], later):
        if group:
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(lambda name: process.stop(name, SERVICES[name].signal, SERVICES[name].patience), group))


def wipe(names):
    """Stops servers and removes their data. Kafka's goes with the registry's: records name schemas by the registry's ids.

    The catalogs' data goes with the object store's, for they name its objects.
    """
    wanted = set(_expand(names, "every"))
    for together in ({"kafka", "registry"}, {"minio", "iceberg-rest", "nessie", "nessie-oauth"}):
        wanted |= together if wanted & together else set()
    stop(sorted(wanted))
    for name in sorted(wanted):
        shutil.rmtree(DATA / name, ignore_errors=True)
    say(f"wiped: {', '.join(sorted(wanted))}")


def status(names):
    total = 0
    print(f"{'server':14}{'state':10}{'pid':>8}{'port':>7}{'MiB':>6}")
    for name in _expand(names, "every"):
        number = process.pid(name)
        have = all(installed(part) for part in SERVICES[name].parts)
        memory = process.resident_mib(number) if number else 0
        total += memory
        state = "running" if number else "stopped" if have else "absent"
        print(f"{name:14}{state:10}{number or '-':>8}{port(name):>7}{memory or '-':>6}")
    print(f"{total} MiB in all, in {ROOT}")


def logs(names):
    """The end of each named server's log; of every server that has one when none is named."""
    for name in _expand(names, "every"):
        path = LOGS / f"{name}.log"
        if path.exists():
            print(f"==> {path}\n{tail(path, 40)}")
