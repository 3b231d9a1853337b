"""How the databases are prepared and started: one function each. A data folder whose making was cut short is made again."""
import glob
import os
import shutil
import subprocess

from . import probes
from .base import DATA, HERE, HOST, LOGS, PARTS, RUN, Fail, check_reachable, server_user
from .clients import run
from .launch import Launch
from .ports import claim


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
           # No NO_ZERO_DATE: tests write zero dates, as old applications do.
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
    command = [*base, "--bootstrap", "--enforce-storage-engine=", "--max-allowed-packet=8M", "--net-buffer-length=16K"]
    with open(LOGS / "install-mariadb.log", "ab") as log:
        done = subprocess.run(list(map(str, command)), input=script, stdout=log, stderr=log)
    if done.returncode:
        raise Fail(f"mariadb: making the system tables failed: see {LOGS / 'install-mariadb.log'}")
