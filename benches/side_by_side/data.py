"""Makes the rows that every table starts with and the batches, as Parquet files."""
import duckdb
from worker import base, batch, serve

ROW = """id, 'name-{k}-' || id AS name, 'u' || id || '.{k}@example.com' AS email,
    '+1-555-' || lpad(((id * 7919 + {k}) % 10000000)::text, 7, '0') AS phone,
    ['Berlin', 'Paris', 'Madrid', 'Rome', 'Oslo', 'Wien', 'Prag', 'Kyiv'][id % 8 + 1] AS city,
    ['new', 'active', 'blocked'][(id + {k}) % 3 + 1] AS status,
    (((id * 37 + {k}) % 1000000) / 100)::decimal(18, 2) AS balance,
    make_timestamp(1700000000000000 + id * 1000 + {k}) AT TIME ZONE 'UTC' AS updated_at"""


def row(k):
    return ROW.format(k=k)


def data(folder, rows, batches):
    rows, batches = int(rows), int(batches)
    session = duckdb.connect()
    # A query that takes long would write its progress to standard output.
    session.execute("SET enable_progress_bar = false")
    session.execute("SET TimeZone = 'UTC'")
    base(folder).mkdir()
    parts = max(1, rows // 1_000_000)
    for part in range(parts):
        first, last = rows * part // parts, rows * (part + 1) // parts
        session.execute(f"COPY (SELECT {row(0)} FROM range({first}, {last}) t(id)) TO '{base(folder)}/{part:03}.parquet'")
    for k in range(1, batches + 1):
        # A deleted key is never one that is updated, nor one that another batch deletes.
        step, deleted = rows // 5000, rows // 1000
        session.execute(f"""COPY (
            SELECT {row(k)}, 'u' AS op FROM (SELECT i * {step} + {k} AS id FROM range(5000) t(i))
            UNION ALL
            SELECT {row(k)}, 'c' AS op FROM (SELECT {rows + (k - 1) * 4000} + i AS id FROM range(4000) t(i))
            UNION ALL
            SELECT {row(k)}, 'd' AS op FROM (SELECT i * {deleted} + {deleted - k} AS id FROM range(1000) t(i))
            ) TO '{batch(folder, k)}'""")
        changes = session.execute(f"SELECT count(*), count(DISTINCT id) FROM '{batch(folder, k)}'").fetchone()
        assert changes == (10_000, 10_000), changes


serve({"data": data})
