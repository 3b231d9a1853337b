//! The files of a table's folder, less those that are referred to.

use std::collections::HashMap;

use super::form::Form;

/// A file that nothing was found to refer to yet.
#[derive(Debug, Clone, Copy)]
struct Entry {
    folder: u32,
    form: Form,
    size: u64,
    young: bool,
}

/// The files of a folder to which nothing refers, as far as is known.
///
/// Files of our own are known by their names, which have a UUID: in whatever way a log spells a path, its last part is
/// the same. Of each file its name is held, where that is, and its size: about 110 bytes.
#[derive(Debug, Default)]
pub(super) struct Files {
    folders: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32>,
    /// By name.
    ours: HashMap<Box<str>, Entry>,
    /// By path. Those that nothing tells apart by name are among them.
    others: HashMap<Box<str>, Entry>,
    listed: u64,
}

/// A file to which nothing refers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) form: Form,
    pub(super) size: u64,
}

/// Files to which nothing refers.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Old enough, and of a form that is ours.
    pub(super) orphans: Vec<Found>,
    /// Of such a form, but too young.
    pub(super) young: u64,
    /// Not of such a form, however old.
    pub(super) unknown: Vec<Found>,
}

impl Files {
    /// Takes in a file of the folder, by its path below the table's root.
    pub(super) fn list(&mut self, path: &str, size: u64, young: bool) {
        self.listed += 1;
        let form = Form::of(path);
        if form == Form::Log {
            return;
        }
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.number(folder);
        let entry = Entry { folder, form, size, young };
        if form == Form::Foreign || self.ours.contains_key(name) {
            self.others.insert(path.into(), Entry { form: Form::Foreign, ..entry });
        } else {
            self.ours.insert(name.into(), entry);
        }
    }

    fn number(&mut self, folder: &str) -> u32 {
        if let Some(number) = self.numbers.get(folder) {
            return *number;
        }
        let number = u32::try_from(self.folders.len()).unwrap_or(u32::MAX);
        self.folders.push(folder.into());
        self.numbers.insert(folder.into(), number);
        number
    }

    /// Something refers to the file at `path`, which is absolute or relative to the table's root.
    pub(super) fn refer(&mut self, path: &str) {
        self.ours.remove(path.rsplit('/').next().unwrap_or(path));
        if !self.others.is_empty() {
            self.others.remove(path);
        }
    }

    /// Files listed.
    pub(super) fn listed(&self) -> u64 {
        self.listed
    }

    /// What nothing refers to, in the order of paths. Those that are not orphans are let go of.
    pub(super) fn left(&mut self) -> Left {
        let mut left = Left::default();
        for (path, Entry { form, size, .. }) in self.others.drain() {
            left.unknown.push(Found { path: path.into(), form, size });
        }
        let before = self.ours.len();
        self.ours.retain(|_, entry| !entry.young);
        left.young = u64::try_from(before - self.ours.len()).unwrap_or(u64::MAX);
        let folder = |number: u32| usize::try_from(number).ok().and_then(|at| self.folders.get(at));
        for (name, Entry { form, size, folder: number, .. }) in &self.ours {
            let path = match folder(*number).map_or("", |folder| folder) {
                "" => name.to_string(),
                folder => format!("{folder}/{name}"),
            };
            left.orphans.push(Found { path, form: *form, size: *size });
        }
        left.orphans.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        left.unknown.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        left
    }

    /// True when nothing was found meanwhile that refers to an orphan.
    pub(super) fn is_orphan(&self, orphan: &Found) -> bool {
        self.ours.contains_key(orphan.path.rsplit('/').next().unwrap_or(&orphan.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0fae3bbd-21bb-4e9e-9cf7-8a4e4a0d35b8";
    const B: &str = "1fae3bbd-21bb-4e9e-9cf7-8a4e4a0d35b8";

    fn data(folder: &str, id: &str) -> String {
        format!("data/{folder}part-{id}.parquet")
    }

    fn paths(files: &[Found]) -> Vec<&str> {
        files.iter().map(|file| file.path.as_str()).collect()
    }

    #[test]
    fn what_nothing_refers_to_is_left() {
        let mut files = Files::default();
        files.list("_delta_log/00000000000000000000.json", 1, false);
        files.list("notes.txt", 2, false);
        files.list("part-00000-x.snappy.parquet", 3, true);
        files.list(&data("region=a/", A), 4, false);
        files.list(&data("", B), 5, true);
        files.list(&format!("deletion_vector_{A}.bin"), 6, false);
        files.list(&format!("metadata/{A}-m0.avro"), 7, false);
        files.refer("part-00000-x.snappy.parquet");
        // However it is spelled.
        files.refer(&format!("s3a://bucket/elsewhere/metadata/{A}-m0.avro"));
        assert_eq!(files.listed(), 7);
        let left = files.left();
        assert_eq!(
            paths(&left.orphans),
            [data("region=a/", A), format!("deletion_vector_{A}.bin")]
        );
        assert_eq!(left.orphans[0].size, 4);
        assert_eq!((left.young, paths(&left.unknown)), (1, vec!["notes.txt"]));
        assert!(files.is_orphan(&left.orphans[0]));
        files.refer(&data("region=a/", A));
        assert!(!files.is_orphan(&left.orphans[0]));
    }

    /// A copy of a file: which of the two a log means is not told by its name.
    #[test]
    fn of_files_with_one_name_one_is_unknown() {
        let mut files = Files::default();
        files.list(&data("a=1/", A), 1, false);
        files.list(&data("a=2/", A), 1, false);
        files.refer(&data("a=2/", A));
        let left = files.left();
        assert!(left.orphans.is_empty() && left.unknown.is_empty(), "{left:?}");
    }
}
