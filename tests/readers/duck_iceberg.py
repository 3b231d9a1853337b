"""DuckDB on Iceberg, through the REST catalog; without one, from the metadata file."""
import duck


class Reader:
    def __init__(self, lake):
        self.connection = duck.connect(lake)
        if lake.get("catalog"):
            self.connection.execute(f"ATTACH '{lake.get('catalog_warehouse', '')}' AS lake (TYPE iceberg, ENDPOINT '{lake['catalog']}', "
                                    "AUTHORIZATION_TYPE 'none', ACCESS_DELEGATION_MODE 'none')")

    def read(self, where, version):
        if "metadata" in where:
            source = f"iceberg_scan('{where['metadata']}', snapshot_from_id = {version})"
        else:
            source = f'lake."{where["namespace"]}"."{where["table"]}" AT (VERSION => {version})'
        return self.connection.execute(f"SELECT * FROM {source}").to_arrow_table()
