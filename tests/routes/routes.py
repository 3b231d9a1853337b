"""The ways that records take from a table to a topic: transformations of the connectors, and what the sink's tables must hold."""
from dataclasses import dataclass, field

from values import Field

TRANSFORM = "transforms.way"
CONNECT = "org.apache.kafka.connect"
STRING = {f"{part}.converter": f"{CONNECT}.storage.StringConverter" for part in ("key", "value")}


def transform(name, **options):
    found = {"transforms": "way", f"{TRANSFORM}.type": f"io.debezium.transforms.{name}"}
    return found | {f"{TRANSFORM}.{key.replace('_', '.')}": value for key, value in options.items()}


@dataclass(frozen=True)
class Route:
    """`topic`, and the SQL that says what its table must hold. `counted` names the source's table, and how many records a deleted row makes."""

    name: str
    suffix: str
    encoding: str
    tables: str
    topic: str
    select: str
    fields: tuple
    counted: tuple
    key: tuple = ("id",)
    config: dict = field(default_factory=dict)
    events: bool = False
    named: str = ""


def fields(**kinds):
    return tuple(Field(name, kind) for name, kind in kinds.items())


EVENT = {"event_id": "text", "aggregate_id": "text", "eventType": "text"}
EVENT_SQL = 'id::text AS event_id, aggregateid AS aggregate_id, type AS "eventType"'
FLAT = (*fields(id="int", name="text", qty="int"), Field("a.B", "text"))
FLAT_SQL = 'SELECT id, name, qty, "a.B" FROM {s}.flat'


def router(**more):
    options = {"route_topic_replacement": "{p}.{run}.told_${routedByValue}", "table_fields_additional_placement": "type:header:eventType"}
    return transform("outbox.EventRouter", **options, **more)


def flattened(mode, **more):
    return transform("ExtractNewRecordState", delete_tombstone_handling_mode=mode, **more)


ROUTES = (
    Route("published by its root", "s0", "json-schema", "parted", "{p}.{run}.parted", "SELECT id, region, name FROM {s}.parted",
          fields(id="int", region="text", name="text"), ("parted", 0), ("id", "region"), {"publish.via.partition.root": "true"}),
    Route("a dot in the table's name", "s0", "json-schema", r"odd\.Table", "{p}.{run}.odd.Table",
          'SELECT id, name, qty, "a.B" FROM {s}."odd.Table"', FLAT, ("odd.Table", 2), config={"publish.via.partition.root": "true"},
          named="{p}_{run}.odd_x2eTable"),
    Route("leaves by ByLogicalTableRouter", "a1", "avro", "leafy_.", "{p}.{run}.leafy",
          'SELECT id, tableoid::regclass::text AS "__dbz__physicalTableIdentifier", region, name FROM {s}.leafy',
          fields(id="int", __dbz__physicalTableIdentifier="text", region="text", name="text"), ("leafy", 0),
          ("id", "__dbz__physicalTableIdentifier"),
          transform("ByLogicalTableRouter", topic_regex=r"(.*)\.leafy_.", topic_replacement="$1.leafy",
                    key_field_regex=r"[^.]*\.(.*)", key_field_replacement="$1")),
    Route("leaves by ToLogicalTopicRouter", "j2", "json", "leafy_.", "{p}.{run}.leafy",
          'SELECT id, tableoid::regclass::text AS "__dbz__sourceIdentifier", region, name FROM {s}.leafy',
          fields(id="int", __dbz__sourceIdentifier="text", region="text", name="text"), ("leafy", 0), ("id", "__dbz__sourceIdentifier"),
          transform("ToLogicalTopicRouter", topic_regex=r"(.*)\.leafy_.", topic_replacement="$1.leafy",
                    key_field_regex=r"[^.]*\.(.*)", key_field_replacement="$1")),
    Route("events as text in JSON", "s3", "json-schema", "outbox", "{p}.{run}.told_order", f"SELECT {EVENT_SQL}, payload::text AS payload FROM {{s}}.events",
          fields(**EVENT, payload="text"), ("outbox", 0), ("event_id",), router(route_tombstone_on_empty_payload="true"), events=True),
    Route("events with a schema in Avro", "a4", "avro", "outbox", "{p}.{run}.told_order",
          f"SELECT {EVENT_SQL}, (payload->>'total')::int AS total, payload->>'note' AS note, payload->>'deep' AS deep, "
          "CASE WHEN payload IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(payload->'lines')::int) END AS lines FROM {s}.events",
          fields(**EVENT, total="int", note="text", lines="list<int>", deep="json"), ("outbox", 0), ("event_id",),
          router(table_expand_json_payload="true"), events=True),
    Route("events as they are", "j5", "json", "outbox", "{p}.{run}.told_order", f"SELECT {EVENT_SQL}, payload::text AS payload FROM {{s}}.events",
          fields(**EVENT, payload="text"), ("outbox", 0), ("event_id",), router() | STRING, events=True),
    Route("the outbox's own table", "s6", "json-schema", "outbox", "{p}.{run}.outbox",
          "SELECT id, aggregatetype, aggregateid, type, payload::text AS payload FROM {s}.events",
          fields(id="text", aggregatetype="text", aggregateid="text", type="text", payload="text"), ("outbox", 2), events=True),
    Route("an initial snapshot taken again", "a10", "avro", "again", "{p}.{run}.again", FLAT_SQL.replace(".flat", ".again").replace('"a.B"', '"a.B" AS "a_B"'),
          (*FLAT[:3], Field("a_B", "text")), ("again", 2)),
    Route("flattened, rewrite", "s7", "json-schema", "flat", "{p}.{run}.flat", FLAT_SQL, FLAT, ("flat", 1),
          config=flattened("rewrite", add_fields="op,lsn,source.ts_us")),
    Route("flattened, tombstone", "a8", "avro", "flat", "{p}.{run}.flat", 'SELECT id, name, qty, "a.B" AS "a_B" FROM {s}.flat',
          (*FLAT[:3], Field("a_B", "text")), ("flat", 1),
          config=flattened("tombstone", add_headers="op")),
    Route("flattened, delete-to-tombstone", "j9", "json", "flat", "{p}.{run}.flat", FLAT_SQL, FLAT, ("flat", 1),
          config=flattened("delete-to-tombstone")),
)
