//! The source renames columns: they keep their ids and values, in every format, for every reader, whatever the order in which
//! old and new schemas come.

use super::*;

const BEFORE: Writer = &[("id", "int32"), ("a", "string?"), ("b", "string?")];
const AFTER: Writer = &[("id", "int32"), ("x", "string?"), ("b", "string?")];
const AGAIN: Writer = &[("id", "int32"), ("x", "string?"), ("b", "string?"), ("a", "int64?")];

/// The batch, in which the source has renamed a column.
fn renamed(from: &str, to: &str) -> impl FnOnce(Batch) -> Batch {
    move |batch| {
        let mut columns = batch.schema.columns().to_vec();
        columns.iter_mut().find(|column| column.name == from).unwrap().rename(to);
        let schema = batch.schema.evolved(columns);
        let rows = RecordBatch::try_new(schema.arrow(), batch.rows.columns().to_vec()).unwrap();
        Batch { schema: Arc::new(schema), rows, ..batch }
    }
}

fn before(id: i32, a: &str, b: &str) -> (Writer, Value) {
    (BEFORE, json!({"id": id, "a": a, "b": b}))
}

fn after(id: i32, x: &str, b: &str) -> (Writer, Value) {
    (AFTER, json!({"id": id, "x": x, "b": b}))
}

/// A history in which column `a` becomes `x`, and then the source has another `a`.
async fn a_rename(course: &mut Course) -> Story {
    let mut story = Story::new();
    let mut told = |course: &Course, rows: Value| story.push((course.versions.clone(), rows));
    let a = |id: &str, a: &str, b: &str| json!({"id": id, "a": a, "b": b});
    let x = |id: &str, x: &str, b: &str| json!({"id": id, "x": x, "b": b});

    let rows = [before(1, "a1", "b1"), before(2, "a2", "b2"), before(3, "a3", "b3")];
    course.write(&rows).await.unwrap();
    told(course, json!([a("1", "a1", "b1"), a("2", "a2", "b2"), a("3", "a3", "b3")]));

    // What did not change is read from files of the old name, also while it becomes the new one.
    course.write_with(&[before(2, PLACEHOLDER, "B2")], renamed("a", "x")).await.unwrap();
    told(course, json!([x("1", "a1", "b1"), x("2", "a2", "B2"), x("3", "a3", "b3")]));
    course.write(&[after(3, PLACEHOLDER, "B3"), after(4, "x4", "b4")]).await.unwrap();
    let fourth = x("4", "x4", "b4");
    told(course, json!([x("1", "a1", "b1"), x("2", "a2", "B2"), x("3", "a3", "B3"), fourth]));

    // The old schema comes again: its values belong to the column still, and no column comes back.
    course.write(&[before(5, "a5", "b5"), after(1, "X1", PLACEHOLDER)]).await.unwrap();
    let fifth = x("5", "a5", "b5");
    let rows = json!([x("1", "X1", "b1"), x("2", "a2", "B2"), x("3", "a3", "B3"), fourth, fifth]);
    told(course, rows);

    // A new column takes the old name; files of either name are read right.
    let sixth = (AGAIN, json!({"id": 6, "x": "x6", "b": "b6", "a": 6}));
    let second = (AGAIN, json!({"id": 2, "x": PLACEHOLDER, "b": "b2", "a": 2}));
    course.write(&[sixth, second, (BEFORE, json!({"id": 3}))]).await.unwrap();
    let second = json!({"id": "2", "x": "a2", "b": "b2", "a": "2"});
    let sixth = json!({"id": "6", "x": "x6", "b": "b6", "a": "6"});
    told(course, json!([x("1", "X1", "b1"), second, fourth, fifth, sixth]));
    story
}

#[apply(everywhere)]
async fn a_renamed_column_keeps_its_id_and_its_values(formats: &str, restarts: bool) {
    let mut course = Course::new(formats, restarts);
    let story = a_rename(&mut course).await;
    course.holds(story.last().unwrap().1.clone()).await;
    let schema = course.schema().await;
    let id = |name: &str| schema.column(name).unwrap().id;
    assert_eq!((id("x"), id("b"), id("a"), schema.columns().len()), (2, 3, 8, 4 + 4));
    course.was_read_by_others(&story);
    // Delta's column mapping comes with the commit that needs it.
    if formats != "iceberg-v2" && formats != "iceberg-v3" {
        let log = course.lake.location.url().to_file_path().unwrap().join("_delta_log");
        let mapped = |version: i64| {
            let commit = std::fs::read_to_string(log.join(format!("{version:020}.json"))).unwrap();
            commit.contains("columnMapping")
        };
        let versions: Vec<bool> = story.iter().map(|(at, _)| mapped(at["delta"])).collect();
        assert_eq!(versions, [false, true, false, false, true]);
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_renamed_beside_partitions(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
) {
    const LATER: Writer = &[("id", "int32"), ("x", "string?"), ("c", "string?")];
    let mut course = Course::new(formats, true);
    course.lake.partition_by = "bucket(4, id), b".into();
    let story = a_rename(&mut course).await;
    course.holds(story.last().unwrap().1.clone()).await;
    course.was_read_by_others(&story);
    // The partitions' own column stays what it is.
    course.tells("ALTER TABLE t ADD a int", &["id", "x", "b", "a"]).await;
    course.tells("ALTER TABLE t CHANGE b c text, DROP a", &["id", "x", "c"]).await;
    course.write(&[(LATER, json!({"id": 7, "x": "x7", "c": "c7"}))]).await.unwrap();
    let (_, mut expected) = story.last().unwrap().clone();
    expected.as_array_mut().unwrap().push(json!({"id": "7", "x": "x7", "c": "c7"}));
    course.holds(expected.clone()).await;
    course.is_read_by_others(&expected);
}

/// The second format begins after the rename, and finds files of both names.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_format_learns_the_names(#[values(false, true)] delta_first: bool) {
    let mut course = Course::new("both", true);
    if !delta_first {
        course.lake.logs.reverse();
    }
    let second = course.lake.logs.pop().unwrap();
    let story = a_rename(&mut course).await;
    course.lake.logs.push(second);
    course.write(&[after(7, "x7", "b7")]).await.unwrap();
    let (_, mut expected) = story.last().unwrap().clone();
    expected.as_array_mut().unwrap().push(json!({"id": "7", "x": "x7", "b": "b7"}));
    course.holds(expected.clone()).await;
    course.is_read_by_others(&expected);
}

const UNTOLD: Writer = &[];

/// The source renames `a` to `x`, and `x` to `y`, and the schema-change topic says so before the first such row.
#[apply(everywhere)]
async fn a_rename_is_taken_from_the_schema_history(formats: &str, restarts: bool) {
    const LATER: Writer = &[("id", "int32"), ("y", "string?"), ("b", "string?"), ("n", "int32?")];
    let mut course = Course::new(formats, restarts);
    course.tells("CREATE TABLE t (id int, a text, b text)", &["id", "a", "b"]).await;
    course.write(&[before(1, "a1", "b1"), before(2, "a2", "b2")]).await.unwrap();
    course.tells("ALTER TABLE t CHANGE a x text", &["id", "x", "b"]).await;
    // Both schemas in one batch, the new one with a value that did not change.
    course.write(&[before(3, "a3", "b3"), after(2, PLACEHOLDER, "B2")]).await.unwrap();
    course.tells("ALTER TABLE t RENAME COLUMN x TO y", &["id", "y", "b"]).await;
    course.tells("ALTER TABLE t ADD n int", &["id", "y", "b", "n"]).await;
    let later = |id: i32| (LATER, json!({"id": id, "y": format!("y{id}"), "b": "b", "n": id}));
    // Old schemas after the new one, of every age.
    course.write(&[later(4), before(5, "a5", "b5"), after(6, "x6", "b6")]).await.unwrap();
    course.write(&[before(7, "a7", "b7")]).await.unwrap();
    let y = |id: &str, y: &str, b: &str| json!({"id": id, "y": y, "b": b});
    let expected = json!([
        y("1", "a1", "b1"),
        y("2", "a2", "B2"),
        y("3", "a3", "b3"),
        {"id": "4", "y": "y4", "b": "b", "n": "4"},
        y("5", "a5", "b5"),
        y("6", "x6", "b6"),
        y("7", "a7", "b7"),
    ]);
    course.holds(expected.clone()).await;
    let schema = course.schema().await;
    assert_eq!((schema.column("y").unwrap().id, schema.columns().len()), (2, 4 + 4));
    course.is_read_by_others(&expected);
}

/// Names are used again before the table sees a row: the column of before goes with its later name.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_again_is_another_column(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
    #[values(false, true)] restarts: bool,
) {
    const HANDED_ON: Writer =
        &[("id", "int32"), ("x", "int64?"), ("y", "string?"), ("a", "string?")];
    let mut course = Course::new(formats, restarts);
    course.tells("CREATE TABLE t (id int, a text, b text)", &["id", "a", "b"]).await;
    course.write(&[before(1, "a1", "b1")]).await.unwrap();
    course.tells("ALTER TABLE t CHANGE a x text", &["id", "x", "b"]).await;
    course.tells("ALTER TABLE t ADD a int", &["id", "x", "b", "a"]).await;
    course.write(&[(AGAIN, json!({"id": 2, "x": "x2", "b": "b2", "a": 2}))]).await.unwrap();
    let first = json!({"id": "1", "x": "a1", "b": "b1"});
    let second = json!({"id": "2", "x": "x2", "b": "b2", "a": "2"});
    course.holds(json!([first, second])).await;
    // Three names go on by one in a statement.
    let ddl = "ALTER TABLE t CHANGE x y text, CHANGE a x int, CHANGE b a text";
    course.tells(ddl, &["id", "y", "a", "x"]).await;
    course.write(&[(HANDED_ON, json!({"id": 3, "x": 3, "y": "y3", "a": "a3"}))]).await.unwrap();
    let expected = json!([
        {"id": "1", "y": "a1", "a": "b1"},
        {"id": "2", "y": "x2", "a": "b2", "x": "2"},
        {"id": "3", "y": "y3", "a": "a3", "x": "3"},
    ]);
    course.holds(expected.clone()).await;
    let schema = course.schema().await;
    let id = |name: &str| schema.column(name).unwrap().id;
    assert_eq!((id("y"), id("a"), id("x"), schema.columns().len()), (2, 3, 8, 4 + 4));
    course.is_read_by_others(&expected);
}

/// A table that is made of rows with the new name first takes those with the old one.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_ahead_of_an_old_schema(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
    #[values(false, true)] in_one_batch: bool,
) {
    let mut course = Course::new(formats, true);
    course.tells("CREATE TABLE t (id int, a text, b text)", &["id", "a", "b"]).await;
    course.tells("ALTER TABLE t CHANGE a x text", &["id", "x", "b"]).await;
    if in_one_batch {
        course.write(&[after(1, "x1", "b1"), before(2, "a2", "b2")]).await.unwrap();
    } else {
        course.write(&[after(1, "x1", "b1")]).await.unwrap();
        course.write(&[before(2, "a2", "b2")]).await.unwrap();
    }
    let expected = json!([
        {"id": "1", "x": "x1", "b": "b1"},
        {"id": "2", "x": "a2", "b": "b2"},
    ]);
    course.holds(expected.clone()).await;
    course.is_read_by_others(&expected);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_schema_are_renamed_too(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
    #[values(false, true)] restarts: bool,
) {
    let mut course = Course::new(formats, restarts);
    course.tells("CREATE TABLE t (id int, a text, b text)", &["id", "a", "b"]).await;
    let row = |row: Value| (UNTOLD, row);
    course.write(&[row(json!({"id": 1, "a": "a1", "b": "b1"}))]).await.unwrap();
    course.tells("ALTER TABLE t CHANGE a x text", &["id", "x", "b"]).await;
    // A column that is null alone tells nothing yet.
    course.write(&[row(json!({"id": 2, "x": null, "b": "b2"}))]).await.unwrap();
    let old = row(json!({"id": 4, "a": "a4", "b": "b4"}));
    course.write(&[row(json!({"id": 3, "x": "x3", "b": "b3"})), old]).await.unwrap();
    course.write(&[row(json!({"id": 5, "a": "a5", "b": "b5"}))]).await.unwrap();
    course.tells("ALTER TABLE t ADD a int", &["id", "x", "b", "a"]).await;
    course.write(&[row(json!({"id": 6, "a": null, "x": "x6", "b": "b6"}))]).await.unwrap();
    course.write(&[row(json!({"id": 7, "x": "x7", "b": "b7", "a": 7}))]).await.unwrap();
    let x = |id: &str, x: &str, b: &str| json!({"id": id, "x": x, "b": b});
    let expected = json!([
        x("1", "a1", "b1"),
        {"id": "2", "b": "b2"},
        x("3", "x3", "b3"),
        x("4", "a4", "b4"),
        x("5", "a5", "b5"),
        x("6", "x6", "b6"),
        {"id": "7", "x": "x7", "b": "b7", "a": "7"},
    ]);
    course.holds(expected).await;
}

/// The topic is late, or tells of no rename, or there is none.
#[rstest]
#[case::it_tells_nothing(&[], true)]
#[case::it_tells_of_no_such_columns(&[("CREATE TABLE t", &["id", "a", "b"][..])], true)]
#[case::it_tells_of_a_drop_and_an_add(
    &[("CREATE TABLE t", &["id", "a", "b"][..]), ("ALTER TABLE t DROP a, ADD x text", &["id", "x", "b"])],
    false
)]
#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_of_a_rename_the_column_is_new(
    #[case] told: &[(&str, &[&str])],
    #[case] waits: bool,
) {
    let mut course = Course::new("both", false);
    course.history = Some(Arc::default());
    for (ddl, columns) in told {
        course.tells(ddl, columns).await;
    }
    course.write(&[before(1, "a1", "b1")]).await.unwrap();
    let new = [after(2, "x2", "b2")];
    if waits {
        for _ in 0..2 {
            let error = course.write(&new).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unavailable, "{error}");
            assert!(course.instance().await.0.awaits_history());
        }
        course.instance().await.0.give_up_on_history();
    }
    course.write(&new).await.unwrap();
    let expected = json!([{"id": "1", "a": "a1", "b": "b1"}, {"id": "2", "x": "x2", "b": "b2"}]);
    course.holds(expected).await;
    assert_eq!(course.schema().await.columns().len(), 4 + 4);
}

/// Values of another type have a column of their own, which is renamed with the column.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn columns_of_other_types_are_renamed_with_theirs(#[values(false, true)] restarts: bool) {
    const RENAMED: Writer = &[("id", "int32"), ("w", "string?"), ("t", "string?")];
    let mut course = Course::new("both", restarts).conflicts();
    course.tells("CREATE TABLE t (id int, v int, t text)", &["id", "v", "t"]).await;
    course.write(&[(NUMBER, json!({"id": 1, "v": 1, "t": "t"}))]).await.unwrap();
    course.write(&[(TEXT, json!({"id": 2, "v": "two", "t": "t"}))]).await.unwrap();
    course.tells("ALTER TABLE t CHANGE v w text", &["id", "w", "t"]).await;
    course.write(&[(RENAMED, json!({"id": 3, "w": "three", "t": "t"}))]).await.unwrap();
    course.write(&[(NUMBER, json!({"id": 4, "v": 4, "t": "t"}))]).await.unwrap();
    let expected = json!([
        {"id": "1", "w": "1", "t": "t"},
        {"id": "2", "w__string": "two", "t": "t"},
        {"id": "3", "w__string": "three", "t": "t"},
        {"id": "4", "w": "4", "t": "t"},
    ]);
    course.holds(expected.clone()).await;
    course.is_read_by_others(&expected);
}
