//! What a file in a table's folder is, by its name alone.

use std::sync::LazyLock;

use regex::Regex;

/// The folder of Iceberg's metadata below its home.
const METADATA: &str = "metadata/";
/// The homes that an Iceberg table has below the root of a table: where it shares the data files, and where it is alone.
pub(super) const HOMES: [&str; 2] = ["_iceberg/", ""];
/// The folder of Delta's log.
const LOG: &str = "_delta_log/";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// Part of a log: of Delta's, or Iceberg's hint of its newest version. Nothing names it, and it is never an orphan.
    Log,
    /// A data file as this sink names them.
    Data,
    /// A file of Delta's deletion vectors.
    DeletionVector,
    /// A file of Iceberg's deletes: a Puffin, or positions.
    Deletes,
    /// An Iceberg manifest.
    Manifest,
    /// The list of an Iceberg snapshot's manifests.
    ManifestList,
    /// Iceberg's table metadata.
    Metadata,
    /// Half a file, or one that was made to try the store out.
    Temporary,
    /// Nothing that this sink or its catalogs write.
    Foreign,
}

impl Form {
    /// What the file is called that has this form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Data => "data file",
            Self::DeletionVector => "deletion vectors",
            Self::Deletes => "delete file",
            Self::Manifest => "manifest",
            Self::ManifestList => "manifest list",
            Self::Metadata => "table metadata",
            Self::Temporary => "temporary file",
            Self::Foreign => "unknown file",
        }
    }

    /// The form of the file at `path`, relative to the table's root.
    pub(super) fn of(path: &str) -> Self {
        if let Some(whole) = staged(path) {
            // What was to become a file that belongs here.
            return if Self::of(whole) == Self::Foreign { Self::Foreign } else { Self::Temporary };
        }
        let known = FORMS.iter().find(|(_, name)| name.is_match(path));
        match known {
            Some((form, _)) => *form,
            None if path.starts_with(LOG) => Self::Log,
            None => Self::Foreign,
        }
    }
}

/// Forms by the names that files of them have; `U` stands for a UUID.
#[rustfmt::skip]
static FORMS: LazyLock<Vec<(Form, Regex)>> = LazyLock::new(|| {
    let names = [
        (Form::Data, r"^data/(?:[^/]+=[^/]*/)*part-U\.parquet$"),
        (Form::DeletionVector, r"^deletion_vector_U\.bin$"),
        (Form::Deletes, r"^(?:_iceberg/)?data/U-\d{5,}-deletes\.(?:puffin|parquet)$"),
        (Form::Manifest, r"^(?:_iceberg/)?metadata/U-m\d+\.avro$"),
        (Form::ManifestList, r"^(?:_iceberg/)?metadata/snap-\d+-U\.avro$"),
        // Without a catalog the version, else what catalogs write for us.
        (Form::Metadata, r"^(?:_iceberg/)?metadata/(?:v\d+|(?:\d+-)?U)(?:\.gz)?\.metadata\.json$"),
        (Form::Log, r"^(?:_iceberg/)?metadata/version-hint\.text$"),
        // Commits on their way into Delta's log, of delta-rs and of Spark.
        (Form::Temporary, r"^_delta_log/(?:_commit_U\.json|\.\d{20}\.json\.U)\.tmp$"),
        (Form::Temporary, r"^\.cdc-sink-probe-U$"),
    ];
    let uuid = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
    let compiled = names.into_iter().map(|(form, name)| (form, Regex::new(&name.replace('U', uuid))));
    compiled.filter_map(|(form, name)| Some((form, name.ok()?))).collect()
});

/// The file that a local disk was to get, whose first bytes are in the file at `path`: they are renamed at the end.
pub(super) fn staged(path: &str) -> Option<&str> {
    let (whole, number) = path.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(whole)
}

/// The home of an Iceberg table (see [`HOMES`]), where the file at `path` is metadata of it, whoever wrote that.
pub(super) fn home(path: &str) -> Option<&'static str> {
    HOMES.into_iter().find(|home| {
        let name = path.strip_prefix(home).and_then(|path| path.strip_prefix(METADATA));
        name.is_some_and(|name| !name.contains('/') && name.ends_with(".metadata.json"))
    })
}

/// True when the file at `path` is part of a Delta log, whoever wrote that.
pub(super) fn is_version(path: &str) -> bool {
    let name = path.strip_prefix(LOG);
    name.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("data/part-U.parquet", Form::Data)]
    #[case("data/region=north/part-U.parquet", Form::Data)]
    #[case("data/region=a%20b/day=/part-U.parquet", Form::Data)]
    #[case("data/part-U.parquet#1", Form::Temporary)]
    #[case("data/part-U.parquet#", Form::Foreign)]
    #[case("data/old/part-U.parquet", Form::Foreign)]
    #[case("_iceberg/data/part-U.parquet", Form::Foreign)]
    #[case("part-U.parquet", Form::Foreign)]
    #[case("data/part-00000-U-c000.snappy.parquet", Form::Foreign)]
    #[case("region=north/part-00000-U.c000.snappy.parquet", Form::Foreign)]
    #[case("data/00000-1-U-00001.parquet", Form::Foreign)]
    #[case("data/part-1.parquet", Form::Foreign)]
    #[case("deletion_vector_U.bin", Form::DeletionVector)]
    #[case("ab/deletion_vector_U.bin", Form::Foreign)]
    #[case("deletion_vector_U.bin#12", Form::Temporary)]
    #[case("_iceberg/data/U-00000-deletes.puffin", Form::Deletes)]
    #[case("data/U-123456-deletes.parquet", Form::Deletes)]
    #[case("_iceberg/metadata/U-m0.avro", Form::Manifest)]
    #[case("metadata/U-m12.avro", Form::Manifest)]
    #[case("metadata/optimized-m-U.avro", Form::Foreign)]
    #[case("metadata/snap-123-U.avro", Form::ManifestList)]
    #[case("metadata/snap-123-1-U.avro", Form::Foreign)]
    #[case("metadata/v12.metadata.json", Form::Metadata)]
    #[case("_iceberg/metadata/00012-U.metadata.json", Form::Metadata)]
    #[case("metadata/00012-U.gz.metadata.json", Form::Metadata)]
    #[case("metadata/U.metadata.json", Form::Metadata)]
    #[case("metadata/mine.metadata.json", Form::Foreign)]
    #[case("metadata/U-statistics.puffin", Form::Foreign)]
    #[case("metadata/version-hint.text", Form::Log)]
    #[case("metadata/version-hint.text#1", Form::Temporary)]
    #[case("_delta_log/00000000000000000012.json", Form::Log)]
    #[case("_delta_log/00000000000000000012.json#2", Form::Temporary)]
    #[case("_delta_log/00000000000000000012.checkpoint.parquet", Form::Log)]
    #[case("_delta_log/_sidecars/U.parquet", Form::Log)]
    #[case("_delta_log/_staged_commits/00000000000000000012.U.json", Form::Log)]
    #[case("_delta_log/_commit_U.json.tmp", Form::Temporary)]
    #[case("_delta_log/.00000000000000000012.json.U.tmp", Form::Temporary)]
    #[case("_delta_log/anything", Form::Log)]
    #[case(".cdc-sink-probe-U", Form::Temporary)]
    #[case("_change_data/cdc-U.parquet", Form::Foreign)]
    #[case("_committed_1", Form::Foreign)]
    #[case("notes.txt#1", Form::Foreign)]
    fn a_name_tells_what_a_file_is(#[case] path: &str, #[case] form: Form) {
        let path = path.replace('U', "0fae3bbd-21bb-4e9e-9cf7-8a4e4a0d35b8");
        assert_eq!(Form::of(&path), form, "{path}");
    }

    #[rstest]
    #[case("metadata/v1.metadata.json", Some(""))]
    #[case("_iceberg/metadata/whatever.metadata.json", Some("_iceberg/"))]
    #[case("other/metadata/v1.metadata.json", None)]
    #[case("metadata/old/v1.metadata.json", None)]
    #[case("metadata/version-hint.text", None)]
    fn metadata_tells_where_an_iceberg_table_is(
        #[case] path: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(home(path), expected);
    }
}
