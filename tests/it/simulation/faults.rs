//! What can go wrong with a request to the store or to the catalog, how often it does in a history, and how often it did.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fastrand::Rng;

use super::catalog::Call;
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

/// What goes wrong with one request to the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CatalogFault {
    /// It is not done: the server is broken or busy, or the connection is reset.
    Before,
    /// It is done, and the server or a proxy says that it is broken, or the connection is reset.
    After,
    /// It is done or read, and half of the answer comes.
    Cut,
    /// It is done, a proxy repeats it, and the answer is that it was done before (409).
    Repeated,
    /// It is not done, and the answer is that another one was (409).
    Conflict,
    /// The answer is that it failed; it is done long after.
    Late,
    /// It is not done, and fails when the client gives up.
    Hang,
    /// It is done, and the client gives up waiting for the answer.
    HangAfter,
    /// It is not done: the client may not do that (403), for a moment.
    Forbidden,
    /// It is not done: no token that was given is good any more.
    Revoked,
    /// What a table was like one version ago is told.
    Behind,
    /// It takes long.
    Slow,
}

/// Every fault of the catalog; a run must have seen each.
pub(super) const CATALOG_FAULTS: [CatalogFault; 12] = [
    CatalogFault::Before,
    CatalogFault::After,
    CatalogFault::Cut,
    CatalogFault::Repeated,
    CatalogFault::Conflict,
    CatalogFault::Late,
    CatalogFault::Hang,
    CatalogFault::HangAfter,
    CatalogFault::Forbidden,
    CatalogFault::Revoked,
    CatalogFault::Behind,
    CatalogFault::Slow,
];

impl CatalogFault {
    /// What counts it.
    pub(super) fn counter(self) -> String {
        format!("catalog {self:?}")
    }
}

impl Call {
    /// What may go wrong with it, and how often each in proportion.
    fn faults(self) -> &'static [(CatalogFault, u32)] {
        match self {
            Self::Commit => &[
                (CatalogFault::Before, 3),
                (CatalogFault::After, 4),
                (CatalogFault::Cut, 1),
                (CatalogFault::Repeated, 3),
                (CatalogFault::Conflict, 2),
                (CatalogFault::Late, 7),
                (CatalogFault::Hang, 1),
                (CatalogFault::HangAfter, 2),
                (CatalogFault::Forbidden, 1),
                (CatalogFault::Revoked, 1),
                (CatalogFault::Slow, 1),
            ],
            Self::Create => &[
                (CatalogFault::Before, 3),
                (CatalogFault::After, 3),
                (CatalogFault::Cut, 1),
                (CatalogFault::Repeated, 2),
                (CatalogFault::Conflict, 1),
                (CatalogFault::Late, 2),
                (CatalogFault::HangAfter, 1),
                (CatalogFault::Revoked, 1),
            ],
            Self::Load => &[
                (CatalogFault::Before, 4),
                (CatalogFault::Cut, 1),
                (CatalogFault::Behind, 5),
                (CatalogFault::Hang, 1),
                (CatalogFault::Forbidden, 1),
                (CatalogFault::Revoked, 1),
                (CatalogFault::Slow, 1),
            ],
            Self::Look | Self::Found | Self::Config | Self::Token => &[
                (CatalogFault::Before, 3),
                (CatalogFault::After, 2),
                (CatalogFault::Hang, 1),
                (CatalogFault::Slow, 1),
            ],
        }
    }
}

/// What a request to the store is.
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

    pub(super) fn draw_of_catalog(self, call: Call, rng: &mut Rng) -> Option<CatalogFault> {
        let rate = match call {
            Call::Commit | Call::Create => self.commits,
            // There are few of them, and much hangs on some.
            Call::Load => self.others * 4,
            Call::Look | Call::Found | Call::Config | Call::Token => self.others,
        };
        one_in(rng, rate).then(|| choose(rng, call.faults()))
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
