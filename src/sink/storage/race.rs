//! Whether a store lets one alone of several writers make a file. What commits without a catalog rests on: two writers
//! who both make the next version of a log would overwrite each other's.

use futures::future::join_all;
use object_store::{ObjectStoreExt, PutMode};
use uuid::Uuid;

use super::{Location, failed};
use crate::error::{Error, Result};

/// Writers that ask for one file at once.
const WRITERS: usize = 32;
/// Races that nobody may win before the store is refused: an answer that was lost on its way looks so, once.
const RACES: usize = 3;

/// What the writers were told.
#[derive(Debug, Default)]
struct Told {
    /// Who made the file.
    winners: Vec<usize>,
    /// How many were told that there is one.
    losers: usize,
    /// Why another one got no answer, the first of them.
    failure: Option<object_store::Error>,
}

/// Has writers race for new files below `location`, and removes those. Fails with [`crate::error::Kind::Refused`] when
/// the store does not let exactly one make a file, or keeps another one's content; with what the store answers when it
/// cannot be asked.
pub(super) async fn check(location: &Location) -> Result<()> {
    for _ in 0..RACES {
        let file = location.path.clone().join(format!(".cdc-sink-probe-{}", Uuid::new_v4()));
        let judged = judge(location, &file, run(location, &file).await).await;
        match location.store.delete(&file).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(e) if judged.is_ok() => return Err(failed(cannot_write(location), e)),
            Err(_) => {}
        }
        if judged? {
            return Ok(());
        }
    }
    Err(unfit(location, "lets nobody make a file that is not there"))
}

async fn run(location: &Location, file: &object_store::path::Path) -> Told {
    let writers = (0..WRITERS).map(|writer| async move {
        let content = writer.to_string();
        (writer, location.store.put_opts(file, content.into(), PutMode::Create.into()).await)
    });
    let mut told = Told::default();
    for (writer, answer) in join_all(writers).await {
        match answer {
            Ok(_) => told.winners.push(writer),
            Err(
                object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. },
            ) => told.losers += 1,
            Err(e) => told.failure = told.failure.or(Some(e)),
        }
    }
    told
}

/// True when one writer won, false when nobody did.
async fn judge(location: &Location, file: &object_store::path::Path, told: Told) -> Result<bool> {
    let winner = match (told.winners.as_slice(), told.failure) {
        ([_, _, ..], _) => {
            let winners = told.winners.len();
            let what = format!("lets {winners} of {WRITERS} writers make the same new file");
            return Err(unfit(location, &what));
        }
        ([winner], None) => *winner,
        // Who got no answer does not matter as long as somebody was told no.
        ([winner], Some(_)) if told.losers > 0 => *winner,
        (_, Some(e)) => return Err(failed(cannot_write(location), e)),
        ([], None) => return Ok(false),
    };
    let read = async { location.store.get(file).await?.bytes().await };
    match read.await {
        Ok(content) if content == winner.to_string() => Ok(true),
        Ok(_) | Err(object_store::Error::NotFound { .. }) => {
            Err(unfit(location, "does not keep what the one writer wrote whom it let make a file"))
        }
        Err(e) => Err(failed(format!("cannot read from the warehouse {}", location.url), e)),
    }
}

fn cannot_write(location: &Location) -> String {
    format!("cannot write to the warehouse {}", location.url)
}

fn unfit(location: &Location, what: &str) -> Error {
    Error::refused(format!("the store of the warehouse {} {what}", location.url)).hint(
        "two writers would overwrite each other's commits: use a store, or a release of it, that honours \
         If-None-Match on PUT also when requests come at once; Iceberg alone with --catalog needs none",
    )
}

#[cfg(test)]
mod tests;
