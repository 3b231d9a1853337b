//! The source's renames: a column of the table under another name, with its id and its values.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Decoder;
use super::drops::Drops;
use super::table::Wanted;
use crate::decode::evolve;
use crate::decode::history::{Names, SchemaHistory};
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
        let moves = columns.iter().enumerate().filter(|(_, column)| !stays(&column.name));
        let (kept, gone): (Vec<_>, Vec<_>) = moves.partition(|(at, _)| found.contains(at));
        let name_of = |(_, column): (usize, &Column)| column.name.clone();
        let gone: Vec<String> = gone.into_iter().map(name_of).collect();
        let kept: Vec<String> = kept.into_iter().map(name_of).collect();
        if new.is_empty() || (gone.is_empty() && kept.is_empty()) {
            return;
        }
        let history = &renames.history;
        let missing: Vec<&str> = gone.iter().map(String::as_str).collect();
        let Some(lives) = history.names(&renames.topic, names, &new, &missing) else {
            // A new name alone is hardly ever a rename: what is read by now would tell of it.
            wanted.unexplained |= !gone.is_empty() || !history.is_read();
            return;
        };
        let lives = names.iter().copied().zip(&lives).collect();
        for Claim { name, column, life } in claims(new, &lives, &kept, &gone) {
            take_name(columns, name, column, life);
        }
    }
}

/// A column of the table that gets a name.
struct Claim<'a> {
    name: &'a str,
    column: &'a str,
    life: &'a [String],
}

/// Which columns of the table the names `new` are for. `lives` has the names over time of all columns of the writer; it has
/// those of `kept` under these names too, and not those of `gone`.
///
/// A name of `kept` that a new one's column had before was used again since: the table knows the column only from before,
/// or it would know its later name. So it is what the later name is for, and the name that was used again is new itself.
fn claims<'a>(
    new: Vec<&'a str>,
    lives: &HashMap<&'a str, &'a Names>,
    kept: &'a [String],
    gone: &'a [String],
) -> Vec<Claim<'a>> {
    let mut claims: Vec<Claim<'a>> = Vec::new();
    let mut open = VecDeque::from(new);
    while let Some(name) = open.pop_front() {
        let Some(life) = lives.get(name) else { continue };
        let Some(at) = life.iter().position(|own| own == name) else { continue };
        let is_gone = |name: &&String| gone.contains(name);
        let is_again = |name: &String| kept.contains(name) && lives.contains_key(name.as_str());
        let is_free = |name: &&String| is_gone(name) || is_again(name);
        // The nearest name before, else the nearest after: the table may be ahead of a writer.
        let before = life.iter().take(at).rev().find(is_free);
        let Some(column) = before.or_else(|| life.iter().skip(at + 1).find(is_gone)) else {
            continue;
        };
        let is_open = open.contains(&column.as_str());
        if let Some((again, _)) = lives.get_key_value(column.as_str())
            && !is_open
            && claims.iter().all(|claim| claim.name != *again)
        {
            open.push_back(again);
        }
        claims.push(Claim { name, column, life });
    }
    // Of two that were one column, neither is it.
    let columns: Vec<&str> = claims.iter().map(|claim| claim.column).collect();
    claims.retain(|claim| columns.iter().filter(|column| **column == claim.column).count() == 1);
    claims
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
