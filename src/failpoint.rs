//! Points at which a test build kills its own process, as a power cut would: `tests/faults` goes through them all.
//!
//! Only builds with the feature `failpoints` do; in any other [`reach`] is empty. `CDC_SINK_FAILPOINTS` says where:
//! `K6`, or `K6@3` for the third time that the point is reached.

/// A moment after which nothing happens any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Records were received, none of them is scanned.
    K1,
    /// A batch is made in memory, nothing of it is written. There is no buffer on the local disk.
    K2,
    /// One of a commit's data files is written.
    K3,
    /// All of a commit's data files are written, but no deletion vector, delete file or manifest.
    K4,
    /// A commit is ready to be sent: everything that it names is written.
    K5,
    /// A commit is in the table, its answer is not looked at.
    K6,
    /// The first of two formats has a commit, the other has not.
    K6b,
    /// A commit is known to be in the table, the state in memory is the one before.
    K7,
    /// Positions are stored in the tables, Kafka is not told.
    K8,
    /// Kafka has the offsets, its answer is not looked at.
    K9,
    /// The upkeep after a commit is done, or that of the first of two formats.
    K10,
    /// In the middle of the upkeep: a checkpoint is written, or one of several files is removed.
    K10b,
    /// The group takes partitions away.
    K11,
    /// The tables told where to start, no partition is assigned.
    K12,
    /// A stopping process is about to commit what it has.
    K13,
    /// A stopping process has committed what it had, and is still in the group.
    K13b,
    /// A table is made, nothing is in it.
    K14,
    /// A commit with another schema is in the table, the state in memory is the one before.
    K14b,
    /// The dead letters of a batch are in their table, the batch is not in its own.
    K15,
    /// A table has a batch, and nobody else in the process knows.
    K15b,
}

/// Ends here, when the environment asks for it.
#[cfg(not(feature = "failpoints"))]
pub const fn reach(_: Point) {}

#[cfg(feature = "failpoints")]
pub use self::armed::reach;

#[cfg(feature = "failpoints")]
mod armed {
    use std::io::Write;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};

    use super::Point;

    /// What kills, and how often it is still to be reached.
    static ARMED: LazyLock<Option<(String, AtomicI64)>> = LazyLock::new(|| {
        let text = std::env::var("CDC_SINK_FAILPOINTS").ok()?;
        let (point, times) = text.split_once('@').unwrap_or((&text, "1"));
        Some((point.to_owned(), AtomicI64::new(times.parse().ok()?)))
    });

    /// Ends here, when the environment asks for it.
    pub fn reach(point: Point) {
        let Some((name, left)) = &*ARMED else { return };
        if *name != format!("{point:?}") || left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        let told = writeln!(std::io::stderr(), "killed at {name}");
        drop(told.and_then(|()| Ok(kill_process(getpid(), Signal::KILL)?)));
        loop {
            thread::park();
        }
    }
}
