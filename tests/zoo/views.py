"""How the types that an option changes look: the views that several columns share."""
import struct

from model import View

PLACES = "the connector cuts to milliseconds (time.precision.mode=connect)"
DOUBLE = "a double has fewer digits (decimal.handling.mode=double)"


def plain(kind, select="{}", **more):
    return View(kind, select, **more)


INT = plain("int")
TEXT = plain("text", "{}::text")
ABSENT = View("absent", loses="the connector knows no such type and leaves the column out")


def decimal(precision, scale, number="{}", text="{}::text", double="{}::double precision"):
    """Beyond 38 digits a table holds the digits as text."""
    if precision <= 38:
        exact = View("decimal(%d,%d)" % (precision, scale), number)
    else:
        exact = View("text", text)
    return (View("text", text, when={"decimal": "string"}), View("double", double, when={"decimal": "double"}, loses=DOUBLE), exact)


def octets(base64, url, hexadecimal, select="{}"):
    return (View("text", base64.format(f"({select})"), when={"binary": "base64"}), View("text", url.format(f"({select})"), when={"binary": "base64-url-safe"}),
            View("text", hexadecimal.format(f"({select})"), when={"binary": "hex"}), View("bytes", select))


def bits_of(length):
    """Bits as the lake holds them: the least significant byte first, as many as the column's length needs."""
    def convert(text):
        if text is None:
            return None
        return int(text or "0", 2).to_bytes((length + 7) // 8, "little")
    return convert


def wkb_point(x, y, srid=None):
    return wkb(1, srid) + struct.pack("<dd", x, y)


def wkb_line(*numbers, srid=None):
    return wkb(2, srid) + points(numbers)


def wkb_ring(*numbers, srid=None):
    """A polygon of one ring, whose first point comes last too."""
    return wkb(3, srid) + struct.pack("<I", 1) + points(numbers)


def wkb(kind, srid):
    """The head of well-known binary, with its reference system when it has one (PostGIS' extended form)."""
    head = struct.pack("<BI", 1, kind if srid is None else kind | 0x20000000)
    return head if srid is None else head + struct.pack("<I", srid)


def points(numbers):
    return struct.pack("<I", len(numbers) // 2) + struct.pack(f"<{len(numbers)}d", *numbers)


def ewkb(plain, srid):
    """Well-known binary with its reference system put inside."""
    order, kind = struct.unpack("<BI", plain[:5])
    assert order == 1
    return wkb(kind, srid) + plain[5:]
