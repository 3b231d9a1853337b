"""The program with everything that it asks behind TLS."""
import subprocess
import urllib.request

import sinks
from sinks import Target
from stack import ENV, Fail, tail

class Program(sinks.Instance):
    """`kafka` are properties of its Kafka client, `settings` further variables; none takes one away."""

    def __init__(self, name, run, folder, formats, options, kafka, settings):
        super().__init__(Target(name, formats, f"s3://{ENV['S3_BUCKET']}/{run}/{name}"), "a", run, folder, options)
        self.kafka, self.settings, self.pages = kafka, settings, {}

    def environment(self):
        general = {key: value for key, value in super().environment().items() if not key.startswith("AWS_")}
        settings = {"AWS_REGION": ENV["S3_REGION"]} | self.settings
        return general | {name: value for name, value in settings.items() if value is not None}

    def toml(self, known_member):
        own = [f'"{name}" = "{value}"' for name, value in self.kafka.items()]
        return super().toml(known_member) + "\n".join(own) + "\n"

    def ended(self, seconds):
        """Its exit code; none when it goes on."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def said(self):
        return self.log.read_text()

    def look(self):
        """Keeps what its pages say now."""
        for page in ("metrics", "status", "livez", "readyz"):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{page}", timeout=5) as answer:
                    self.pages[page] = answer.read()
            except OSError:
                continue

    def shut(self):
        """SIGTERM, and another one where records wait for somebody who is not let in: it ends at once then."""
        for _ in range(2):
            self.process.terminate()
            if self.ended(5) is not None:
                return
        self.process.kill()
        self.process.wait()
        raise Fail(f"{self.target.name} does not end within 5 s of a second SIGTERM; the end of {self.log}:\n{tail(self.log)}")
