//! Errors of the object store and of the `iceberg` crate, in the terms of [`crate::error`].

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

/// A file that is gone does not come back.
fn store_kind(error: &object_store::Error) -> Kind {
    match error {
        object_store::Error::NotFound { .. } => Kind::Data,
        error => storage::kind(error),
    }
}
