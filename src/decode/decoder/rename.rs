//! The source's renames: a column of the table under another name, with its id and its values.

use std::sync::Arc;

use super::Decoder;
use super::drops::Drops;
use super::table::Wanted;
use crate::decode::evolve;
use crate::decode::history::SchemaHistory;
use crate::schema::{Column, is_metadata};

/// What becomes of columns that the source renames or drops.
#[derive(Debug, Default)]
pub(super) struct Fate {
    /// Tells which columns the source renamed, when it is known.
    pub(super) renames: Option<Renames>,
    /// When columns go that the source has no more, when they ever do.
    pub(super) drops: Option<Drops>,
    /// Columns that are never renamed or dropped: the table is partitioned by them.
    pub(super) kept: Vec<String>,
}

impl Fate {
    /// The table has another version: what was given up may be waited for again.
    pub(super) fn begin_anew(&mut self) {
        if let Some(renames) = &mut self.renames {
            renames.given_up = false;
        }
    }
}

/// Where a decoder learns of renames.
#[derive(Debug)]
pub(super) struct Renames {
    history: Arc<SchemaHistory>,
    topic: Arc<str>,
    /// The last schema that was asked for depends on what the history does not tell yet.
    pub(super) waits: bool,
    /// Nothing is waited for until the next commit.
    pub(super) given_up: bool,
}

impl Decoder {
    /// This decoder, which takes renames of columns from `history`. `topic` is its records' topic.
    #[must_use]
    pub fn with_history(mut self, history: Arc<SchemaHistory>, topic: Arc<str>) -> Self {
        self.fate.renames = Some(Renames { history, topic, waits: false, given_up: false });
        self
    }

    /// True when [`Self::table_schema`] failed because the history does not tell yet whether a column that is new is one
    /// that is gone.
    pub fn awaits_history(&self) -> bool {
        self.fate.renames.as_ref().is_some_and(|renames| renames.waits)
    }

    /// Does without the history until the next commit: such a column is a new one.
    pub fn give_up_on_history(&mut self) {
        if let Some(renames) = &mut self.fate.renames {
            (renames.waits, renames.given_up) = (false, true);
        }
    }

    /// Columns of these names stay what they are, as the table is partitioned by them: not every reader of Delta finds the
    /// values of a partition column under another name.
    pub fn keep_columns(&mut self, names: Vec<String>) {
        self.fate.kept = names;
    }

    /// Renames the columns that `names`, all those of a writer, has under other names; notes that it cannot be told yet.
    /// Events of an outbox have no table whose columns could be renamed.
    pub(super) fn settle_renames(&self, names: &[&str], wanted: &mut Wanted) {
        let renames = self.fate.renames.as_ref().filter(|_| self.options.outbox.is_none());
        let Some(renames) = renames.filter(|renames| renames.history.is_of(&renames.topic)) else {
            return;
        };
        let columns = &mut wanted.columns;
        let has = |name: &str| names.contains(&name);
        let known = |name: &str, columns: &[Column]| {
            let now = evolve::present_name(columns, has, name);
            columns.iter().position(|column| column.name == now)
        };
        let new: Vec<&str> =
            names.iter().filter(|name| known(name, columns).is_none()).copied().collect();
        let found: Vec<usize> = names.iter().filter_map(|name| known(name, columns)).collect();
        let stays = |name: &String| {
            is_metadata(name) || wanted.key.contains(name) || self.fate.kept.contains(name)
        };
        let is_gone = |(at, column): &(usize, &Column)| !found.contains(at) && !stays(&column.name);
        let gone: Vec<&str> =
            columns.iter().enumerate().filter(is_gone).map(|(_, c)| c.name.as_str()).collect();
        if new.is_empty() || gone.is_empty() {
            return;
        }
        let Some(lives) = renames.history.names(&renames.topic, names, &new, &gone) else {
            wanted.unexplained = true;
            return;
        };
        let claims = new.iter().zip(&lives).filter_map(|(name, life)| {
            let at = life.iter().position(|own| own == name)?;
            // The nearest name before, else the nearest after: the table may be ahead of a writer.
            let mut names = life.iter().take(at).rev().chain(life.iter().skip(at + 1));
            let column = names.find(|name| gone.contains(&name.as_str()))?;
            Some((*name, column.clone(), life))
        });
        let claims: Vec<_> = claims.collect();
        for (name, column, life) in &claims {
            // Of two that were one column, neither is it.
            if claims.iter().filter(|(_, other, _)| other == column).count() == 1 {
                take_name(columns, name, column, life);
            }
        }
    }
}

/// Gives `column` the name `name`, if that is the later one in the column's `life`, or notes that it had it.
fn take_name(columns: &mut [Column], name: &str, column: &str, life: &[String]) {
    let at = |name: &str| life.iter().position(|own| own == name);
    let (Some(old), Some(new)) = (at(column), at(name)) else { return };
    let now = if old < new { name } else { column };
    if old < new {
        evolve::rename(columns, column, name);
    }
    let Some(column) = columns.iter_mut().find(|column| column.name == now) else { return };
    let before = life.iter().take(old.max(new));
    let mut former: Vec<String> =
        before.filter(|name| !column.former.contains(name)).cloned().collect();
    if old < new {
        column.former.append(&mut former);
    } else {
        former.append(&mut column.former);
        column.former = former;
    }
}
