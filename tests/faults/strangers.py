"""Somebody else who rewrites a table's data files and leaves its rows as they are: deltalake's OPTIMIZE, and the same for Iceberg by PyIceberg."""
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, _dataframe_to_data_files

from delta_rs import storage_options
from py_iceberg import keys
from stack import ENV, lake

# Files that are rewritten at a time, of Iceberg tables.
FILES = 4


def optimize(url):
    """True when it did; false when there is nothing to do, or somebody else was faster."""
    try:
        return DeltaTable(url, storage_options=storage_options(lake())).optimize.compact()["numFilesAdded"] > 0
    except (DeltaError, TableNotFoundError):
        return False


def rewrite(namespace, name):
    """The same: some files, without the rows that are deleted in them, become one."""
    try:
        table = load_catalog("lake", type="rest", uri=ENV["ICEBERG_REST"], **keys(lake())).load_table(f"{namespace}.{name}")
    except NoSuchTableError:
        return False
    # A plan that somebody else's commit came before is not to be committed after it.
    table.metadata.properties["commit.retry.num-retries"] = "0"
    tasks = list(table.scan().plan_files())[:FILES]
    if len(tasks) < 2:
        return False
    rows = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
    files = list(_dataframe_to_data_files(table.metadata, rows, table.io)) if rows.num_rows else []
    try:
        with table.transaction() as transaction, transaction.update_snapshot().overwrite() as snapshot:
            for task in tasks:
                snapshot.delete_data_file(task.file)
            for file in files:
                snapshot.append_data_file(file)
    except (CommitFailedException, ValidationException):
        return False
    return True
