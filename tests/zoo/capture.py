"""Writes the records of a run as fixtures: the format is described in tests/fixtures/README.md."""
import base64
import json
from collections import defaultdict

import zstandard

from letters import records
from stack import ENV, http


def text(octets):
    return None if octets is None else base64.b64encode(octets).decode()


def as_line(record, is_avro):
    line = {"topic": record.topic(), "partition": record.partition(), "offset": record.offset(), "timestamp": record.timestamp()[1],
            "headers": [[name, text(value)] for name, value in record.headers()] if record.headers() else None}
    for name, octets in (("key", record.key()), ("value", record.value())):
        if is_avro:
            line[f"{name}_b64"] = text(octets)
        else:
            line[name] = None if octets is None else octets.decode()
    return line


def schemas(found):
    """What the registry says of the schemas that the records name."""
    numbers = {int.from_bytes(base64.b64decode(line[name])[1:5], "big") for line in found for name in ("key_b64", "value_b64") if line[name]}
    by_id = {number: http("GET", f"{ENV['REGISTRY']}/schemas/ids/{number}") for number in sorted(numbers)}
    topics = {line["topic"] for line in found}
    return {"schemas_by_id": by_id, "subjects": sorted(f"{topic}-{part}" for topic in topics for part in ("key", "value"))}


def capture(folder, kind, connectors, topics):
    """A file for each encoding, one for the connector's other modes, and Avro's schemas."""
    folder.mkdir(parents=True, exist_ok=True)
    files = defaultdict(list)
    for connector in connectors:
        name = f"{kind}-{'modes' if connector.variant else connector.encoding}"
        for topic, partition in sorted(topics):
            if topic.startswith(f"{connector.prefix}."):
                files[name] += [as_line(record, connector.encoding == "avro") for record in records(topic, partition)]
    for name, lines in files.items():
        write(folder / f"{name}.jsonl.zst", "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines))
    if avro := files.get(f"{kind}-avro"):
        write(folder / f"{kind}-avro-schemas.json.zst", json.dumps(schemas(avro), indent=0))


def write(path, content):
    path.write_bytes(zstandard.compress(content.encode(), 19))
