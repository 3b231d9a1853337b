use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::decode::SchemaId;

#[rstest]
#[case("ALTER TABLE customers CHANGE email mail varchar(255)", &[("email", "mail")])]
#[case("alter table `shop`.`t` change column `a b` `c``d` text NOT NULL AFTER id", &[("a b", "c`d")])]
#[case("ALTER TABLE t RENAME COLUMN a TO b, RENAME COLUMN c TO d, ALGORITHM=INSTANT", &[("a", "b"), ("c", "d")])]
#[case("ALTER ONLINE TABLE IF EXISTS t WAIT 5 CHANGE IF EXISTS a b int, ADD (x int, y int)", &[("a", "b")])]
#[case("/* app */ ALTER TABLE t -- CHANGE x y int\n CHANGE a b int COMMENT 'CHANGE c d int'", &[("a", "b")])]
#[case("ALTER TABLE t ADD COLUMN a int DEFAULT (1 + 2), CHANGE `change` `rename` int", &[("change", "rename")])]
#[case("ALTER TABLE t CHANGE \"a\" \"b\" int", &[("a", "b")])]
#[case("ALTER TABLE t RENAME TO u", &[])]
#[case("ALTER TABLE t RENAME INDEX a TO b, RENAME KEY c TO d", &[])]
#[case("ALTER TABLE t DROP a, ADD b int", &[])]
#[case("ALTER TABLE t MODIFY a bigint", &[])]
#[case("ALTER TABLE t CHANGE", &[])]
#[case("ALTER TABLE t CHANGE 'a", &[])]
#[case("CREATE TABLE t (`change` int)", &[])]
#[case("RENAME TABLE a TO b", &[])]
#[case("", &[])]
fn statements_tell_their_renames(#[case] ddl: &str, #[case] expected: &[(&str, &str)]) {
    let found = renames(ddl);
    let found: Vec<_> = found.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(found, expected);
}

#[rstest]
#[case("my", r#""inventory"."customers""#, "my.inventory.customers")]
#[case("my", r#""inventory"."Mixed Case-Tbl""#, "my.inventory.Mixed_Case-Tbl")]
#[case("a.b", r#""d"."old","d"."new""#, "a.b.d.new")]
fn tables_have_topics(#[case] prefix: &str, #[case] id: &str, #[case] expected: &str) {
    assert_eq!(topic(prefix, id), expected);
}

fn change(ddl: &str, columns: &[&str]) -> Value {
    let columns: Vec<Value> = columns.iter().map(|name| json!({"name": name})).collect();
    json!({
        "source": {"name": "my", "db": "shop"},
        "ddl": ddl,
        "databaseName": "shop",
        "tableChanges": [{"type": "ALTER", "id": "\"shop\".\"t\"", "table": {"columns": columns}}],
    })
}

fn history(changes: &[(&str, &[&str])]) -> SchemaHistory {
    let history = SchemaHistory::default();
    for (ddl, columns) in changes {
        history.add(&from_json(change(ddl, columns).to_string().as_bytes()).unwrap());
        assert_eq!(told(&history, &["id"], &[]), None, "half of a history tells nothing");
    }
    history.reach_end();
    history
}

fn told(history: &SchemaHistory, new: &[&str], gone: &[&str]) -> Option<Vec<Names>> {
    let lives = history.names("my.shop.t", &[new, &["id"]].concat(), new, gone);
    lives.map(|lives| lives.into_iter().take(new.len()).collect())
}

const RENAMED: &[(&str, &[&str])] = &[
    ("CREATE TABLE t (id int, a int, b int)", &["id", "a", "b"]),
    ("ALTER TABLE t CHANGE A x int", &["id", "x", "b"]),
    ("ALTER TABLE t ADD a int", &["id", "x", "b", "a"]),
    ("ALTER TABLE t RENAME COLUMN x TO y, DROP b", &["id", "y", "a"]),
];

#[rstest]
// The table is behind by one rename, by two.
#[case(&["x"], &["a"], Some(&[&["a", "x", "y"][..]][..]))]
#[case(&["y"], &["a"], None)]
#[case(&["y"], &["b"], Some(&[&["a", "x", "y"][..]][..]))]
// The other `a` is not what `y` was.
#[case(&["y", "a"], &["x"], Some(&[&["a", "x", "y"][..], &["a"]][..]))]
// The table is ahead of the writer, whose `a` is the older one.
#[case(&["a", "b"], &["y"], Some(&[&["a", "x", "y"][..], &["b"]][..]))]
// Nothing is told of such a table.
#[case(&["z"], &["a"], None)]
fn columns_have_lives(
    #[case] new: &[&str],
    #[case] gone: &[&str],
    #[case] expected: Option<&[&[&str]]>,
) {
    let found = told(&history(RENAMED), new, gone);
    let expected = expected.map(|lives| {
        let names = lives.iter().map(|names| names.iter().map(|n| (*n).to_owned()).collect());
        names.collect::<Vec<Vec<String>>>()
    });
    assert_eq!(found, expected);
}

/// Names that go from one column to another in a statement; an old name that is there for no such reason is a doubt.
#[rstest]
#[case("CHANGE a b int, CHANGE b c int", &["id", "b", "c"], &[("a", "b"), ("b", "c")])]
#[case("RENAME COLUMN a TO b, RENAME COLUMN b TO a", &["id", "b", "a"], &[("a", "b"), ("b", "a")])]
#[case("CHANGE a b int, DROP b", &["id", "b"], &[])]
#[case("CHANGE a c int, ADD a int", &["id", "c", "b", "a"], &[])]
fn names_may_be_handed_on(
    #[case] clauses: &str,
    #[case] after: &[&str],
    #[case] expected: &[(&str, &str)],
) {
    let ddl = format!("ALTER TABLE t {clauses}");
    let changes = [("CREATE TABLE t", &["id", "a", "b"][..]), (&ddl, after)];
    let tables = history(&changes).told.into_inner().unwrap().tables;
    let found = tables["my.shop.t"].back().unwrap().renames.clone();
    let found: Vec<_> = found.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn names_are_found_as_avro_has_them() {
    let changes = [
        ("CREATE TABLE t", &["id", "some col"][..]),
        ("ALTER TABLE t CHANGE `some col` `1abc` int", &["id", "1abc"]),
    ];
    assert_eq!(
        told(&history(&changes), &["_1abc"], &["some_col"]).unwrap(),
        [["some_col", "_1abc"]]
    );
    assert_eq!(told(&history(&changes), &["1abc"], &["some col"]).unwrap(), [["some col", "1abc"]]);
}

#[rstest]
#[case("my.shop.t", true)]
#[case("my.shop.new", true)]
#[case("mysterious.shop.t", false)]
#[case("pg.public.t", false)]
fn other_connectors_tables_are_not_waited_for(#[case] topic: &str, #[case] expected: bool) {
    assert!(SchemaHistory::default().is_of(topic), "nothing is read yet");
    assert_eq!(history(RENAMED).is_of(topic), expected);
}

/// A statement that the table's columns do not agree with renames nothing.
#[rstest]
#[case(&["id", "a", "b"], "the old name is there still")]
#[case(&["id", "b"], "the new name is not there")]
fn a_rename_that_did_not_happen_counts_for_nothing(#[case] after: &[&str], #[case] why: &str) {
    let changes = [("CREATE TABLE t", &["id", "a"][..]), ("ALTER TABLE t CHANGE a x int", after)];
    let found = told(&history(&changes), &["b"], &[]);
    assert_eq!(found.unwrap_or_default().concat().join(" ").replace('b', ""), "", "{why}");
    let tables = history(&changes).told.into_inner().unwrap().tables;
    assert!(tables["my.shop.t"].iter().all(|state| state.renames.is_empty()), "{why}");
}

#[tokio::test]
async fn a_schema_change_is_read_in_every_encoding() {
    let plain = change("ALTER TABLE t CHANGE a x int", &["id", "x"]);
    let wrapped = json!({"schema": {"type": "struct"}, "payload": plain});
    let schema = json!({
        "type": "record", "name": "SchemaChangeValue", "fields": [
            {"name": "source", "type": {"type": "record", "name": "Source", "fields": [
                {"name": "name", "type": "string"}, {"name": "db", "type": "string"}]}},
            {"name": "ddl", "type": ["null", "string"], "default": null},
            {"name": "tableChanges", "type": {"type": "array", "items": {
                "type": "record", "name": "Change", "fields": [
                    {"name": "id", "type": "string"},
                    {"name": "table", "type": ["null", {"type": "record", "name": "Table", "fields": [
                        {"name": "columns", "type": {"type": "array", "items": {
                            "type": "record", "name": "Column", "fields": [
                                {"name": "name", "type": "string"}]}}}]}]}]}}},
        ],
    });
    let text = |text: &str| [&[u8::try_from(text.len() * 2).unwrap()], text.as_bytes()].concat();
    let columns = [&[4][..], &text("id"), &text("x"), &[0]].concat();
    let value = [
        &[0, 0, 0, 0, 7][..],
        &text("my"),
        &text("shop"),
        &[2],
        &text("ALTER TABLE t CHANGE a x int"),
        &[2],
        &text("\"shop\".\"t\""),
        &[2],
        &columns,
        &[0],
    ];
    let registry = Registry::preloaded([(SchemaId(7), schema.to_string())]);
    for value in [plain.to_string().into_bytes(), wrapped.to_string().into_bytes(), value.concat()]
    {
        let history = SchemaHistory::default();
        history.take(&value, Some(&registry)).await.unwrap();
        history.reach_end();
        assert_eq!(told(&history, &["x"], &["a"]).unwrap(), [["a", "x"]]);
    }
    let other = SchemaHistory::default().take(b"{\"op\":\"c\"}", None).await.unwrap_err();
    assert_eq!(other.kind(), crate::error::Kind::Data);
}
