//! What happened in a history, line by line, and the history's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use tokio::time::Instant;

/// The record of one history. Clones write to the same.
#[derive(Debug, Clone)]
pub(super) struct Trace {
    start: Instant,
    home: ThreadId,
    now: Arc<AtomicU64>,
    lines: Arc<Mutex<Vec<(u64, String)>>>,
    aloud: bool,
}

impl Trace {
    /// A trace that starts now; one that is `aloud` prints its lines as they come.
    pub(super) fn new(aloud: bool) -> Self {
        let home = std::thread::current().id();
        Self { start: Instant::now(), home, now: Arc::default(), lines: Arc::default(), aloud }
    }

    /// True on the thread of the history, whose clock is the simulated one.
    pub(super) fn is_at_home(&self) -> bool {
        std::thread::current().id() == self.home
    }

    /// Milliseconds since the start of the history.
    pub(super) fn millis(&self) -> u64 {
        if self.is_at_home() {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap();
            self.now.store(now, Ordering::SeqCst);
        }
        self.now.load(Ordering::SeqCst)
    }

    /// The moment so many milliseconds after the start.
    pub(super) fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    #[expect(clippy::print_stdout, reason = "a history that is run alone is told")]
    pub(super) fn say(&self, line: String) {
        let now = self.millis();
        if self.aloud {
            println!("{:>9.3}s {line}", now as f64 / 1e3);
        }
        self.lines.lock().unwrap().push((now, line));
    }

    /// The lines in the order of time; those of one moment in the order of their text.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.sort();
        lines.into_iter().map(|(at, line)| format!("{:>9.3}s {line}", at as f64 / 1e3)).collect()
    }
}
