"""DuckDB on Iceberg, through the REST catalog."""
import duck


class Reader:
    def __init__(self, lake):
        self.connection = duck.connect(lake)
        self.connection.execute(f"ATTACH '' AS lake (TYPE iceberg, ENDPOINT '{lake['catalog']}', AUTHORIZATION_TYPE 'none', "
                                "ACCESS_DELEGATION_MODE 'none')")

    def read(self, where, version):
        table = f'lake."{where["namespace"]}"."{where["table"]}"'
        return self.connection.execute(f"SELECT * FROM {table} AT (VERSION => {version['version']})").to_arrow_table()
