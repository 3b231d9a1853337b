"""DuckDB on Iceberg, from a metadata file: for catalogs that serve the current snapshot only."""
import duck


class Reader:
    def __init__(self, lake):
        self.connection = duck.connect(lake)

    def read(self, where, version):
        return self.connection.execute(f"SELECT * FROM iceberg_scan('{version['metadata']}', snapshot_from_id = {version['version']})").to_arrow_table()
