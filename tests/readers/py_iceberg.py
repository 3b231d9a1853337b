"""PyIceberg, through the REST catalog."""
from pyiceberg.catalog import load_catalog


def keys(lake):
    return {"s3.endpoint": lake["endpoint"], "s3.access-key-id": lake["key"], "s3.secret-access-key": lake["secret"],
            "s3.region": lake["region"], "s3.path-style-access": "true"}


class Reader:
    def __init__(self, lake):
        self.catalog = load_catalog("lake", type="rest", uri=lake["catalog"], **keys(lake))
        self.tables = {}

    def read(self, where, version):
        name = f"{where['namespace']}.{where['table']}"
        if name not in self.tables:
            self.tables[name] = self.catalog.load_table(name)
        return self.tables[name].scan(snapshot_id=version["version"]).to_arrow()
