//! What can go wrong with a request to the store, how often it does in a history, and how often it did.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fastrand::Rng;

use super::chance::{choose, one_in};

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// It is not done and fails.
    Before,
    /// It is done, and the answer is lost.
    After,
    /// It is done, its answer is lost, and the client's second attempt finds the file there.
    AfterThenExists,
    /// It is not done, and the answer is that there is such a file (a store's 409).
    ExistsButIsNot,
    /// It is not done, and the answer is that a condition does not hold (a proxy's 412).
    ConditionButIsNot,
    /// The answer is that it failed; it is done long after.
    Late,
    /// It is not done, and fails when the client gives up.
    Hang,
    /// It is done, and the client gives up waiting for the answer.
    HangAfter,
    /// Half of the bytes are stored, and it fails.
    Torn,
    /// Files that are young are not listed.
    LyingList,
    /// It takes long.
    Slow,
}

/// Every fault; a run must have seen each.
pub(super) const FAULTS: [Fault; 11] = [
    Fault::Before,
    Fault::After,
    Fault::AfterThenExists,
    Fault::ExistsButIsNot,
    Fault::ConditionButIsNot,
    Fault::Late,
    Fault::Hang,
    Fault::HangAfter,
    Fault::Torn,
    Fault::LyingList,
    Fault::Slow,
];

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Request {
    /// Puts a file that must not exist: the request of a commit.
    Create,
    /// Puts a file under a name that nobody else uses.
    Write,
    /// Puts a file over another: a hint.
    Overwrite,
    Read,
    Delete,
    List,
}

impl Request {
    /// What may go wrong with it, and how often each in proportion.
    fn faults(self) -> &'static [(Fault, u32)] {
        match self {
            Self::Create => &[
                (Fault::Before, 3),
                (Fault::After, 4),
                (Fault::AfterThenExists, 3),
                (Fault::ExistsButIsNot, 2),
                (Fault::ConditionButIsNot, 1),
                (Fault::Late, 4),
                (Fault::Hang, 1),
                (Fault::HangAfter, 2),
                (Fault::Slow, 1),
            ],
            Self::Write => &[
                (Fault::Before, 3),
                (Fault::After, 2),
                (Fault::Late, 2),
                (Fault::Hang, 1),
                (Fault::HangAfter, 1),
                (Fault::Torn, 3),
                (Fault::Slow, 1),
            ],
            Self::Overwrite | Self::Delete => {
                &[(Fault::Before, 2), (Fault::After, 2), (Fault::Late, 2), (Fault::Slow, 1)]
            }
            Self::Read => &[(Fault::Before, 4), (Fault::Hang, 1), (Fault::Slow, 1)],
            Self::List => &[(Fault::Before, 2), (Fault::LyingList, 3), (Fault::Slow, 1)],
        }
    }
}

/// How often requests fail in a history, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    pub(super) commits: u32,
    pub(super) others: u32,
}

impl Rates {
    pub(super) fn draw(self, request: Request, rng: &mut Rng) -> Option<Fault> {
        let rate = if request == Request::Create { self.commits } else { self.others };
        if !one_in(rng, rate) {
            return None;
        }
        Some(choose(rng, request.faults()))
    }
}

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    pub(super) fn count(&self, what: &str) {
        self.add(what, 1);
    }

    pub(super) fn add(&self, what: &str, number: u64) {
        *self.0.lock().unwrap().entry(what.to_owned()).or_default() += number;
    }

    pub(super) fn get(&self, what: &str) -> u64 {
        self.0.lock().unwrap().get(what).copied().unwrap_or_default()
    }

    pub(super) fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap().clone()
    }
}
