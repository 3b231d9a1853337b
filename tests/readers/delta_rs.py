"""deltalake-py. Its `to_pyarrow` refuses deletion vectors; its SQL does not."""
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder


def storage_options(lake):
    return {"AWS_ENDPOINT_URL": lake["endpoint"], "AWS_ACCESS_KEY_ID": lake["key"], "AWS_SECRET_ACCESS_KEY": lake["secret"],
            "AWS_REGION": lake["region"], "AWS_ALLOW_HTTP": "true", "aws_conditional_put": "etag"}


class Reader:
    def __init__(self, lake):
        self.options = storage_options(lake)

    def read(self, where, version):
        table = DeltaTable(where["delta"], version=version["version"], storage_options=self.options)
        return pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t"))
