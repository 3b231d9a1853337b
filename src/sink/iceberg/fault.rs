//! Errors of the object store and of the `iceberg` crate, in the terms of [`crate::error`].

use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use crate::error::{Error, Kind};
use crate::sink::storage;

/// An error of the object store while doing `what`.
pub(super) fn store(what: impl Into<String>, error: object_store::Error) -> Error {
    Error::new(store_kind(&error), what).because(error)
}

/// An error of the `iceberg` crate while doing `what`; what the object store answered decides, where it was asked.
pub(super) fn iceberg(what: impl Into<String>, error: iceberg::Error) -> Error {
    let kind = match storage::asked(&error) {
        Some(inner) => store_kind(inner),
        None => match error.kind() {
            iceberg::ErrorKind::DataInvalid => Kind::Data,
            iceberg::ErrorKind::FeatureUnsupported => Kind::Refused,
            _ => Kind::Internal,
        },
    };
    Error::new(kind, what).because(error)
}

/// Reads a manifest or a list of them. The crate's Avro reader panics at some damaged headers; that is an error as others are.
pub(super) async fn contained<T>(
    path: &str,
    reading: impl Future<Output = iceberg::Result<T>>,
) -> iceberg::Result<T> {
    AssertUnwindSafe(reading).catch_unwind().await.unwrap_or_else(|_| {
        let text = format!("{path} is damaged: it cannot be read as Avro");
        Err(iceberg::Error::new(iceberg::ErrorKind::DataInvalid, text))
    })
}

/// A file that is gone does not come back.
fn store_kind(error: &object_store::Error) -> Kind {
    match error {
        object_store::Error::NotFound { .. } => Kind::Data,
        error => storage::kind(error),
    }
}
