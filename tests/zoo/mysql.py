"""MySQL's and MariaDB's part of the zoo."""
import struct
from datetime import timedelta

from model import Table, View, column, dead, reads, value
from views import INT, PLACES, decimal, ewkb, octets, plain

TEXT = plain("text")
ZERO = "the connector writes null for zero dates"
DEFAULT = "the connector writes the column's default for zero dates in columns that are NOT NULL"
DIGITS = "the server shows six digits of a float to the connector's initial snapshot"


def number(precision, scale):
    return decimal(precision, scale, text="CAST({} AS CHAR)", double="CAST({} AS DOUBLE)")


def bits(held):
    """The server shows the most significant byte first."""
    return held and held[::-1]


BIT = plain("bytes", convert=bits)
UNSIGNED = (View("decimal(20,0)", "{}", when={"unsigned": "precise"}), View("decimal(20,0)", "{}", when={"encoding": "json"}),
            View("int", "CAST({} AS SIGNED)", loses="the connector writes what is above 2^63-1 less 2^64 (bigint.unsigned.handling.mode=long)"))
FLOAT = plain("float", select="CAST({} AS DOUBLE)")


def six(sql, shown):
    return value(sql, reads(f"CAST({shown} AS DOUBLE)", DIGITS, stage="snapshot"))


NUMBERS = Table("numbers", (
    column("c_bool", "boolean", INT, "true", "false", "5"),
    column("c_tiny1", "tinyint(1)", INT, "1", "-128", "127"),
    column("c_tiny", "tinyint", INT, "-128", "127"),
    column("c_utiny", "tinyint unsigned", INT, "0", "255"),
    column("c_small", "smallint", INT, "-32768", "32767"),
    column("c_usmall", "smallint unsigned", INT, "0", "65535"),
    column("c_medium", "mediumint", INT, "-8388608", "8388607"),
    column("c_umedium", "mediumint unsigned", INT, "0", "16777215"),
    column("c_int", "int", INT, "-2147483648", "2147483647"),
    column("c_uint", "int unsigned", INT, "0", "4294967295"),
    column("c_zero", "int(6) zerofill", INT, "42", "4294967295"),
    column("c_big", "bigint", INT, "-9223372036854775808", "9223372036854775807"),
    column("c_ubig", "bigint unsigned", UNSIGNED, "0", "9223372036854775807", "9223372036854775808", "18446744073709551615"),
    column("c_dec", "decimal(18,4)", number(18, 4), "1.1", "-0.0001", "99999999999999.9999", "0"),
    column("c_udec", "decimal(10,2) unsigned", number(10, 2), "99999999.99", "0"),
    column("c_dec0", "decimal", number(10, 0), "1", "-9999999999"),
    column("c_dec38", "decimal(38,10)", number(38, 10), "1.5", "9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"),
    column("c_dec65", "decimal(65,30)", number(65, 30), "1.5", "-99999999999999999999999999999999999.999999999999999999999999999999", "0"),
    column("c_float", "float", FLOAT, "1.5", "-0.1", "0", six("16777216", "16777200"), six("3.4028234e38", "3.40282e38"), six("1.17549435e-38", "1.17549e-38")),
    column("c_float_ps", "float(7,3)", plain("double", select="CAST({} AS DOUBLE)"), "1.5", "-1234.125", "0.1"),
    column("c_float53", "float(53)", plain("double"), "0.1", "-1.7976931348623157e308"),
    column("c_double", "double", plain("double"), "0.1", "1.7976931348623157e308", "2.2250738585072014e-308", "-1e15", "0"),
    column("c_double_ps", "double(10,3)", plain("double"), "1.5", "-1234567.125"),
    column("c_bit", "bit(1)", plain("bool"), "b'1'", "b'0'"),
    column("c_bit9", "bit(9)", BIT, "b'101010101'", "b'0'", "b'1'"),
    column("c_bit64", "bit(64)", BIT, "b'1000000000000000000000000000000000000000000000000000000000000001'", "~0"),
    column("c_year", "year", INT, "2024", "1901", "2155",
           value("0", reads("2000", "the connector's spelling of 0000", stage="snapshot"), reads("1900", "the connector's spelling of 0000", stage="stream"))),
))

BASE64 = "REPLACE(TO_BASE64({}), '\\n', '')"
BYTES = octets(BASE64, f"REPLACE(REPLACE({BASE64}, '+', '-'), '/', '_')", "LOWER(HEX({}))")
COMMA = value("'c,d'", reads("'c\\\\,d'", "the connector writes the label as its list of labels spells it", stage="stream"))


def texts(is_mariadb):
    document = TEXT if is_mariadb else plain("json")
    return Table("texts", (
        column("c_char", "char(5)", TEXT, "'ab'", "''", "'c  '", "'ü漢😀'"),
        column("c_varchar", "varchar(50)", TEXT, "'varchar ü'", "''", "' a '", "'__debezium_unavailable'"),
        column("c_text", "text", TEXT, "'text 漢字 😀'", "''", "'tab\\t newline\\n \\\\ \"quoted\" nul\\0'", "'null'", "REPEAT('x', 60000)"),
        column("c_tinytext", "tinytext", TEXT, "'t'"),
        column("c_longtext", "longtext", TEXT, "REPEAT('ü', 70000)"),
        column("c_latin1", "varchar(20) character set latin1", TEXT, "'café'", "'€ŒÿÄ'"),
        column("c_latin1_text", "text character set latin1", TEXT, "'naïve'"),
        column("c_cp1251", "varchar(20) character set cp1251", TEXT, "'привет'"),
        column("c_greek", "varchar(20) character set greek", TEXT, "'αβγ'"),
        column("c_sjis", "varchar(20) character set sjis", TEXT, "'日本'"),
        column("c_gbk", "varchar(20) character set gbk", TEXT, "'中文'"),
        column("c_ucs2", "varchar(20) character set ucs2", TEXT, "'漢字'"),
        column("c_utf16", "varchar(20) character set utf16", TEXT, "'漢😀'"),
        column("c_utf8mb3", "varchar(20) character set utf8mb3", TEXT, "'漢字'"),
        column("c_ascii", "varchar(20) character set ascii", TEXT, "'plain'"),
        column("c_bin_text", "varchar(10) character set utf8mb4 collate utf8mb4_bin", TEXT, "'Bin'"),
        column("c_enum", "enum('a','c,d','it''s','ü漢','\"q\"','')", TEXT, "'a'", "'it''s'", "'ü漢'", "'\"q\"'", "''", COMMA),
        column("c_enum_invalid", "enum('x')", TEXT, "'x'", "'none such'"),
        column("c_set", "set('x','y z','ü')", TEXT, "'x,ü'", "''", "'x,y z,ü'"),
        column("c_json", "json", document, "'{\"a\": 1, \"b\": [true, null, 1.5, \"é😀\"]}'", "'[]'", "'\"text\"'", "'12345678901234567890'", "'{\"d\": 1.10}'", "'null'"),
        *(() if is_mariadb else (column(
            "c_json_typed", "json", document, "JSON_OBJECT('n', CAST('1.10' AS DECIMAL(10,2)))",
            "JSON_OBJECT('t', CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), 'd', DATE'2024-02-29')", "JSON_ARRAY(-0.5, 18446744073709551615)",
            value("JSON_ARRAY(TIME'-01:02:03')", reads("""'["02:0-3:0-3"]'""", "the connector misspells times below 00:00:00 in JSON while streaming", stage="stream")),
            value("JSON_ARRAY(1e100)", reads(f"'[{int(1e100)}]'", "the connector spells the double in full while streaming", stage="stream"))),)),
        column("c_binary", "binary(4)", BYTES, "x'01020304'", "x'01020000'", "x''"),
        column("c_varbinary", "varbinary(20)", BYTES, "x'00ff10'", "x''", "x'fbefbe00'"),
        column("c_tinyblob", "tinyblob", BYTES, "x'01'"),
        column("c_blob", "blob", BYTES, "x'deadbeef'", "x''", "UNHEX(REPEAT('3e3f', 100))"),
        column("c_mediumblob", "mediumblob", BYTES, "x'00'"),
        column("c_longblob", "longblob", BYTES, "UNHEX(REPEAT('00ff', 40000))"),
    ))


def cut(held):
    return held and held.replace(microsecond=held.microsecond // 1000 * 1000)


def cut_time(held):
    return None if held is None else held - timedelta(microseconds=held.microseconds % 1000)


# Times without a zone; `connect` knows milliseconds only.
MOMENT = (View("timestamp", "{}", cut, PLACES, {"time": "connect"}), View("timestamp", "{}"))
CLOCK = (View("time", "{}", cut_time, PLACES, {"time": "connect"}), View("time", "{}"))
ELAPSED = reads("NULL", "the connector writes null for times below 00:00:00 and beyond a day", time=("connect", "isostring"))
NANOS = (
    dead("too_precise", "the connector's nanoseconds run over, which leaves fractions of a microsecond", time="nanoseconds", database="mariadb"),
    reads("NULL", "the connector writes null for years before 1677 and after 2262 (time.precision.mode=nanoseconds)", time="nanoseconds"),
)


def zero(sql, *more):
    return value(sql, *more, reads("NULL", ZERO))


def times(is_mariadb):
    streamed = (reads("TIMESTAMP'1970-01-01 00:00:00'", "the connector writes 1970-01-01 for it while streaming", stage="stream"),) if is_mariadb else ()
    return Table("times", (
        column("c_date", "date", plain("date"), "'2024-02-29'", "'1000-01-01'", "'9999-12-31'", "'1582-10-04'", "'1582-10-15'", "'1969-12-31'",
               zero("'0000-00-00'"), zero("'2024-00-15'")),
        column("c_time", "time", CLOCK, "'12:34:56'", "'00:00:00'", "'23:59:59'", value("'838:59:59'", ELAPSED), value("'-838:59:59'", ELAPSED), value("'24:00:00'", reads("TIME'00:00:00'", "the connector writes 00:00:00 for it (time.precision.mode=isostring)", time="isostring"))),
        column("c_time3", "time(3)", CLOCK, "'12:34:56.789'"),
        column("c_time6", "time(6)", CLOCK, "'12:34:56.123456'", value("'-00:00:00.000001'", ELAPSED)),
        column("c_dt", "datetime", MOMENT, "'2024-02-29 12:34:56'", "'1969-12-31 23:59:59'", value("'1000-01-01 00:00:00'", *NANOS),
               value("'9999-12-31 23:59:59'", *NANOS), zero("'0000-00-00 00:00:00'"), zero("'2024-02-00 00:00:00'")),
        column("c_dt3", "datetime(3)", MOMENT, "'2024-02-29 12:34:56.123'", "'1969-12-31 23:59:59.999'"),
        column("c_dt6", "datetime(6)", MOMENT, "'2024-02-29 12:34:56.123456'", "'1969-12-31 23:59:59.999999'",
               value("'1000-01-01 00:00:00.000001'", *NANOS), value("'9999-12-31 23:59:59.999999'", *NANOS), zero("'0000-00-00 00:00:00'")),
        column("c_ts", "timestamp NULL", plain("timestamptz"), "'2024-02-29 12:34:56'", "'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", zero("'0000-00-00 00:00:00'", *streamed)),
        column("c_ts3", "timestamp(3) NULL", plain("timestamptz"), "'2024-02-29 12:34:56.123'"),
        column("c_ts6", "timestamp(6) NULL", plain("timestamptz"), "'2024-02-29 12:34:56.123456'", "'2038-01-19 03:14:07.999999'"),
        column("c_date_nn", "date NOT NULL DEFAULT '2024-01-01'", plain("date"), "'2024-02-29'", value("'0000-00-00'", reads("DATE'2024-01-01'", DEFAULT))),
        column("c_dt_nn", "datetime NOT NULL DEFAULT '2024-01-01'", MOMENT, "'2024-02-29 12:34:56'",
               value("'0000-00-00'", reads("TIMESTAMP'2024-01-01 00:00:00'", DEFAULT))),
    ))


def geometry(raw):
    """The server's own form: the reference system, then well-known binary."""
    return raw and ewkb(raw[4:], struct.unpack("<I", raw[:4])[0] or None)


SHAPE = plain("bytes", convert=geometry)


def others(is_mariadb):
    own = (
        column("c_uuid", "uuid", plain("text"), "'A0EEBC99-9c0b-4ef8-bb6d-6bb9bd380a11'"),
    ) if is_mariadb else (
        column("c_vector", "vector(3)", plain("list<float>", select="HEX({})", convert=lambda held: held and struct.unpack("<3f", bytes.fromhex(held))), "STRING_TO_VECTOR('[1,2.5,-3]')",
               "STRING_TO_VECTOR('[0.1,1e-30,3.4028235e38]')"),
        column("c_srid", "point srid 4326", SHAPE, "ST_SRID(POINT(1.5, -2.5), 4326)"),
    )
    return Table("others", (
        column("c_point", "point", SHAPE, "ST_GeomFromText('POINT(1.5 -2.5)')", "ST_GeomFromText('POINT(0 0)')"),
        column("c_line", "linestring", SHAPE, "ST_GeomFromText('LINESTRING(0 0,1 1,2 0)')"),
        column("c_polygon", "polygon", SHAPE, "ST_GeomFromText('POLYGON((0 0,1 1,2 0,0 0))')"),
        column("c_multipoint", "multipoint", SHAPE, "ST_GeomFromText('MULTIPOINT(0 0,1 1)')"),
        column("c_multipolygon", "multipolygon", SHAPE, "ST_GeomFromText('MULTIPOLYGON(((0 0,1 1,2 0,0 0)))')"),
        column("c_collection", "geometrycollection", SHAPE, "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')"),
        column("c_geometry", "geometry", SHAPE, "ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('LINESTRING(0 0,1 1)')"),
        column("c_base", "int", INT, "21", "-1"),
        column("c_stored", "int GENERATED ALWAYS AS (c_base * 2) STORED", INT),
        column("c_virtual", "int GENERATED ALWAYS AS (c_base * 3) VIRTUAL", INT),
        *own,
    ))


def tables(is_mariadb):
    return NUMBERS, texts(is_mariadb), times(is_mariadb), others(is_mariadb)


VARIANTS = {
    "1": {"decimal": "string", "time": "connect", "binary": "base64", "unsigned": "precise"},
    "2": {"decimal": "double", "time": "isostring", "binary": "hex"},
    "3": {"time": "microseconds", "binary": "base64-url-safe"},
    "4": {"time": "nanoseconds"},
}
