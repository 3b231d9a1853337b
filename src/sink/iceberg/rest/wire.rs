//! What goes over the wire: the parts of Iceberg's REST specification that are used.

use std::collections::HashMap;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::vended::VendedStorage;
use super::{Commit, Secret, TableName};
use crate::error::{Error, Result};
use crate::sink::iceberg::catalog::LoadedTable;

/// Characters of a server's message that get into an error.
const MESSAGE_CHARS: usize = 300;

/// `GET /v1/config`. The list of endpoints is not read: the catalogs there are list endpoints they spell wrong.
#[derive(Deserialize)]
pub(super) struct CatalogConfig {
    #[serde(default)]
    pub(super) defaults: HashMap<String, String>,
    #[serde(default)]
    pub(super) overrides: HashMap<String, String>,
}

/// A table as the catalog gives it. Not `Debug`: it may hold secrets.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LoadResult<'a> {
    metadata_location: Option<String>,
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(default)]
    config: Option<HashMap<String, String>>,
    #[serde(default)]
    storage_credentials: Option<Vec<StorageCredential>>,
}

/// Credentials for the files below a prefix.
#[derive(Deserialize)]
struct StorageCredential {
    prefix: String,
    config: HashMap<String, String>,
}

/// The part of metadata that says where the table is.
#[derive(Deserialize)]
struct Located {
    location: String,
}

impl<'a> LoadResult<'a> {
    pub(super) fn parse(body: &'a [u8], name: &TableName) -> Result<Self> {
        serde_json::from_slice(body).map_err(|e| {
            let what = format!("cannot read what the catalog says of the Iceberg table {name}");
            unreadable(what, e)
        })
    }

    pub(super) fn metadata_location(&self) -> Option<&str> {
        self.metadata_location.as_deref()
    }

    pub(super) fn table(self) -> Result<LoadedTable> {
        LoadedTable::parse(
            self.metadata.get().as_bytes(),
            self.metadata_location.unwrap_or_default(),
        )
    }

    /// True when the table has a property of this name.
    pub(super) fn has_property(&self, name: &str) -> bool {
        #[derive(Deserialize)]
        struct Described {
            #[serde(default)]
            properties: HashMap<String, String>,
        }
        serde_json::from_str(self.metadata.get())
            .is_ok_and(|Described { properties }| properties.contains_key(name))
    }

    /// Settings of the table's storage: the catalog's `common` ones, this table's, and those of the longest prefix
    /// that the table is under. None when there are no credentials among them.
    pub(super) fn storage(&self, common: &HashMap<String, Secret>) -> Option<VendedStorage> {
        let Located { location } = serde_json::from_str(self.metadata.get()).ok()?;
        let mut settings = common.clone();
        let mut add = |config: &HashMap<String, String>| {
            settings.extend(config.iter().map(|(k, v)| (k.clone(), Secret::new(v.as_str()))));
        };
        self.config.iter().for_each(&mut add);
        let credentials = self.storage_credentials.iter().flatten();
        credentials
            .filter(|credential| location.starts_with(&credential.prefix))
            .max_by_key(|credential| credential.prefix.len())
            .into_iter()
            .for_each(|credential| add(&credential.config));
        VendedStorage::new(settings)
    }
}

/// The body of `POST …/tables/{table}`.
pub(super) fn commit_body(name: &TableName, commit: &Commit<'_>) -> serde_json::Result<Value> {
    let mut updates = serde_json::to_value(commit.updates)?;
    // Deprecated in the specification, required by Nessie.
    let last_column_id = commit.metadata.last_column_id();
    for update in updates.as_array_mut().into_iter().flatten() {
        if let Some(update) = update.as_object_mut()
            && update.get("action").is_some_and(|action| action == "add-schema")
        {
            update.insert("last-column-id".to_owned(), last_column_id.into());
        }
    }
    Ok(json!({
        "identifier": { "namespace": name.namespace, "name": name.name },
        "requirements": commit.requirements,
        "updates": updates,
    }))
}

/// A good answer that cannot be read. One that was cut off may be whole the next time; all else is for good.
pub(super) fn unreadable(what: String, error: serde_json::Error) -> Error {
    match error.is_eof() {
        true => Error::unavailable(what).because(error),
        false => Error::refused(what).because(error),
    }
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorModel,
}

#[derive(Deserialize)]
struct ErrorModel {
    #[serde(default)]
    message: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// The error that a bad answer is. Servers that are busy or broken may answer better later; all else is for good.
///
/// `unauthorized` is the hint for somebody who is not let in.
pub(super) fn refusal(what: &str, status: StatusCode, body: &[u8], unauthorized: &str) -> Error {
    let said = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) => format!("{} {}", error.kind, error.message),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let said: String = said.trim().chars().take(MESSAGE_CHARS).collect();
    let mut text = format!("{what}: the catalog answers {}", status.as_u16());
    if !said.is_empty() {
        text = format!("{text}: {said}");
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Error::unavailable(text),
        status if status.is_server_error() => Error::unavailable(text),
        StatusCode::UNAUTHORIZED => Error::refused(text).hint(unauthorized),
        _ => Error::refused(text),
    }
}
