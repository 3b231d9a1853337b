//! Where a change comes from: its partition, when it was written there, and its place in the source's log.
//!
//! Within a partition Kafka's order is the order, and nothing here is asked. Two partitions may hold changes of one row
//! when the topic's partitions grew, or a key is written in other bytes than before; then the source's log tells which
//! of two changes is the later one. Its places start over when a server is rebuilt: a change whose place is behind
//! another's though the connector wrote it well after is of a later log. A connector writes what a snapshot reads and
//! what it streams one after the other, so that of those two Kafka's timestamps tell the order: a transaction that was
//! under way when the snapshot began has places before it.

use std::cmp::Ordering;

/// Places that contradict Kafka's timestamps by more than this are of two logs, one after the other. Within it the place
/// counts: clocks of a connector's hosts differ. What a connector writes again after a restart is taken again, all of
/// it.
const RESET_MILLIS: u64 = 60 * 1000;

/// Where a change comes from, or the change that last wrote a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePosition {
    /// The topic's partition.
    pub partition: i32,
    /// Kafka's timestamp of its record, milliseconds since the epoch.
    pub timestamp_ms: Option<i64>,
    /// Its place in the source's log; none when its record does not tell.
    pub place: Option<Place>,
}

impl SourcePosition {
    /// True when `other`, of another partition, is known to be the later one. Where one of them does not tell its place
    /// Kafka's timestamps do; when those are the same, it is never later than one that does.
    pub fn is_before(&self, other: &Self) -> bool {
        self.partition != other.partition && self.precedes(other)
    }

    /// The same of any two changes, for what is no longer known in the order of its partition.
    pub fn precedes(&self, other: &Self) -> bool {
        let by_time = |apart: u64| {
            let (own, other) = (self.timestamp_ms?, other.timestamp_ms?);
            (own.abs_diff(other) > apart).then(|| own.cmp(&other))
        };
        let order = match (&self.place, &other.place) {
            (Some(own), Some(place)) if own.snapshot || place.snapshot => {
                by_time(0).or_else(|| own.compare(place))
            }
            (Some(own), Some(place)) => by_time(RESET_MILLIS).or_else(|| own.compare(place)),
            (own, place) => by_time(0).or_else(|| Some(own.is_some().cmp(&place.is_some()))),
        };
        order == Some(Ordering::Less)
    }

    /// True when its place is known to be before the other's, whenever a connector wrote the two: it may write a change
    /// again.
    pub fn lies_before(&self, other: &Self) -> bool {
        let places = self.place.as_ref().zip(other.place.as_ref());
        places.and_then(|(own, other)| own.compare(other)) == Some(Ordering::Less)
    }

    /// True when another partition that was read to this Kafka timestamp has no more changes from before it.
    pub fn was_passed(&self, newest_ms: i64) -> bool {
        let apart = |own| newest_ms.saturating_sub(own) > RESET_MILLIS.cast_signed();
        self.timestamp_ms.is_none_or(apart)
    }

    /// True when it counts as a key's last delete in place of `earlier`, which was committed before. A tombstone does not:
    /// it tells less than the delete that it follows.
    pub fn replaces(&self, earlier: &Self) -> bool {
        self.place.is_some() || earlier.place.is_none() || self.partition != earlier.partition
    }

    /// How it is stored with its row, beside the partition; none when nothing more is known.
    pub fn text(&self) -> Option<String> {
        let place = self.place.as_ref().map(Place::text);
        let timestamp = self.timestamp_ms.map(|timestamp| format!("at={timestamp}"));
        let parts: Vec<String> = timestamp.into_iter().chain(place).collect();
        (!parts.is_empty()).then(|| parts.join(";"))
    }

    /// Reads what [`Self::text`] wrote; what is something else tells nothing.
    pub fn parse(partition: i32, text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        let timestamp_ms = field(text, "at").and_then(|timestamp| timestamp.parse().ok());
        Self { partition, timestamp_ms, place: Place::parse(text) }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.split(';').filter_map(|field| field.split_once('='));
    fields.find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// A place in a source's log, as the envelope's `source` block tells it (debezium.md 1.14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub log: Log,
    /// A snapshot read the row. It comes before a change that was streamed from the same place.
    pub snapshot: bool,
}

/// A place in the log of one kind of database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Log {
    /// Of Postgres. Transactions are streamed in the order of their commits.
    Wal {
        /// The commit before the change's own (`sequence`), when it is known.
        after: Option<u64>,
        /// The change.
        lsn: u64,
    },
    /// Of MySQL and MariaDB.
    Binlog {
        /// The name of the log's files without the number.
        base: String,
        /// The number of the file.
        number: u64,
        /// The event's place in the file.
        pos: u64,
        /// The row in the event.
        row: u64,
        /// The transaction's id, where the server gives them.
        gtid: Option<Gtid>,
    },
}

/// A transaction's id: its number among those of one server, tag or domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gtid {
    /// What numbers them: `uuid` or `uuid:tag` (MySQL), the domain (MariaDB).
    pub stream: String,
    /// The number.
    pub number: u64,
}

impl Gtid {
    /// Reads `uuid:N`, `uuid:tag:N` or `domain-server-N`.
    pub fn parse(text: &str) -> Option<Self> {
        let (stream, number) = match text.rsplit_once(':') {
            Some(parts) => parts,
            None => (text.split_once('-')?.0, text.rsplit_once('-')?.1),
        };
        Some(Self { stream: stream.to_owned(), number: number.parse().ok()? })
    }
}

impl Log {
    /// The place in a binlog file named `base.number` or, by newer MariaDB, `base-number.ibb`.
    pub fn binlog(file: &str, pos: u64, row: u64, gtid: Option<Gtid>) -> Option<Self> {
        let (base, number) = match file.strip_suffix(".ibb") {
            Some(file) => file.rsplit_once('-')?,
            None => file.rsplit_once('.')?,
        };
        let (base, number) = (base.to_owned(), number.parse().ok()?);
        Some(Self::Binlog { base, number, pos, row, gtid })
    }
}

impl Place {
    /// The order of two places; none when they are not of one log.
    fn compare(&self, other: &Self) -> Option<Ordering> {
        // Equal but for who read it: the stream goes on where the snapshot was taken.
        Some(self.log.compare(&other.log)?.then(other.snapshot.cmp(&self.snapshot)))
    }
}

impl Log {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Wal { after, lsn }, Self::Wal { after: other_after, lsn: other_lsn }) => {
                let commits = match (after, other_after) {
                    (Some(own), Some(other)) => own.cmp(other),
                    _ => Ordering::Equal,
                };
                Some(commits.then(lsn.cmp(other_lsn)))
            }
            (
                Self::Binlog { base, number, pos, row, gtid },
                Self::Binlog { base: b, number: n, pos: p, row: r, gtid: g },
            ) => {
                let in_file = || (base == b).then(|| (number, pos, row).cmp(&(n, p, r)));
                match (gtid, g) {
                    (None, None) => in_file(),
                    (Some(own), Some(other)) if own.stream == other.stream => {
                        let by_number = own.number.cmp(&other.number);
                        Some(by_number.then_with(|| in_file().unwrap_or(Ordering::Equal)))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl Place {
    fn text(&self) -> String {
        let log = match &self.log {
            Log::Wal { after: None, lsn } => format!("lsn={lsn}"),
            Log::Wal { after: Some(after), lsn } => format!("lsn={lsn};after={after}"),
            Log::Binlog { base, number, pos, row, gtid: None } => {
                format!("file={number};pos={pos};row={row};base={base}")
            }
            Log::Binlog { base, number, pos, row, gtid: Some(gtid) } => {
                let Gtid { stream, number: transaction } = gtid;
                format!(
                    "file={number};pos={pos};row={row};gtid={transaction};of={stream};base={base}"
                )
            }
        };
        if self.snapshot { log + ";snapshot=true" } else { log }
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |name: &str| field(text, name)?.parse::<u64>().ok();
        let log = match number("lsn") {
            Some(lsn) => Log::Wal { after: number("after"), lsn },
            None => Log::Binlog {
                base: field(text, "base")?.to_owned(),
                number: number("file")?,
                pos: number("pos")?,
                row: number("row")?,
                gtid: field(text, "of")
                    .and_then(|of| Some(Gtid { stream: of.to_owned(), number: number("gtid")? })),
            },
        };
        Some(Self { log, snapshot: field(text, "snapshot").is_some() })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn source_position(partition: i32, (at, place): (i64, String)) -> SourcePosition {
        SourcePosition::parse(partition, Some(&format!("at={at};{place}")))
    }

    fn file(number: u64, pos: u64) -> String {
        format!("file={number};pos={pos};row=0;base=binlog")
    }

    fn gtid(of: &str, number: u64, file: u64) -> String {
        format!("file={file};pos=4;row=0;gtid={number};of={of};base=binlog")
    }

    fn snapshot(place: &str) -> String {
        format!("{place};snapshot=true")
    }

    const HOUR: i64 = 3_600_000;

    /// Whether the first is before the second, and the reverse; each with the time it was written at.
    #[rstest]
    #[case::numbers_not_letters((0, file(999_999, 9)), (0, file(1_000_000, 4)), (true, false))]
    #[case::place_in_the_file((0, file(1, 4)), (0, file(1, 5)), (true, false))]
    #[case::the_same_place((0, file(1, 4)), (0, file(1, 4)), (false, false))]
    #[case::commits_before_changes((0, "lsn=100;after=50".into()), (0, "lsn=90;after=60".into()), (true, false))]
    #[case::a_first_commit_unknown((0, "lsn=90".into()), (0, "lsn=100;after=60".into()), (true, false))]
    #[case::beyond_half((0, "lsn=9223372036854775807".into()), (0, "lsn=9223372036854775809".into()), (true, false))]
    #[case::clocks_of_two_hosts((30_000, file(1, 4)), (0, file(1, 5)), (true, false))]
    #[case::transactions_of_one_server((0, gtid("a", 9, 70)), (0, gtid("a", 10, 3)), (true, false))]
    #[case::of_two_servers((0, gtid("a", 9, 70)), (0, gtid("b", 10, 80)), (false, false))]
    #[case::of_two_servers_long_after((0, gtid("a", 9, 70)), (HOUR, gtid("b", 1, 1)), (true, false))]
    #[case::two_databases((0, "lsn=9".into()), (0, file(1, 4)), (false, false))]
    #[case::a_server_rebuilt((0, file(900, 700)), (HOUR, file(1, 4)), (true, false))]
    #[case::another_timeline((0, "lsn=9;after=8".into()), (HOUR, "lsn=5;after=4".into()), (true, false))]
    #[case::rebuilt_and_read_anew((0, "lsn=900".into()), (5000, snapshot("lsn=9")), (true, false))]
    #[case::stream_after_snapshot((0, snapshot("lsn=9")), (0, "lsn=9".into()), (true, false))]
    #[case::under_way_at_the_snapshot((0, snapshot("lsn=9")), (1, "lsn=5".into()), (true, false))]
    #[case::a_long_snapshot((40 * HOUR, snapshot(&file(1, 4))), (41 * HOUR, file(1, 9)), (true, false))]
    #[case::read_again((0, file(1, 9)), (1, snapshot(&file(1, 4))), (true, false))]
    #[case::no_place((0, String::new()), (0, "lsn=9".into()), (true, false))]
    #[case::no_place_but_later((1, String::new()), (0, "lsn=9".into()), (false, true))]
    #[case::no_places((0, String::new()), (0, String::new()), (false, false))]
    #[case::times_alone((0, String::new()), (1, String::new()), (true, false))]
    fn the_later_change_is_told(
        #[case] one: (i64, String),
        #[case] two: (i64, String),
        #[case] expected: (bool, bool),
    ) {
        let (one, two) = (source_position(1, one), source_position(2, two));
        assert_eq!((one.is_before(&two), two.is_before(&one)), expected);
        let same = SourcePosition { partition: 2, ..one };
        assert!(!same.is_before(&two) && !two.is_before(&same), "one partition has an order");
    }

    #[test]
    fn without_timestamps_places_alone_count() {
        let [one, two] = [(1, "lsn=9"), (2, "lsn=10")]
            .map(|(partition, text)| SourcePosition::parse(partition, Some(text)));
        assert!(one.is_before(&two) && !two.is_before(&one));
    }

    #[rstest]
    #[case("3e11fa47-71ca-11e1-9e33-c80aa9429562:23", "3e11fa47-71ca-11e1-9e33-c80aa9429562", 23)]
    #[case(
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:5",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag",
        5
    )]
    #[case("0-1-42", "0", 42)]
    fn transaction_ids_are_read(#[case] text: &str, #[case] stream: &str, #[case] number: u64) {
        assert_eq!(Gtid::parse(text), Some(Gtid { stream: stream.into(), number }));
    }

    #[rstest]
    #[case("binlog.000042", "binlog", 42)]
    #[case("my.log.1000000", "my.log", 1_000_000)]
    #[case("binlog-000042.ibb", "binlog", 42)]
    fn names_of_binlog_files_are_read(#[case] file: &str, #[case] base: &str, #[case] number: u64) {
        let base = base.to_owned();
        let log = Log::Binlog { base, number, pos: 4, row: 0, gtid: None };
        assert_eq!(Log::binlog(file, 4, 0, None), Some(log));
        assert_eq!(Log::binlog("", 4, 0, None), None);
    }

    #[rstest]
    #[case("at=1700000000000")]
    #[case("lsn=20;after=15")]
    #[case("at=5;lsn=20;snapshot=true")]
    #[case("file=42;pos=4;row=1;base=binlog")]
    #[case("at=-1;file=42;pos=4;row=1;gtid=5;of=3e11fa47:tag;base=binlog;snapshot=true")]
    fn what_is_stored_is_read_back(#[case] text: &str) {
        assert_eq!(SourcePosition::parse(3, Some(text)).text().as_deref(), Some(text));
    }

    #[rstest]
    #[case(None)]
    #[case(Some(""))]
    #[case(Some("at=soon;lsn=;file=1"))]
    fn what_is_something_else_tells_nothing(#[case] text: Option<&str>) {
        let known = SourcePosition { partition: 3, timestamp_ms: None, place: None };
        assert_eq!(SourcePosition::parse(3, text), known);
        assert_eq!(known.text(), None);
    }
}
