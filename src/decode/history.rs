//! What a connector's schema-change topic says of columns: which of them were renamed.
//!
//! Debezium's connectors for MySQL and MariaDB write every DDL statement into a topic of its own (`debezium.md` 1.11):
//! the statement, and the columns that its table has after it. A rename is taken from the statement, never guessed from
//! columns that come and go at once, and counts only when the table's columns before and after agree with it.
//!
//! Nothing orders this topic with those of the rows. A connector writes the schema change first, so it is at most late;
//! who needs it waits ([`crate::decode::Decoder::awaits_history`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use sqlparser::dialect::MySqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::Reject;
use super::avro;
use super::decoder::framed;
use super::registry::Registry;
use crate::error::{Error, Result};

/// Changes of one table that are kept, the newest.
const KEPT: usize = 1000;

/// The schema changes of a connector's tables, as far as they were read. Shared by whoever reads the topic and the
/// decoders of the tables.
#[derive(Debug, Default)]
pub struct SchemaHistory {
    told: Mutex<Told>,
    /// All that was in the topics at the start was taken in: what is told is not half of the truth.
    is_read: AtomicBool,
}

#[derive(Debug, Default)]
struct Told {
    /// The connectors' `topic.prefix`.
    prefixes: HashSet<String>,
    /// The states of tables, oldest first, by the topics of their rows.
    tables: HashMap<String, VecDeque<State>>,
}

/// A table's columns after a change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    columns: Vec<String>,
    /// Old and new name of the columns that the change renamed.
    renames: Vec<(String, String)>,
}

/// The names that a column had and has, in the order in which it had them.
pub(super) type Names = Vec<String>;

/// A record of the topic.
#[derive(Deserialize)]
struct SchemaChange {
    source: Source,
    #[serde(default)]
    ddl: Option<String>,
    #[serde(rename = "tableChanges", default)]
    changes: Vec<TableChange>,
}

#[derive(Deserialize)]
struct Source {
    /// The connector's `topic.prefix`.
    name: String,
}

#[derive(Deserialize)]
struct TableChange {
    /// `"database"."table"`, after a rename of the table the new name.
    id: String,
    #[serde(default)]
    table: Option<Table>,
}

#[derive(Deserialize)]
struct Table {
    columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

impl SchemaHistory {
    /// Takes in the value of a record of the topic, JSON with or without a schema, or Avro. Fails when it is no schema
    /// change ([`crate::error::Kind::Data`]) or the registry does not answer.
    pub async fn take(&self, value: &[u8], registry: Option<&Arc<Registry>>) -> Result<()> {
        let change = match framed(value) {
            Ok(Some((id, at))) => {
                let registry = registry.ok_or_else(|| {
                    Error::invalid(format!(
                        "a schema change was written with schema {id} of a registry"
                    ))
                    .hint("give the registry's address")
                })?;
                let text = registry.get(id).await?;
                let json = avro::Schema::parse(&text.schema, &text.references).and_then(|schema| {
                    schema.json(value, at).map_err(|broken| Reject::from(broken).message)
                });
                from_json(json.map_err(Error::data).map_err(unreadable)?.as_bytes())
            }
            _ => from_json(value),
        };
        let change = change.map_err(unreadable)?;
        self.add(&change);
        Ok(())
    }

    /// All that was in the topics when reading began was taken in. Nothing is told before.
    pub fn reach_end(&self) {
        self.is_read.store(true, Ordering::SeqCst);
    }

    fn add(&self, change: &SchemaChange) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.prefixes.insert(change.source.name.clone());
        let said = change.ddl.as_deref().map(renames).unwrap_or_default();
        for TableChange { id, table } in &change.changes {
            let Some(table) = table else { continue };
            let states = told.tables.entry(topic(&change.source.name, id)).or_default();
            let columns: Vec<String> =
                table.columns.iter().map(|column| column.name.clone()).collect();
            let before = states.back().map(|state| state.columns.as_slice());
            let renames = agreed(&said, before, &columns);
            let state = State { renames, columns };
            if states.back() != Some(&state) {
                states.push_back(state);
            }
            if states.len() > KEPT {
                states.pop_front();
            }
        }
    }

    /// False for a topic of another connector than those whose schema changes were read: nothing will be told of it.
    pub(super) fn is_of(&self, topic: &str) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |prefix: &String| {
            topic.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        !self.is_read() || told.prefixes.iter().any(is_own)
    }

    /// True when all that was in the topics when reading began was taken in.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::SeqCst)
    }

    /// The names of each of the columns `all` of a record of `topic` over its life; none when the topic does not tell yet of
    /// a table that has all of `new` and none of `gone`.
    pub(super) fn names(
        &self,
        topic: &str,
        all: &[&str],
        new: &[&str],
        gone: &[&str],
    ) -> Option<Vec<Names>> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let states = told.tables.get(topic).filter(|_| self.is_read())?;
        let plain = lives(states, all, new, gone);
        plain.or_else(|| lives(&states.iter().map(State::adjusted).collect(), all, new, gone))
    }
}

impl State {
    /// The same with the names that records have when the connector adjusts them to Avro.
    fn adjusted(&self) -> Self {
        let rename = |(from, to): &(String, String)| (adjusted(from), adjusted(to));
        Self {
            columns: self.columns.iter().map(|name| adjusted(name)).collect(),
            renames: self.renames.iter().map(rename).collect(),
        }
    }
}

/// A name as Debezium adjusts it to Avro (`field.name.adjustment.mode`, its `SchemaNameAdjuster`).
fn adjusted(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let digit = name.starts_with(|first: char| first.is_ascii_digit()).then_some('_');
    digit.into_iter().chain(name.chars().map(|c| if allowed(c) { c } else { '_' })).collect()
}

/// See [`SchemaHistory::names`].
fn lives(
    states: &VecDeque<State>,
    all: &[&str],
    new: &[&str],
    gone: &[&str],
) -> Option<Vec<Names>> {
    let has = |state: &State, name: &str| state.columns.iter().any(|column| column == name);
    let fits = |state: &State| {
        new.iter().all(|name| has(state, name)) && !gone.iter().any(|name| has(state, name))
    };
    // A connector may leave columns out.
    let is_whole =
        |state: &State| state.columns.len() == all.len() && all.iter().all(|name| has(state, name));
    let at = states.iter().rposition(is_whole).or_else(|| states.iter().rposition(fits))?;
    let life = |name: &&str| -> Names {
        let mut names = VecDeque::from([(*name).to_owned()]);
        let mut earlier = states.iter().take(at + 1).rev().peekable();
        while let (Some(state), Some(first)) = (earlier.next(), names.front().cloned()) {
            let renamed = state.renames.iter().find(|(_, to)| *to == first);
            let before = renamed.map_or(&first, |(from, _)| from);
            if renamed.is_some() {
                names.push_front(before.clone());
            } else if earlier.peek().is_none_or(|state| !has(state, before)) {
                break;
            }
        }
        for state in states.iter().skip(at + 1) {
            let Some(last) = names.back() else { break };
            match state.renames.iter().find(|(from, _)| from == last) {
                Some((_, to)) => names.push_back(to.clone()),
                None if has(state, last) => {}
                None => break,
            }
        }
        names.into()
    };
    Some(all.iter().map(life).collect())
}

fn from_json(value: &[u8]) -> serde_json::Result<SchemaChange> {
    #[derive(Deserialize)]
    struct Wrapped {
        payload: SchemaChange,
    }
    match serde_json::from_slice::<Wrapped>(value) {
        Ok(wrapped) => Ok(wrapped.payload),
        Err(_) => serde_json::from_slice(value),
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::data("a record of the schema-change topic is no schema change of Debezium")
        .because(error)
}

/// The topic of a table's rows (Debezium's `DefaultTopicNamingStrategy`): what a topic's name cannot have is `_`.
fn topic(prefix: &str, id: &str) -> String {
    let id = id.rsplit_once("\",\"").map_or(id, |(_, new)| new);
    let table = id.trim_matches('"').replace("\".\"", ".");
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    format!("{prefix}.{table}").chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

/// The renames of a statement in the spelling of the table's columns, as far as these agree with them: an old name is gone
/// unless another column got it, and a new one was not there unless another column had it. Names in statements may differ
/// in case.
fn agreed(
    said: &[(String, String)],
    before: Option<&[String]>,
    after: &[String],
) -> Vec<(String, String)> {
    let named = |columns: &[String], name: &str| {
        let exact = columns.iter().find(|column| *column == name);
        exact.or_else(|| columns.iter().find(|c| c.to_lowercase() == name.to_lowercase())).cloned()
    };
    let spelled = said.iter().filter_map(|(from, to)| {
        let from = before.map_or_else(|| Some(from.clone()), |before| named(before, from))?;
        Some((from, named(after, to)?))
    });
    let spelled: Vec<(String, String)> = spelled.collect();
    let agrees = |(from, to): &&(String, String)| {
        let was_there = before.is_some_and(|before| before.contains(to));
        let left = spelled.iter().any(|(other, _)| other == to);
        let taken = spelled.iter().any(|(_, other)| other == from);
        (!was_there || left) && (!after.contains(from) || taken)
    };
    spelled.iter().filter(agrees).cloned().collect()
}

/// Old and new names in a statement's clauses `CHANGE [COLUMN] a b …` and `RENAME COLUMN a TO b`. Both first words are
/// reserved in MySQL and MariaDB: unquoted and outside of parentheses they begin a clause. Only these are looked for, so
/// that what else a statement says need not be understood.
fn renames(ddl: &str) -> Vec<(String, String)> {
    let Ok(tokens) = Tokenizer::new(&MySqlDialect {}, ddl).tokenize() else { return Vec::new() };
    let mut tokens = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let mut renames = Vec::new();
    let mut depth = 0_usize;
    if !tokens.next().is_some_and(|token| is(token, "ALTER")) {
        return renames;
    }
    while let Some(token) = tokens.next() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            token if depth == 0 && (is(token, "CHANGE") || is(token, "RENAME")) => {
                let mut clause = tokens.clone().peekable();
                let column = clause.next_if(|token| is(token, "COLUMN")).is_some();
                if clause.next_if(|token| is(token, "IF")).is_some() {
                    clause.next_if(|token| is(token, "EXISTS"));
                }
                let from = clause.next().and_then(name);
                let is_change = is(token, "CHANGE");
                let to_follows = is_change || clause.next().is_some_and(|token| is(token, "TO"));
                let to = clause.next().and_then(name);
                if (is_change || column) && to_follows {
                    renames.extend(from.zip(to));
                }
            }
            _ => {}
        }
    }
    renames
}

/// True for an unquoted word.
fn is(token: &Token, word: &str) -> bool {
    let Token::Word(found) = token else { return false };
    found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word)
}

/// The name that a token is.
fn name(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.value.clone()),
        // With the SQL mode ANSI_QUOTES.
        Token::DoubleQuotedString(name) => Some(name.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
