//! Spark as a second writer. Runs where `CDC_SINK_TEST_SPARK_PYTHON` names a Python that has it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::support::{Writer, read};
use super::*;
use crate::testing::needed;

struct Spark {
    child: Child,
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Spark {
    fn start(python: &str, warehouse: &str) -> Self {
        let mut child = Command::new(python)
            .args(["-c", include_str!("spark.py"), warehouse])
            .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/readers"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let statements = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, statements, answers }
    }

    fn run(&mut self, statement: &str) -> Value {
        writeln!(self.statements, "{statement}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{statement}: {e}"))
    }

    /// Spark reads what `writer` knows.
    fn agrees(&mut self, writer: &Writer) {
        let found = self.run("SELECT id, name FROM lake.ns.items ORDER BY id");
        let rows = writer.rows.iter().map(|(id, name)| serde_json::json!([id, name]));
        assert_eq!(found, Value::Array(rows.collect()));
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Takes over what another engine did; the rows are read by our own reader.
async fn follow(writer: &mut Writer, place: &Place) {
    assert!(writer.table.refresh().await.unwrap());
    assert!(!writer.table.refresh().await.unwrap());
    writer.adopt().await;
    writer.check(place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spark_does_is_taken_over() {
    let Some(python) = needed("CDC_SINK_TEST_SPARK_PYTHON") else { return };
    for (version, partitioning) in [(2, plain()), (3, by_name())] {
        let mut place = Place::new();
        let warehouse = place.folder.as_ref().unwrap().path().to_str().unwrap().to_owned();
        place.root = Location::warehouse(&warehouse).unwrap().folder("ns").folder("items");
        let mut spark = Spark::start(&python, &warehouse);
        let mut writer = place.create(options(version), partitioning).await;
        let all: Vec<(i64, &str)> =
            (0..100).map(|i| (i, if i % 2 == 0 { "even" } else { "odd" })).collect();
        writer.commit(&all, &[]).await;
        writer.commit(&[(3, "null"), (200, "new")], &[4, 5]).await;
        spark.agrees(&writer);

        let delete =
            |id: i64| format!("DELETE FROM lake.ns.items WHERE id BETWEEN {id} AND {id} + 2");
        spark.run(&delete(20));
        follow(&mut writer, &place).await;
        assert!(!writer.rows.contains_key(&21));
        writer.commit(&[(7, "seven")], &[30]).await;
        spark.agrees(&writer);

        spark.run("ALTER TABLE lake.ns.items SET TBLPROPERTIES ('write.delete.granularity' = 'partition')");
        spark.run(&delete(200));
        spark.run("DELETE FROM lake.ns.items WHERE id IN (6, 7, 9)");
        follow(&mut writer, &place).await;
        writer.commit(&[(8, "eight")], &[10, 11]).await;
        spark.agrees(&writer);

        spark.run("UPDATE lake.ns.items SET name = 'spark' WHERE id IN (12, 13, 40)");
        spark.run("ALTER TABLE lake.ns.items ADD COLUMN note STRING");
        follow(&mut writer, &place).await;
        assert_eq!(writer.rows[&40].as_deref(), Some("spark"));
        assert_eq!(writer.table.state().schema.columns().len(), 9);
        writer.commit(&[(40, "even"), (41, "forty-one")], &[12]).await;
        spark.agrees(&writer);

        spark.run("CALL lake.system.rewrite_position_delete_files(table => 'ns.items', options => map('rewrite-all', 'true'))");
        spark.run("CALL lake.system.rewrite_manifests('ns.items')");
        follow(&mut writer, &place).await;
        writer.commit(&[(50, "odd")], &[51, 41]).await;
        spark.agrees(&writer);

        spark.run("CALL lake.system.rewrite_data_files(table => 'ns.items', options => map('rewrite-all', 'true'))");
        follow(&mut writer, &place).await;
        let version_before = writer.table.known.metadata.current_snapshot_id().unwrap();
        let position = writer.table.state().position.clone();
        let rows = writer.rows.clone();
        for i in 60..70 {
            writer.commit(&[(i, "odd")], &[i + 10]).await;
        }
        spark.agrees(&writer);

        spark.run(&format!("CALL lake.system.rollback_to_snapshot('ns.items', {version_before})"));
        follow(&mut writer, &place).await;
        assert_eq!(writer.rows, rows);
        assert_eq!(writer.table.state().position, position);
        writer.commit(&[(60, "again")], &[61]).await;
        spark.agrees(&writer);
        spark.run("CALL lake.system.expire_snapshots(table => 'ns.items', older_than => now(), retain_last => 1)");
        // No news: rows, schema and position are the same.
        assert!(!writer.table.refresh().await.unwrap());
        writer.commit(&[(62, "again")], &[]).await;
        if version == 2 {
            spark.run("ALTER TABLE lake.ns.items SET TBLPROPERTIES ('format-version' = '3')");
            writer.table.refresh().await.unwrap();
            writer.commit(&[(63, "third")], &[64]).await;
            writer.commit(&[(65, "third")], &[66, 63]).await;
            writer.check(&place).await;
        }
        spark.agrees(&writer);
        assert_eq!(read(&writer.table).await, writer.rows);
    }
}
