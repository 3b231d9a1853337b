"""Whether something secret is in what was written: searched as it is and, in files that are packed, in what they hold."""
import base64
from io import BytesIO
from urllib.parse import quote

import fastavro
import pyarrow.parquet as pq


def forms(secrets):
    """By name, each as it could show: plain, in a URL, in base64 at any place of a longer text."""
    return {name: {form for form in (secret.encode(), quote(secret, safe="").encode(), *packed(secret.encode())) if form}
            for name, secret in secrets.items()}


def packed(secret):
    """What is the same in base64 wherever the secret begins: all but the letters at its ends."""
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret)
        yield text[4 if before else 0:-4]


def unpacked(path, data):
    """What a reader of the file sees, as text."""
    if path.endswith(".parquet"):
        file = pq.ParquetFile(BytesIO(data))
        return f"{file.metadata.metadata} {file.schema_arrow} {file.read().to_pylist()}"
    if path.endswith(".avro"):
        reader = fastavro.reader(BytesIO(data))
        return f"{reader.metadata} {list(reader)}"
    return ""


def found(where, data, searched):
    """Names of secrets in it."""
    text = data + unpacked(where, data).encode()
    return [f"{where} has the {name}" for name, each in searched.items() if any(form in text for form in each)]
