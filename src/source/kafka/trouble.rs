//! What goes wrong with one partition, and how it is told.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::Error;
use crate::position::{TopicId, TopicPartition};

/// Why a partition was not read.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The start is no offset of the partition; librdkafka's reason.
    OutOfRange(String),
    /// The rest of the partition cannot be read as it is.
    Broken(RDKafkaErrorCode, String),
    /// It goes on by itself.
    Passing(KafkaError, String),
}

impl Trouble {
    /// What an error of a partition's queue means; `reason` is librdkafka's text.
    pub(super) fn of(error: KafkaError, reason: String) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => Self::OutOfRange(reason),
            // A damaged or unreadable batch is reported and then skipped by librdkafka: reading on would lose it.
            Some(
                code @ (RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::TopicAuthorizationFailed),
            ) => Self::Broken(code, reason),
            _ => Self::Passing(error, reason),
        }
    }
}

/// The error of a partition that cannot be read on.
pub(super) fn broken(id: &TopicPartition, code: RDKafkaErrorCode, reason: &str) -> Error {
    let what = format!("cannot read {id} on: {reason}");
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            Error::refused(what).hint("allow the user to read and describe the topic")
        }
        _ => Error::data(what).hint("a batch of records is damaged or packed in an unknown way"),
    }
    .because(KafkaError::MessageConsumption(code))
}

/// What tells that a log is not the one that was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// The topic has another id than the one that was read.
    Id { read: TopicId, found: TopicId },
    /// All of its records are newer than what was read.
    Newer,
}

/// The error of a partition whose log is not the one that was read before.
pub(super) fn made_anew(id: &TopicPartition, at: Option<i64>, anew: Anew) -> Error {
    let why = match anew {
        Anew::Id { read, found } => {
            format!("its topic has the id {found}, the one that was read had {read}")
        }
        Anew::Newer => {
            "all of its records, also those before, are newer than what was read of it".to_owned()
        }
    };
    Error::data(format!("cannot read {id} on from offset {}: {why}", at.unwrap_or_default())).hint(
        "the topic was deleted and made again: what it has from its beginning was not read; take a new snapshot into a new \
         table, or let this one go on behind it with `cdc-sink offsets accept-gap --position`",
    )
}

/// The error of a partition that has no such offset as its table needs next.
pub(super) fn out_of_range(
    id: &TopicPartition,
    at: Option<i64>,
    watermarks: Option<(i64, i64)>,
    reason: &str,
) -> Error {
    let from = match at {
        Some(offset) => format!("offset {offset}, the next one its table needs"),
        None => "its oldest record".to_owned(),
    };
    let Some((low, high)) = watermarks else {
        return Error::data(format!("cannot read {id} from {from}: {reason}"))
            .hint("the brokers did not tell which offsets there are");
    };
    let error = Error::data(format!(
        "cannot read {id} from {from}: the topic has offsets from {low} to {high} (not included)"
    ));
    match at {
        Some(offset) if offset < low => error.hint(
            "the records between were deleted before they were read; take a new snapshot of the table, \
             or accept the gap by moving the table's position",
        ),
        Some(offset) if offset > high => error.hint(
            "the topic is shorter than what was read of it: it was deleted and made again, or lost \
             records; do not read on by number, but take a new snapshot of the table",
        ),
        _ => error.hint(format!("the client says: {reason}")),
    }
}
