"""An object store and a catalog of the test's own, which it may end, kill and start again."""
import os
import shutil
import subprocess

import catalogs
import stacklib.base
from stack import ENV, Fail, free_port, tail, until
from stacklib import probes
from stacklib.base import BUCKET, PARTS, S3_ACCESS_KEY, S3_SECRET_KEY


class Minio:
    def __init__(self, folder):
        self.data, self.log, self.port, self.process = folder / "minio", folder / "minio.log", free_port(), None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        environment = {"MINIO_ROOT_USER": S3_ACCESS_KEY, "MINIO_ROOT_PASSWORD": S3_SECRET_KEY, "MINIO_UPDATE": "off", "MINIO_BROWSER": "off",
                       "GOMEMLIMIT": "256MiB"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([PARTS / "minio/minio", "server", self.data, "--address", f"127.0.0.1:{self.port}"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | environment)
        until("the store's answer", self.answers, 120)

    def answers(self):
        if self.process.poll() is not None:
            raise Fail(f"the store died; the end of {self.log}:\n{tail(self.log)}")
        try:
            probes.make_bucket(self.port, BUCKET)
        except (OSError, stacklib.base.Fail):  # It answers before it is ready, too.
            return False
        return True

    def end(self):
        self.process.terminate()
        self.process.wait(30)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


class Catalog(catalogs.Server):
    """Apache's REST catalog, with its tables in the stack's store."""

    process = None

    def __init__(self, folder):
        super().__init__("own", f"s3://{ENV['S3_BUCKET']}/{folder.parent.name}/{folder.name}", folder)

    def start(self):
        if self.process is None or self.process.poll() is not None:
            super().start()
        self.wait()

    def end(self):
        super().stop()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.kill()
