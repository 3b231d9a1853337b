//! What a history is like: everything that the seed decides before it starts.

use std::time::Duration;

use cdc_sink::batch::Limits;
use cdc_sink::generate::Shape;
use fastrand::Rng;

use super::chance::{chance, choose};
use super::faults::Rates;
use super::rogue::Deed;
use super::tables::Formats;

#[derive(Debug)]
pub(super) struct Setup {
    pub(super) formats: Formats,
    /// Iceberg tables are in a catalog.
    pub(super) has_catalog: bool,
    pub(super) shapes: Vec<Shape>,
    pub(super) partitions: i32,
    /// After how many changes there are so many; none when there always are.
    pub(super) grown: Option<Growth>,
    pub(super) changes: u64,
    pub(super) checkpoint_interval: u64,
    pub(super) partition_by: &'static str,
    pub(super) limits: Limits,
    pub(super) rates: Rates,
    /// Instances at the start.
    pub(super) instances: usize,
    /// What happens to them, one after the other.
    pub(super) actions: Vec<(Duration, Action)>,
}

/// The topics had fewer partitions at first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Growth {
    /// So many.
    pub(super) from: i32,
    /// For so many records of all topics.
    pub(super) after: usize,
}

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// An instance dies now.
    Crash,
    /// An instance dies at one of its next requests, before or after it.
    CrashAtRequest { after: u32, answered: bool },
    /// An instance is stopped for a moment.
    Pause,
    /// An instance is stopped for longer than the group waits.
    Zombie,
    /// One more instance.
    Join,
    /// An instance is told to stop.
    Leave,
    /// Partitions change hands for no reason.
    Rebalance,
    /// An instance is stopped for more than an hour, and somebody removes orphans meanwhile.
    Sweep,
    /// Somebody else commits to the tables.
    Foreign(Deed),
}

const ACTIONS: [(Action, u32); 12] = [
    (Action::Crash, 3),
    (Action::Pause, 2),
    (Action::Zombie, 3),
    (Action::Join, 2),
    (Action::Leave, 1),
    (Action::Rebalance, 2),
    (Action::Sweep, 1),
    (Action::Foreign(Deed::Append), 1),
    (Action::Foreign(Deed::Delete), 1),
    (Action::Foreign(Deed::Optimize), 2),
    (Action::Foreign(Deed::AddColumn), 1),
    (Action::Foreign(Deed::Restore), 1),
];

const FORMATS: [(Formats, u32); 5] = [
    (Formats::Delta, 4),
    (Formats::Iceberg(3), 3),
    (Formats::Iceberg(2), 2),
    (Formats::Both { delta_first: true }, 2),
    (Formats::Both { delta_first: false }, 1),
];

fn action(rng: &mut Rng) -> Action {
    if rng.u8(..3) == 0 {
        return Action::CrashAtRequest { after: rng.u32(1..40), answered: rng.bool() };
    }
    choose(rng, &ACTIONS)
}

impl Setup {
    fn growth(seed: u64, partitions: i32) -> Option<Growth> {
        let mut rng = chance(seed, &["growth"]);
        let grows = partitions > 1 && rng.u8(..3) == 0;
        grows.then(|| Growth { from: rng.i32(1..partitions), after: rng.usize(15..90) })
    }

    pub(super) fn draw(seed: u64) -> Self {
        let mut rng = chance(seed, &["setup"]);
        let rates = [(0, 0), (100, 10), (300, 30), (500, 60)];
        let (commits, others) = rates[rng.usize(..rates.len())];
        let formats = choose(&mut rng, &FORMATS);
        let has_catalog = formats != Formats::Delta && chance(seed, &["catalog"]).u8(..3) > 0;
        let two_topics = rng.u8(..5) == 0;
        let actions = (0..rng.usize(0..9)).map(|_| {
            let wait = Duration::from_millis(rng.u64(300..7_000));
            (wait, action(&mut rng))
        });
        let actions: Vec<(Duration, Action)> = actions.collect();
        let partitions = rng.i32(1..4);
        let grown = Self::growth(seed, partitions);
        // A row that is deleted by somebody who does not say where in the source's log comes back with an older change, and
        // what is noted of deletes is not taken back with the table.
        let tells =
            |action: &Action| !matches!(action, Action::Foreign(Deed::Delete | Deed::Restore));
        let may_be = |action: &Action| grown.is_none() || tells(action);
        let actions = actions.into_iter().filter(|(_, action)| may_be(action)).collect();
        Self {
            formats,
            has_catalog,
            shapes: if two_topics { vec![Shape::Stock, Shape::Events] } else { vec![Shape::Stock] },
            partitions,
            grown,
            changes: if two_topics { 90 } else { rng.u64(40..110) },
            checkpoint_interval: [0, 2, 5][rng.usize(..3)],
            partition_by: if rng.u8(..6) == 0 && !two_topics { "warehouse" } else { "" },
            limits: Limits {
                rows: rng.usize(6..25),
                bytes: usize::MAX,
                age: Duration::from_secs(5),
                idle: Duration::from_secs(1),
            },
            rates: Rates { commits, others },
            instances: rng.usize(1..4),
            actions,
        }
    }
}
