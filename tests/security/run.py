#!/usr/bin/env python3
"""Security: certificates, logins, secrets and hostile names, against real servers.

Everything that the program asks is behind TLS: a Kafka of the run's own, and gates in front of the stack's registry, catalog and object store. Who has
the right certificate is read from and written to; who has another host's, an expired one, one of an unknown authority, or does not know the password, is
not, and the log says who and why. No secret of it all may be in anything that was written. Then topics with names that would like to leave the warehouse.
"""
import os
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "readers")]

import catalogs  # noqa: E402
import cleanup  # noqa: E402
from stack import ENV, Fail, ended, run_name  # noqa: E402

from names import Names  # noqa: E402
from secure import Secured  # noqa: E402

STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f}s] {text}", flush=True)


def main():
    if missing := sorted({"S3", "REGISTRY", "ICEBERG_REST", "BROKERS"} - ENV.keys()):
        print(f"not there: {', '.join(f'CDC_SINK_TEST_{name}' for name in missing)}. Run `tests/stack/stack start all` and read `stack env`")
        return 1
    run = run_name()
    folder = catalogs.WORK / run
    folder.mkdir(parents=True)
    (folder / "pid").write_text(str(os.getpid()))
    secured, found = Secured(run, folder, say), []
    try:
        secured.prepare()
        for check in (secured.right, secured.wrong, secured.vended, secured.settings, Names(run, folder, secured.broker, say).check, secured.shown):
            found += check()
    except Exception as error:  # What was found before is worth telling.
        found.append(str(error) if isinstance(error, Fail) else traceback.format_exc())
    finally:
        secured.stop()
        if not found and "--keep" not in sys.argv:
            secured.clean()
            cleanup.everything(run)
    return ended(run, found, say)


if __name__ == "__main__":
    sys.exit(main())
