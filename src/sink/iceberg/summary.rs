//! A snapshot's summary: what a commit added and removed, what the table then holds, and where the sink is.

use std::collections::{BTreeMap, HashMap};

use iceberg::spec::{DataContentType, DataFile, DataFileFormat, Operation, Summary};

/// Counts the files that a commit adds and removes.
#[derive(Debug, Default)]
pub(super) struct Counts {
    counts: BTreeMap<&'static str, u64>,
    rows_added: bool,
    rows_removed: bool,
}

/// Totals, with the counts that raise and lower them.
const TOTALS: [(&str, &str, &str); 6] = [
    ("total-data-files", "added-data-files", "deleted-data-files"),
    ("total-delete-files", "added-delete-files", "removed-delete-files"),
    ("total-records", "added-records", "deleted-records"),
    ("total-files-size", "added-files-size", "removed-files-size"),
    ("total-position-deletes", "added-position-deletes", "removed-position-deletes"),
    ("total-equality-deletes", "added-equality-deletes", "removed-equality-deletes"),
];

impl Counts {
    pub(super) fn add(&mut self, file: &DataFile) {
        let rows = file.record_count();
        self.count("added-files-size", content_size(file));
        if file.content_type() == DataContentType::Data {
            self.rows_added = true;
            self.count("added-data-files", 1);
            self.count("added-records", rows);
        } else {
            self.rows_removed = true;
            self.count("added-delete-files", 1);
            self.count(
                if is_vector(file) { "added-dvs" } else { "added-position-delete-files" },
                1,
            );
            self.count("added-position-deletes", rows);
        }
    }

    pub(super) fn remove(&mut self, file: &DataFile) {
        let rows = file.record_count();
        self.count("removed-files-size", content_size(file));
        if file.content_type() == DataContentType::Data {
            self.rows_removed = true;
            self.count("deleted-data-files", 1);
            self.count("deleted-records", rows);
        } else {
            self.count("removed-delete-files", 1);
            self.count(
                if is_vector(file) { "removed-dvs" } else { "removed-position-delete-files" },
                1,
            );
            self.count("removed-position-deletes", rows);
        }
    }

    fn count(&mut self, name: &'static str, n: u64) {
        *self.counts.entry(name).or_default() += n;
    }

    /// The summary of the snapshot that follows one with the summary `parent`, with the sink's own entries.
    pub(super) fn summary(
        &self,
        parent: Option<&Summary>,
        own: HashMap<String, String>,
    ) -> Summary {
        let operation = match (self.rows_added, self.rows_removed) {
            (true, true) => Operation::Overwrite,
            (false, true) => Operation::Delete,
            _ => Operation::Append,
        };
        let mut properties = own;
        let changed = self.counts.iter().filter(|(_, n)| **n > 0);
        properties.extend(changed.map(|(name, n)| ((*name).to_owned(), n.to_string())));
        let count = |name: &str| self.counts.get(name).copied().unwrap_or(0);
        for (total, added, removed) in TOTALS {
            let before = match parent {
                Some(parent) => {
                    parent.additional_properties.get(total).and_then(|n| n.parse::<u64>().ok())
                }
                None => Some(0),
            };
            // A parent of another engine without totals leaves them unknown for good: better none than wrong ones.
            if let Some(before) = before {
                let after = (before + count(added)).saturating_sub(count(removed));
                properties.insert(total.to_owned(), after.to_string());
            }
        }
        properties.insert("engine-name".to_owned(), "cdc-sink".to_owned());
        properties.insert("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Summary { operation, additional_properties: properties }
    }
}

/// As the Java library counts: a deletion vector is its blob, not the Puffin file around it.
fn content_size(file: &DataFile) -> u64 {
    let content = file.content_size_in_bytes().and_then(|size| u64::try_from(size).ok());
    content.unwrap_or_else(|| file.file_size_in_bytes())
}

fn is_vector(file: &DataFile) -> bool {
    file.file_format() == DataFileFormat::Puffin
}
