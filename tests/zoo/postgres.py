"""Postgres' part of the zoo."""
import base64
import json
import re

from model import Table, View, column, dead, reads, value
from views import ABSENT, INT, PLACES, TEXT, bits_of, decimal, octets, plain, wkb_line, wkb_point, wkb_ring

RANGE = "tables hold the years 1 to 9999, which every reader can show"
INFINITE = "no table has infinite times"
SIGN = "the connector loses the sign of years before 1 in its initial snapshot"

# Types that the columns below need; run in the schema of the run.
SETUP = (
    *(f"CREATE EXTENSION IF NOT EXISTS {name} SCHEMA public" for name in ("hstore", "citext", "ltree")),
    "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s, fine', 'glücklich')", "CREATE DOMAIN posint AS integer CHECK (VALUE > 0)",
    "CREATE DOMAIN price AS numeric(12,2)", "CREATE TYPE pair AS (a int, b text)",
)

NAN = value("'NaN'", reads("NULL", "the connector writes null for NaN (decimal.handling.mode=precise)", decimal="precise"),
            reads("'NAN'", "the connector's spelling", decimal="string"))


def infinite(sign, spelling):
    return value(f"'{sign}Infinity'", reads("NULL", "the connector writes null for infinity (decimal.handling.mode=precise)", decimal="precise"),
                 reads(f"'{spelling}_INFINITY'", "the connector's spelling", decimal="string"))


FREE = (View("text", "trim_scale({})::text", when={"decimal": "precise"}), *decimal(50, 0))
MONEY = decimal(38, 2, "{}::numeric(38,2)", "{}::numeric(38,2)::text", "{}::numeric::double precision")

NUMBERS = Table("numbers", (
    column("c_smallint", "smallint", INT, "-32768", "32767", "0"),
    column("c_int", "integer", INT, "-2147483648", "2147483647"),
    column("c_big", "bigint", INT, "-9223372036854775808", "9223372036854775807"),
    column("c_oid", "oid", plain("int", "{}::bigint"), "1", "4294967295"),
    column("c_bool", "boolean", plain("bool"), "true", "false"),
    column("c_real", "real", plain("float"), "1.5", "0.1", "'-0'", "3.4028235e38", "1e-45", "'NaN'", "'Infinity'", "'-Infinity'"),
    column("c_double", "double precision", plain("double"), "1.5", "0.1", "'-0'", "1.7976931348623157e308", "5e-324", "'NaN'", "'Infinity'", "'-Infinity'"),
    column("c_num", "numeric(18,4)", decimal(18, 4), "1.1", "-0.0001", "99999999999999.9999", "0", NAN),
    column("c_num0", "numeric(10,0)", decimal(10, 0), "1", "-9999999999"),
    column("c_num38", "numeric(38,10)", decimal(38, 10), "1.5", "9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
    column("c_num38_38", "numeric(38,38)", decimal(38, 38), "0.1", "-0.99999999999999999999999999999999999999"),
    column("c_num45", "numeric(45,10)", decimal(45, 10), "1.5", "-99999999999999999999999999999999999.0000000001"),
    column("c_num_neg", "numeric(5,-2)", (View("text", "{}::text || '.' || repeat('0', 2046)", loses="the connector misreads the scale as 2046", when={"decimal": "string"}), *decimal(7, 0)), "12300", "-9999900", "0"),
    column("c_num_small", "numeric(3,5)", decimal(5, 5), "0.00123", "-0.00999"),
    column("c_num_free", "numeric", FREE, "1.5", "12345678901234567890.123456789", "-0.000000000000000000001", "1e30", "1.1000", "0", "1e100", NAN,
           infinite("", "POSITIVE"), infinite("-", "NEGATIVE")),
    column("c_money", "money", MONEY, "1234.5", "-1234.56", "'-92233720368547758.08'", "'92233720368547758.07'"),
    column("c_domain", "posint", INT, "5", "2147483647"),
    column("c_price", "price", decimal(12, 2), "1.10", "-9999999999.99"),
))

BASE64 = "replace(encode({}, 'base64'), E'\\n', '')"
URL = f"translate({BASE64}, '+/', '-_')"


def bits(length, **more):
    return View("bytes", "{}::text", bits_of(length), **more)


TEXTS = Table("texts", (
    column("c_char", "char(6)", plain("text"), "'ab'", "''", "'ü漢😀'"),
    column("c_bpchar", "bpchar", plain("text", "{}::bpchar"), "'ab '"),
    column("c_varchar", "varchar(40)", TEXT, "'varchar ü'", "''", "' a '", "'__debezium_unavailable'"),
    column("c_text", "text", TEXT, "'text 漢字 😀'", "''", "E'tab\\t newline\\n \\\\ \"quoted\" ''single'' \\u0001 \\u2028'", "'null'", "'NaN'", "repeat('x', 70000)"),
    column("c_name", "name", TEXT, value("'pg_catalog'", reads("NULL", "the connector writes null for values of type name while streaming", stage="stream"))),
    column("c_citext", "citext", TEXT, "'CiText'", "'citext'"),
    column("c_bytea", "bytea", octets(BASE64, URL, "encode({}, 'hex')"), "'\\x00ff10'", "'\\x'", "'\\xfbefbe'", "decode(repeat('3e3f', 100), 'hex')"),
    column("c_bit", "bit(1)", plain("bool", "{}::int = 1"), "B'1'", "B'0'"),
    column("c_bit8", "bit(8)", bits(8), "B'10110011'", "B'00000001'", "B'00000000'"),
    column("c_bit64", "bit(64)", bits(64), "B'1000000000000000000000000000000000000000000000000000000000000001'", "repeat('1', 64)::bit(64)"),
    column("c_varbit", "varbit(20)", bits(20, loses="the length of each value; leading zeros"), "B'1011001110'", "B''", "B'1'", "B'0001'"),
    column("c_uuid", "uuid", plain("text", "{}::text"), "'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'",
           "'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    column("c_json", "json", plain("text", "{}::text"), "'{\"a\": 1,  \"b\":[true,null], \"a\":2}'", "'\"text\"'", "'null'", "'12345678901234567890.10'", "'[]'"),
    column("c_jsonb", "jsonb", plain("text", "{}::text"), "'{\"z\":1.10,\"a\":\"x ü 😀\"}'", "'null'", "'\"\"'", "'1e100'"),
    column("c_xml", "xml", TEXT, "'<r a=\"1\">t &amp; ü</r>'", "'plain'"),
    column("c_enum", "mood", TEXT, "'sad'", "'it''s, fine'", "'glücklich'"),
    column("c_ltree", "ltree", TEXT, "'top.sci.astro'", "''"),
    column("c_tsvector", "tsvector", TEXT, "'a fat:2A cat'", "''"),
    column("c_hstore", "hstore", plain("json", "hstore_to_json({})::text"), "'k1=>v1, k2=>NULL'", "''", "'\"a\\\"b\"=>\"ü 😀\", \"\"=>\"\"'"),
))


def moment(kind, cut="{}"):
    """Times without a zone; `cut` is for `connect`, which knows milliseconds only."""
    return (View(kind, cut, loses=PLACES, when={"time": "connect"}), View(kind, "{}"))


MICROS = "(extract(epoch from {}) * 1000000)::bigint"
CLOCK = (View("time", f"{MICROS} / 1000 * 1000", loses=PLACES, when={"time": "connect"}), View("time", MICROS))


MIDNIGHT = value("'24:00:00'", reads("0", "the connector writes 00:00:00 for it (time.precision.mode=isostring)", time="isostring"), dead("time_out_of_range", "Iceberg's time ends before 24:00:00", target="iceberg-v3"))


FAR = reads("NULL", "the connector writes null for years before 1677 and after 2262 (time.precision.mode=nanoseconds)", time="nanoseconds")


def infinity(sign):
    return value(f"'{sign}infinity'", dead("infinite", INFINITE))


def outside(sql, *more):
    return value(f"'{sql}'", *more, dead("year_out_of_range", RANGE))


TIMES = Table("times", (
    column("c_date", "date", moment("date"), "'2024-02-29'", "'0001-01-01'", "'9999-12-31'", "'1969-12-31'",
           value("'1582-10-10'", reads("date '1582-10-20'", "the connector reads days that Julius' and Gregory's calendars count twice ten days late", stage="snapshot")),
           infinity(""), infinity("-"),
           outside("10000-01-01"), outside("0044-03-15 BC", reads("date '0044-03-15'", SIGN, stage="snapshot"))),
    column("c_time", "time", CLOCK, "'23:59:59.999999'", "'00:00:00'", "'12:00:00.1'", MIDNIGHT),
    column("c_time3", "time(3)", CLOCK, "'01:02:03.004'", "'00:00:00'", MIDNIGHT),
    column("c_time0", "time(0)", CLOCK, "'01:02:03'"),
    column("c_timetz", "timetz", plain("text", "({} at time zone 'UTC')::time::text || 'Z'",
                                       loses="the connector shifts it to UTC"),
           "'10:11:12.123456+05:30'", "'23:00:00-05'", "'00:00:00+00'"),
    column("c_ts", "timestamp", moment("timestamp", "date_trunc('milliseconds', {})"), "'2024-02-29 12:34:56.123456'", "'1970-01-01'",
           "'1969-12-31 23:59:59.999999'", "'1900-01-01'", value("'0001-01-01'", FAR), value("'9999-12-31 23:59:59.999999'", FAR), infinity(""), infinity("-"),
           outside("10000-01-01", FAR), outside("0044-03-15 12:00:00 BC", FAR), outside("294276-12-31 23:59:59.999999", FAR)),
    column("c_ts3", "timestamp(3)", moment("timestamp"), "'2024-02-29 12:34:56.123'", "'1969-12-31 23:59:59.999'", infinity("")),
    column("c_ts0", "timestamp(0)", moment("timestamp"), "'2024-02-29 12:34:56'"),
    column("c_tstz", "timestamptz", plain("timestamptz"), "'2024-02-29 12:34:56.123456+02'", "'1969-12-31 23:59:59.999999+00'", "'0001-01-01 00:00:00+00'",
           "'9999-12-31 23:59:59.999999+00'", infinity(""), infinity("-"), outside("10000-01-01 00:00:00+00"), outside("0044-03-15 12:00:00+00 BC"),
           outside("294276-12-31 23:59:59.999999+00")),
    column("c_tstz3", "timestamptz(3)", plain("timestamptz"), "'2024-02-29 12:34:56.123+02'"),
    column("c_interval", "interval", (
        View("text", "CASE WHEN {0} IS NOT NULL THEN format('P%sY%sM%sDT%sH%sM%sS', extract(year from {0}), extract(month from {0}), extract(day from {0}), extract(hour from {0}), "
                     "extract(minute from {0}), trim_scale(extract(second from {0}))) END", when={"interval": "string"}),
        View("int", "((extract(year from {0}) * 12 + extract(month from {0})) * 2629800000000 + extract(day from {0}) * 86400000000"
                    " + extract(hour from {0}) * 3600000000 + extract(minute from {0}) * 60000000 + extract(microseconds from {0}))::bigint",
             loses="the connector counts a month as 30.4375 days (interval.handling.mode=numeric)")),
        "'1 year 2 mons 3 days 04:05:06.789'", "'-1 mons -2 days -03:00:00'", "'0'",
        "'36:00:00'", "'-00:00:00.000001'"),
))


def listed(name, sql, kind, *values, select="{}", **more):
    return column(name, sql, View(f"list<{kind}>", select, **more), *values)


ARRAYS = Table("arrays", (
    listed("a_int", "int[]", "int", "'{1,NULL,3}'", "'{}'"),
    listed("a_big", "bigint[]", "int", "'{-9223372036854775808,9223372036854775807}'", "'{NULL}'"),
    listed("a_small", "smallint[]", "int", "'{-1,2}'"),
    listed("a_bool", "bool[]", "bool", "'{t,f,NULL}'"),
    listed("a_real", "real[]", "float", "'{1.5,NaN,-Infinity,-0}'"),
    listed("a_double", "double precision[]", "double", "'{0.1,NULL,NaN}'"),
    column("a_num", "numeric(10,2)[]", (View("list<text>", "{}::text[]", when={"decimal": "string"}),
                                        View("list<double>", "{}::double precision[]", when={"decimal": "double"}),
                                        View("list<decimal(10,2)>", "{}")), "'{1.10,-2.25,NULL}'"),
    listed("a_text", "text[]", "text", "'{a,\"b,c\",NULL,\"\",\"null\",ü😀}'", "'{}'"),
    listed("a_varchar", "varchar(5)[]", "text", "'{ab,NULL}'"),
    listed("a_char", "char(3)[]", "text", "'{ab,NULL}'"),
    listed("a_uuid", "uuid[]", "text", "'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}'", select="{}::text[]"),
    listed("a_json", "json[]", "text", "array['{\"a\": 1}', NULL]::json[]", select="{}::text[]"),
    listed("a_jsonb", "jsonb[]", "text", "array['{\"a\": 1.10}', 'null']::jsonb[]", select="{}::text[]"),
    listed("a_inet", "inet[]", "text", "'{10.0.0.0/8,fe80::/10}'", select="{}::text[]"),
    listed("a_enum", "mood[]", "text", "'{sad,\"it''s, fine\"}'", select="{}::text[]"),
    listed("a_date", "date[]", "date", "'{2024-02-29,NULL}'"),
    listed("a_ts", "timestamp[]", "timestamp", "'{\"2024-01-01 00:00:00\",\"2024-01-01 00:00:00.5\"}'"),
    listed("a_tstz", "timestamptz[]", "timestamptz", "'{\"2024-01-01 00:00:00+02\",NULL}'"),
    column("a_bytea", "bytea[]", (*(View("list<text>", f"(SELECT array_agg({spelled.format('x')} ORDER BY n) FROM unnest({{}}) WITH ORDINALITY AS u(x, n))",
                                         when={"binary": mode}) for mode, spelled in (("base64", BASE64), ("base64-url-safe", URL), ("hex", "encode({}, 'hex')"))),
                                   View("list<bytes>", "{}")), "array['\\x00ff', NULL]::bytea[]"),
    listed("a_int2", "int[][]", "int", value("'{{1,2},{3,4}}'", reads("'{NULL,NULL}'::int[]", "the connector writes nulls for arrays in arrays"))),
))

def shape(make, **more):
    return View("bytes", "{}::text", lambda text: text and make(*map(float, re.findall(r"[-+.0-9e]+", text))), **more)


def corners(right, top, left, bottom):
    return right, top, right, bottom, left, bottom, left, top, right, top


def circle(text):
    if text is None:
        return None
    x, y, radius = map(float, re.findall(r"[-+.0-9e]+", text))
    center = {"x": x, "y": y, "wkb": base64.b64encode(wkb_point(x, y)).decode(), "srid": None}
    return json.dumps({"center": center, "radius": radius})


def line(text):
    return text and json.dumps(dict(zip("abc", map(float, re.findall(r"[-+.0-9e]+", text)))))


OTHERS = Table("others", (
    column("c_inet", "inet", plain("text", "nullif(format('%s', {}), '')"), "'192.168.1.5/24'", "'10.0.0.0/8'", "'::1'"),
    column("c_cidr", "cidr", TEXT, "'10.0.0.0/8'", "'2001:db8::/32'"),
    column("c_mac", "macaddr", TEXT, "'08:00:2B:01:02:03'"),
    column("c_mac8", "macaddr8", TEXT, "'08:00:2b:01:02:03:04:05'"),
    column("c_int4range", "int4range", TEXT, "'[1,10)'", "'empty'", "'(,)'"),
    column("c_int8range", "int8range", TEXT, "'[1,10]'"),
    column("c_numrange", "numrange", TEXT, "'[1.10,2.5)'"),
    column("c_daterange", "daterange", TEXT, "'[2024-01-01,2024-02-01)'", "'[2024-01-01,infinity)'"),
    column("c_tsrange", "tsrange", TEXT, "'[2024-01-01,)'"),
    column("c_tstzrange", "tstzrange", TEXT, "'[\"2024-01-01 00:00:00+00\",)'"),
    column("c_multi", "int4multirange", ABSENT, "'{[1,3),[5,9)}'", "'{}'"),
    column("c_datemulti", "datemultirange", ABSENT, "'{[2024-01-01,2024-02-01)}'"),
    column("c_point", "point", shape(wkb_point), "'(1.5,-2.5)'", "'(0,0)'"),
    column("c_box", "box", shape(lambda *ends: wkb_ring(*corners(*ends))), "'(1,2.5),(0,-1)'"),
    column("c_lseg", "lseg", shape(wkb_line), "'[(0,0),(1.5,1)]'"),
    column("c_path", "path", shape(wkb_line, loses="whether it is closed"), "'[(0,0),(1,1),(2,0)]'"),
    column("c_polygon", "polygon", shape(lambda *points: wkb_ring(*points, *points[:2])), "'((0,0),(1,1),(2,0))'"),
    column("c_circle", "circle", View("json", "{}::text", circle), "'<(0,0.5),1>'"),
    column("c_line", "line", View("json", "{}::text", line), "'{1,-1,2.5}'"),
    column("c_base", "int", INT, "21", "-1"),
    column("c_stored", "int GENERATED ALWAYS AS (c_base * 2) STORED", INT, streamed="NULL"),
    column("c_virtual", "int GENERATED ALWAYS AS (c_base * 3) VIRTUAL", INT, streamed="NULL"),
    column("c_pair", "pair", ABSENT, "'(1,x)'"),
    column("c_lsn", "pg_lsn", ABSENT, "'16/B374D848'"),
    column("c_tsquery", "tsquery", ABSENT, "'fat & rat'"),
    column("c_jsonpath", "jsonpath", ABSENT, "'$.a'"),
    column("c_xid8", "xid8", ABSENT, "'42'"),
))

TABLES = (NUMBERS, TEXTS, TIMES, ARRAYS, OTHERS)
VARIANTS = {
    "1": {"decimal": "string", "time": "connect", "binary": "base64", "interval": "string", "hstore": "map"},
    "2": {"decimal": "double", "time": "isostring", "binary": "hex"},
    "3": {"time": "adaptive_time_microseconds", "binary": "base64-url-safe", "hstore": "map"},
    "4": {"time": "microseconds", "interval": "string"},
    "5": {"time": "nanoseconds"},
}
