"""deltalake-py's MERGE: copy on write, in a warm process."""
import pyarrow.dataset
import pyarrow.parquet
from deltalake import DeltaTable, write_deltalake
from worker import COLUMNS, KEY, base, batch, serve, timed


def table(folder):
    return f"{folder}/deltalake-py"


def create(_, folder):
    source = pyarrow.dataset.dataset(base(folder))
    return timed(lambda: write_deltalake(table(folder), source.scanner().to_reader()))


def merge(_, folder, number):
    values = {column: f"s.{column}" for column in COLUMNS}

    def work():
        source = pyarrow.parquet.read_table(batch(folder, number))
        (DeltaTable(table(folder))
            .merge(source, f"t.{KEY} = s.{KEY}", source_alias="s", target_alias="t")
            .when_matched_delete("s.op = 'd'")
            .when_matched_update(values)
            .when_not_matched_insert(values, predicate="s.op <> 'd'")
            .execute())
    return timed(work)


def where(_, folder):
    return {"delta": table(folder)}


serve({"create": create, "merge": merge, "where": where})
