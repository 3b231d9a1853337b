"""PyIceberg, from a metadata file: for tables without a catalog, or with one that serves the current snapshot only."""
from pyiceberg.table import StaticTable

from py_iceberg import keys


class Reader:
    def __init__(self, lake):
        self.keys = keys(lake)

    def read(self, where, version):
        return StaticTable.from_metadata(version["metadata"], self.keys).scan(snapshot_id=version["version"]).to_arrow()
