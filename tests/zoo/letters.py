"""The dead letters that cdc-sink wrote: of which row, for which reason, and what it says of the column."""
import json
import re
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition

from stack import ENV


@dataclass(frozen=True)
class Found:
    topic: str
    row: int
    reason: str
    column: str
    message: str


def records(topic, partition):
    """Every record of a partition, as the client gives them."""
    consumer = Consumer({"bootstrap.servers": ENV["BROKERS"], "group.id": "zoo-observer", "enable.auto.commit": False, "fetch.message.max.bytes": 8_388_608})
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=15)
        consumer.assign([TopicPartition(topic, partition, first)])
        read = first
        while read < end:
            record = consumer.poll(15)
            if record is None or record.error():
                raise RuntimeError(f"{topic}[{partition}] at {read} of {end}: {record and record.error()}")
            read = record.offset() + 1
            yield record
    finally:
        consumer.close()


def row_of(key):
    """The number in a record's key `id`: in JSON, with a schema or without, or as Avro's long after the schema's number."""
    if key[:1] == b"\0":
        number = 0
        for place, byte in enumerate(key[5:]):
            number |= (byte & 127) << 7 * place
        return number >> 1 ^ -(number & 1)
    held = json.loads(key)
    return held.get("payload", held)["id"]


def dead_letters(topic):
    """A letter may come twice when the brokers' answer was lost: the place of its record tells."""
    found = {}
    for record in records(topic, 0):
        headers = {name: (value or b"").decode() for name, value in record.headers()}
        place = tuple(headers[f"__connect.errors.{part}"] for part in ("topic", "partition", "offset"))
        message = headers["__connect.errors.exception.message"]
        column = re.search(r"column (\S+)", message)
        found[place] = Found(place[0], row_of(record.key()), headers["cdc_sink.reason"], column[1] if column else "", message)
    return list(found.values())
