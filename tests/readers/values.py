"""What a value is, whoever holds it: the source's rows and every reader's rows become Arrow columns of the same types.

A column has a kind, and each kind one exact Arrow type. Nothing is rounded on the way: a cast that would lose something fails.

| kind | compared as |
|---|---|
| `int` | 64-bit integer; a reader must give an integer |
| `bool` | boolean |
| `float`, `double` | the bits, so that -0.0 and 0.0 differ; all NaN are one |
| `decimal(p,s)` | decimal of that precision and scale |
| `text` | the text, byte for byte; uuid, enum and Postgres' json too, as the source writes them |
| `json` | the document: MySQL writes one document in several ways |
| `bytes` | the bytes |
| `date` | the day |
| `time` | microseconds since midnight: Delta has no type for it and stores that number |
| `timestamp`, `timestamptz` | microseconds; a reader must tell the two apart |
| `list<kind>` | the elements in order, nulls too |
"""
import json
import math
import struct
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

SIMPLE = {
    "int": pa.int64(), "bool": pa.bool_(), "float": pa.float32(), "double": pa.float64(), "text": pa.string(), "json": pa.string(),
    "bytes": pa.binary(), "date": pa.date32(), "time": pa.int64(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", "UTC"),
}


class Unlike(Exception):
    """A column that is not of the type its kind asks for."""


@dataclass(frozen=True)
class Field:
    name: str
    kind: str
    was: str = ""  # a narrower kind that the column had in earlier versions


def type_of(kind):
    if kind.startswith("list<"):
        return pa.list_(type_of(kind[5:-1]))
    if kind.startswith("decimal("):
        precision, scale = map(int, kind[8:-1].split(","))
        return pa.decimal128(precision, scale)
    return SIMPLE[kind]


def from_python(kind, values):
    """A column of the source from what the database's client gave."""
    return pa.array([_plain(kind, value) for value in values], type_of(kind), from_pandas=False)


def _plain(kind, value):
    if value is None:
        return None
    if kind.startswith("list<"):
        return [_plain(kind[5:-1], element) for element in value]
    if kind.startswith("decimal("):
        return Decimal(value)
    match kind:
        case "bool" if isinstance(value, bytes):  # MySQL's bit(1)
            return value != b"\0"
        case "bool":
            return bool(value)
        case "float" if math.isfinite(value):
            return struct.unpack("f", struct.pack("f", value))[0]
        case "json":
            return _document(value)
        case "text":
            return str(value)
        case "time" if isinstance(value, int):
            return value
        case "time" if hasattr(value, "total_seconds"):  # MySQL's client
            return (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds
        case "time":
            return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
    return value


def _number(text):
    """MySQL's shortest digits of a double; Debezium writes all that its binary value has, dozens of a small one."""
    exact = Decimal(text)
    return exact if len(exact.as_tuple().digits) <= 17 else Decimal(repr(float(text)))


def _document(text):
    return json.dumps(json.loads(text, parse_float=_number), sort_keys=True, default=str, ensure_ascii=False)


def from_reader(kind, column, was=""):
    """A reader's column, when it is of a type that is right for the kind, or for the one that it was."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if was and column.type == type_of(was):
        column = column.cast(type_of(kind))
    return _convert(kind, column)


def _convert(kind, column):
    held, wanted = column.type, type_of(kind)
    if kind.startswith("list<"):
        if not (pa.types.is_list(held) or pa.types.is_large_list(held)):
            raise Unlike(f"a {kind} comes as {held}")
        if not pa.types.is_null(held.value_type) and not _right(kind[5:-1], held.value_type, wanted.value_type):
            raise Unlike(f"a {kind} comes as {held}")
        return column.cast(wanted)
    if not _right(kind, held, wanted):
        raise Unlike(f"a {kind} comes as {held}")
    if kind == "time" and pa.types.is_time(held):
        return column.cast(pa.time64("us")).cast(pa.int64())
    column = column.cast(wanted)
    if kind == "json":
        return pa.array([None if value is None else _document(value) for value in column.to_pylist()], pa.string())
    return column


def _right(kind, held, wanted):
    if kind.startswith("decimal("):
        return held == wanted
    match kind:
        case "int":
            return pa.types.is_integer(held)
        case "text" | "json":
            return pa.types.is_string(held) or pa.types.is_large_string(held) or pa.types.is_string_view(held)
        case "bytes":
            return pa.types.is_binary(held) or pa.types.is_large_binary(held) or pa.types.is_binary_view(held)
        case "time":
            return held == pa.int64() or pa.types.is_time(held)
        case "timestamp" | "timestamptz":
            return pa.types.is_timestamp(held) and (held.tz is not None) == (kind == "timestamptz")
    return held == wanted


def same(kind, left, right):
    """True when two columns of a kind hold the same values in the same order."""
    return _bits(kind, left).equals(_bits(kind, right))


def unlike(kind, left, right):
    """The places where two columns of a kind differ, with both values."""
    pairs = zip(_bits(kind, left).to_pylist(), _bits(kind, right).to_pylist())
    places = [place for place, (one, other) in enumerate(pairs) if one != other]
    return [(place, left[place].as_py(), right[place].as_py()) for place in places]


def _bits(kind, column):
    if kind in ("list<float>", "list<double>"):
        element = kind[5:-1]
        return pa.array([held and _bits(element, pa.array(held, type_of(element))).to_pylist() for held in column.to_pylist()])
    if kind not in ("float", "double"):
        return column
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    named = pc.if_else(pc.is_nan(column), pa.scalar(math.nan, column.type), column)
    return named.view(pa.int32() if kind == "float" else pa.int64())
