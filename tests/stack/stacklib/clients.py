"""The ordinary clients of the package registries: Maven, Go, pip and apt, each as the machine has it configured."""
import os
import re
import shutil
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

from .base import LOGS, TEMP, VERSIONS, Fail, say


def need(program, hint):
    path = shutil.which(program)
    if not path:
        raise Fail(f"`{program}` is not on the PATH: install {hint}")
    return path


def run(name, command, tries=1, **options):
    """Runs an install command; what it prints goes to a log file, whose end is shown if it fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    path = LOGS / f"install-{name}.log"
    with open(path, "ab") as log:
        for attempt in range(1, tries + 1):
            log.write(f"\n$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            try:
                subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
                return
            except subprocess.CalledProcessError as failure:
                say(f"{name}: try {attempt} of {tries} failed (exit {failure.returncode})")
                time.sleep(2 * (attempt < tries))
    raise Fail(f"{name}: `{command[0]}` failed; the end of {path}:\n{tail(path)}")


def tail(path, lines=25):
    try:
        return "\n".join("    " + line for line in path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "    (no log)"


def _dependency(coordinates, transitive):
    """`group:artifact:version[:type[:classifier]]` as POM text. What comes alone needs no POM of its dependencies to be there."""
    group, artifact, version, *rest = coordinates.split(":")
    kind, classifier = (rest + [None, None])[:2]
    return "".join([
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>",
        f"<type>{kind}</type>" if kind else "",
        f"<classifier>{classifier}</classifier>" if classifier else "",
        "" if transitive else "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>",
        "</dependency>",
    ])


def maven(name, folder, coordinates, transitive=True, exclude=(), groups=()):
    """Copies artifacts from the Maven registry, with what they need at run time, into `folder`.

    `exclude` names artifacts to leave out; `groups`, when given, the only groups to keep.
    """
    need("mvn", "Maven and a Java 17 or newer")
    work = TEMP / f"{name}-pom"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "pom.xml").write_text(
        '<project><modelVersion>4.0.0</modelVersion>'
        f"<groupId>stack</groupId><artifactId>{name}</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(_dependency(item, transitive) for item in coordinates)}</dependencies></project>")
    plugin = f"org.apache.maven.plugins:maven-dependency-plugin:{VERSIONS['maven-dependency-plugin']['version']}"
    # -U: Maven remembers a failed look-up for a day otherwise.
    run(name, ["mvn", "-B", "-q", "-U", "-Dstyle.color=never", "-f", work / "pom.xml", f"{plugin}:copy-dependencies", "-DincludeScope=runtime",
               f"-DoutputDirectory={folder}", f"-DexcludeArtifactIds={','.join(exclude)}",
               f"-DincludeGroupIds={','.join(groups)}"], tries=3)
    shutil.rmtree(work)


def unpack(archive, folder):
    """Unpacks a tar or zip archive and removes it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as source:
            source.extractall(folder)
    else:
        with tarfile.open(archive) as source:
            source.extractall(folder, filter="tar")
    archive.unlink()


def go_install(name, folder, modules, options=(), env=()):
    need("go", "Go (golang)")
    run(name, ["go", "install", "-trimpath", "-ldflags=-s -w", *options, *modules], tries=2, env=os.environ | {"GOBIN": str(folder), **dict(env)})


def pip(name, python, arguments):
    run(name, [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments], tries=3)


def debian(name, folder, packages, suite=None):
    """Unpacks Debian packages with everything they depend on, libc included, without installing anything.

    A private apt configuration with an empty package status makes apt resolve the whole closure, from `suite` of the
    mirror the machine already uses (None: the machine's own release).
    """
    need("apt-get", "nothing: this part needs a Debian machine")
    need("dpkg", "nothing: this part needs a Debian machine")
    apt = TEMP / f"{name}-apt"
    shutil.rmtree(apt, ignore_errors=True)
    for sub in ("state/lists/partial", "cache/archives/partial", "debs"):
        (apt / sub).mkdir(parents=True)
    (apt / "state/status").touch()
    (apt / "sources.list").write_text(_sources(suite))
    (apt / "apt.conf").write_text(
        f'Dir::State "{apt}/state"; Dir::State::Lists "{apt}/state/lists"; Dir::State::status "{apt}/state/status";\n'
        f'Dir::Cache "{apt}/cache"; Dir::Etc::SourceList "{apt}/sources.list"; Dir::Etc::SourceParts "/dev/null";\n'
        'Dir::Etc::Preferences "/dev/null"; Dir::Etc::PreferencesParts "/dev/null"; Acquire::Languages "none";\n'
        'APT::Install-Recommends "false"; APT::Sandbox::User "root"; Acquire::Retries "3";\n')
    env = os.environ | {"APT_CONFIG": str(apt / "apt.conf")}
    run(name, ["apt-get", "update", "-q"], tries=3, env=env)
    plan = subprocess.run(["apt-get", "install", "-s", *packages], env=env, capture_output=True, text=True)
    versions = dict(re.findall(r"^Inst (\S+) \((\S+)", plan.stdout, re.MULTILINE))
    wanted = list(versions)
    if not wanted:
        raise Fail(f"{name}: apt cannot resolve {' '.join(packages)}: {plan.stderr.strip()}")
    unused = ("perl", "libperl", "libgdbm", "libdb5", "libc-gconv")
    wanted = [package for package in wanted if not package.startswith(unused)]
    run(name, ["apt-get", "download", "-q", *wanted], tries=3, env=env, cwd=apt / "debs")
    for package in sorted((apt / "debs").glob("*.deb")):
        run(name, ["dpkg", "-x", package, folder])
    for sub in ("doc", "man", "locale", "bash-completion"):
        shutil.rmtree(folder / "usr/share" / sub, ignore_errors=True)
    shutil.rmtree(apt)
    say(f"{name}: {', '.join(f'{package} {versions[package]}' for package in packages)}")


def _sources(suite):
    """The machine's own Debian mirror as a source line, for its own release or for another suite of the same mirror."""
    found = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages", "Component: main"],
                           capture_output=True, text=True).stdout.split("\n")
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    codename = release.get("VERSION_CODENAME", "").strip('"')
    site = next((line.split()[0] for line in found if line.endswith(f" {codename}")), None)
    if not site:
        raise Fail(f"apt has no source for Debian {codename}: this part needs a Debian machine with its usual mirror")
    return f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {site} {suite or codename} main\n"
