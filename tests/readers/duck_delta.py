"""DuckDB on Delta."""
import duck


class Reader:
    def __init__(self, lake):
        self.connection = duck.connect(lake)

    def read(self, where, version):
        return self.connection.execute(f"SELECT * FROM delta_scan('{where['delta']}', version = {version['version']})").to_arrow_table()
