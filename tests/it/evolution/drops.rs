//! Columns that the source dropped go for good once no schema had them for long enough, in every format, for every reader.

use super::*;

const OLD: Writer = &[("id", "int32"), ("a", "string?"), ("b", "string?")];
const NEW: Writer = &[("id", "int32"), ("b", "string?")];
const AGAIN: Writer = &[("id", "int32"), ("b", "string?"), ("a", "int64?")];
const UNTOLD: Writer = &[];
const KEPT: i64 = 1000;

fn old(id: i32) -> (Writer, Value) {
    (OLD, json!({"id": id, "a": format!("a{id}"), "b": "b"}))
}

fn new(id: i32) -> (Writer, Value) {
    (NEW, json!({"id": id, "b": "B"}))
}

/// A table whose columns go after [`KEPT`] milliseconds.
fn course(formats: &str, restarts: bool) -> (Course, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(1_000_000));
    let mut course = Course::new(formats, restarts);
    course.drops = Some((KEPT, Arc::clone(&now)));
    (course, now)
}

#[apply(everywhere)]
async fn a_column_goes_once_it_was_absent_for_long_enough(formats: &str, restarts: bool) {
    let (mut course, now) = course(formats, restarts);
    let later = |millis: i64| now.fetch_add(millis, Ordering::SeqCst);
    let a = |id: &str| json!({"id": id, "a": format!("a{id}"), "b": "b"});
    let b = |id: &str| json!({"id": id, "b": "B"});
    let mut story = Story::new();
    let mut told = |course: &Course, rows: Value| story.push((course.versions.clone(), rows));
    course.write(&[old(1), old(2), old(3)]).await.unwrap();
    told(&course, json!([a("1"), a("2"), a("3")]));
    course.write(&[new(2)]).await.unwrap();
    later(KEPT - 1);
    // Only batches of rows count, and one old schema begins the time anew.
    course.write(&[new(4), (NEW, json!({"id": 3}))]).await.unwrap();
    told(&course, json!([a("1"), b("2"), b("4")]));
    course.write(&[old(5)]).await.unwrap();
    later(KEPT);
    course.write(&[new(6)]).await.unwrap();
    later(KEPT - 1);
    course.write(&[new(6)]).await.unwrap();
    assert!(course.schema().await.column("a").is_some());
    told(&course, json!([a("1"), b("2"), b("4"), a("5"), b("6")]));
    later(1);
    course.write(&[new(7)]).await.unwrap();
    assert!(course.schema().await.column("a").is_none());
    let rows = |more: &[Value]| {
        let rows = ["1", "2", "4", "5", "6", "7"].map(|id| match id {
            "1" | "5" => json!({"id": id, "b": "b"}),
            id => b(id),
        });
        Value::from([&rows[..], more].concat())
    };
    told(&course, rows(&[]));
    // A column of that name is another one: what lies in old files stays there.
    course.write(&[(AGAIN, json!({"id": 8, "b": "B", "a": 8}))]).await.unwrap();
    let eighth = json!({"id": "8", "b": "B", "a": "8"});
    told(&course, rows(&[eighth]));
    let schema = course.schema().await;
    assert_eq!((schema.column("a").unwrap().id, schema.dropped()), (8, &[2][..]));
    course.holds(story.last().unwrap().1.clone()).await;
    course.was_read_by_others(&story);
}

/// Rows that were in the topic all along, and a source whose clock is wrong, are no reason to drop a column.
#[rstest]
#[case::from_before(-1)]
#[case::a_long_time_ago(-1_000_000)]
#[case::from_the_future(KEPT * 100)]
#[tokio::test(flavor = "multi_thread")]
async fn old_rows_drop_nothing_however_late_they_come(
    #[case] written: i64,
    #[values(false, true)] restarts: bool,
) {
    let (mut course, now) = course("both", restarts);
    let start = now.load(Ordering::SeqCst);
    course.write(&[old(1)]).await.unwrap();
    course.written_at = Some(start + written);
    course.write(&[new(2)]).await.unwrap();
    now.store(if written > 0 { start + KEPT - 1 } else { start + 10 * KEPT }, Ordering::SeqCst);
    course.write(&[new(3)]).await.unwrap();
    assert!(course.schema().await.column("a").is_some());
    now.fetch_add(1, Ordering::SeqCst);
    course.written_at = None;
    course.write(&[new(4)]).await.unwrap();
    assert!(course.schema().await.column("a").is_none());
    let row = |id: &str| json!({"id": id, "b": "B"});
    course.holds(json!([{"id": "1", "b": "b"}, row("2"), row("3"), row("4")])).await;
}

/// Who still has the column cannot bring it back.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn another_instance_does_not_bring_it_back(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
) {
    let (mut course, now) = course(formats, false);
    course.write(&[old(1), new(2)]).await.unwrap();
    course.write(&[new(2)]).await.unwrap();
    let before = course.schema().await;
    now.fetch_add(KEPT, Ordering::SeqCst);
    course.write(&[new(3)]).await.unwrap();
    let after = course.schema().await;
    assert!(after.covers(&before) && !before.covers(&after));
}

/// A table that is partitioned by a column keeps it, and so does one whose rows tell no schema.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn some_columns_stay(
    #[values("delta", "iceberg-v3", "both")] formats: &str,
    #[values(false, true)] untold: bool,
) {
    let (mut course, now) = course(formats, true);
    if !untold {
        course.lake.partition_by = "a".into();
    }
    course.write(&[old(1)]).await.unwrap();
    for id in [2, 3] {
        let row = json!({"id": id, "b": "B"});
        course.write(&[(if untold { UNTOLD } else { NEW }, row)]).await.unwrap();
        now.fetch_add(KEPT, Ordering::SeqCst);
    }
    let row = |id: &str| json!({"id": id, "b": "B"});
    course.holds(json!([{"id": "1", "a": "a1", "b": "b"}, row("2"), row("3")])).await;
    assert_eq!(course.schema().await.columns().len(), 3 + 4);
}
