//! The repository's own rules: which module may know which, how long a file may get, what no file may hold.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// Modules that anyone may use; `testing` is there for tests alone.
const COMMON: &[&str] = &["clock", "error", "failpoint", "metrics", "retry", "testing", "trust"];
/// The words of the data path; no I/O.
const VOCABULARY: &[&str] =
    &["change", "key", "position", "record", "row_source", "schema", "source_position"];

/// What the code of each module may import from the others: a module, or one item of it. Imports point down this
/// table's drawing in `src/lib.rs`; `source`, `decode`, `table` and `sink` do not know one another but for the
/// exceptions that are written here.
#[rustfmt::skip]
const MAY_IMPORT: &[(&str, &[&[&str]])] = &[
    // Leaves.
    ("error", &[]),
    ("clock", &[]),
    ("failpoint", &[]),
    ("metrics", &[&["error"]]),
    ("retry", &[&["error", "metrics"]]),
    ("shutdown", &[&["error"]]),
    ("testing", &[]),
    ("trust", &[&["error"]]),
    ("admin", &[COMMON]),
    ("names", &[&["error"]]),
    // Vocabulary.
    ("schema", &[&["error"]]),
    ("position", &[]),
    ("record", &[&["position"]]),
    ("source_position", &[]),
    ("row_source", &[&["error", "schema", "source_position"]]),
    ("key", &[&["error", "schema"]]),
    ("change", &[&["key", "position", "row_source", "schema", "source_position"]]),
    // The stages.
    ("source", &[COMMON, VOCABULARY, &["sink::Committed"]]),
    ("decode", &[COMMON, VOCABULARY]),
    ("batch", &[COMMON, VOCABULARY, &["decode"]]),
    ("table", &[COMMON, VOCABULARY, &["sink::storage"]]),
    ("sink", &[COMMON, VOCABULARY, &["table"]]),
    ("dead_letter", &[COMMON, VOCABULARY, &["decode::Reject", "source::properties", "source::quiet", "sink", "table::keys"]]),
    ("generate", &[COMMON, VOCABULARY]),
    // Above them.
    ("pipeline", &[COMMON, VOCABULARY, STAGES, &["admin", "names"]]),
    ("config", &[COMMON, VOCABULARY, STAGES, &["admin", "generate", "names", "pipeline"]]),
    ("cli", &[COMMON, VOCABULARY, STAGES, &["admin", "config", "generate", "names", "pipeline", "shutdown"]]),
    ("main", &[&["cli"]]),
    ("lib", &[]),
];
const STAGES: &[&str] = &["source", "decode", "batch", "table", "sink", "dead_letter"];

/// Lines of code and comments that a file of `src` may have, its unit tests aside.
const LONGEST_FILE: usize = 600;
/// Longer files, each with the reason it is not cut.
const LONGER_FILES: &[(&str, &str)] = &[];

#[test]
fn imports_point_down() {
    let mut broken = Vec::new();
    for path in rust_sources() {
        let module = module_of(&path);
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
            broken.push(format!("src/{path}: say in MAY_IMPORT what module {module} may import"));
            continue;
        };
        let allowed = allowed.concat();
        for import in imports(&shipped_code(&source(&path))) {
            let target = import.split("::").next().unwrap_or_default();
            if target != module && !allowed.contains(&target) && !allowed.contains(&&*import) {
                broken.push(format!("src/{path}: {module} must not import {import}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_rule_is_for_a_cycle() {
    // Whoever may import whom, item exceptions aside: following it never comes back.
    let direct = |module: &str| -> Vec<&str> {
        let rule = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        rule.map(|(_, allowed)| allowed.concat()).unwrap_or_default()
    };
    for (start, _) in MAY_IMPORT {
        let mut seen = BTreeSet::new();
        let mut next = direct(start);
        while let Some(module) = next.pop() {
            assert_ne!(module, *start, "{start} may import itself through others");
            if seen.insert(module) {
                next.extend(direct(module));
            }
        }
    }
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for path in rust_sources() {
        let lines = shipped_code(&source(&path)).lines().count();
        let excused = LONGER_FILES.iter().any(|(excused, _)| *excused == path);
        if lines > LONGEST_FILE && !excused {
            broken.push(format!("src/{path} has {lines} lines: cut it along its concerns"));
        }
        if lines <= LONGEST_FILE && excused {
            broken.push(format!("src/{path} needs no place in LONGER_FILES any more"));
        }
    }
    for (path, _) in LONGER_FILES {
        if !rust_sources().contains(&(*path).to_owned()) {
            broken.push(format!("LONGER_FILES: there is no src/{path}"));
        }
    }
    assert!(broken.is_empty(), "{LONGEST_FILE} lines are allowed\n{}", broken.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    // Written in two parts, so that this file does not find itself.
    let words = [
        (concat!("todo", "!("), "finish it"),
        (concat!("unimplement", "ed!("), "finish it"),
        (concat!("FIX", "ME"), "finish it"),
        (concat!("/ro", "ot/"), "a path of one machine"),
        (concat!("/ho", "me/"), "a path of one machine"),
        (concat!("/wo", "rk/"), "a path of one machine"),
        (concat!("<<<<", "<<< "), "a merge that was not finished"),
    ];
    let mut found = Vec::new();
    for path in repository_files() {
        let Ok(text) = std::fs::read_to_string(repository().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (word, why) in words {
                if line.contains(word) {
                    found.push(format!("{}:{}: {word}: {why}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_rules_see_what_they_forbid() {
    let code = "use crate::sink::{Committed, delta::Log};\nlet x = crate::table::plan::Plan; // crate::cli\n";
    assert_eq!(imports(code), ["sink::Committed", "sink::delta", "table::plan"]);
    assert_eq!(imports("use cdc_sink::cli;\n//! [`crate::cli`]\n"), ["cli"]);
    assert_eq!(imports("use crate::{change, key};"), ["{"]);
    assert_eq!(shipped_code("a\n#[cfg(test)]\nmod tests {\nb\n}\n"), "a\n");
    let elsewhere = "#[cfg(test)]\nmod tests;\na\n";
    assert_eq!(shipped_code(elsewhere), elsewhere);
    assert_eq!(module_of("sink/delta/log.rs"), "sink");
    assert_eq!(module_of("error.rs"), "error");
}

/// What comes before the unit tests, which are last in a file.
fn shipped_code(text: &str) -> String {
    let tests = Regex::new(r"#\[cfg\(test\)\]\nmod \w+ \{").unwrap();
    tests.split(text).next().unwrap_or_default().to_owned()
}

/// The paths below the crate's root that `code` names, two segments at most, comments aside. A group at the root
/// comes out as `{`, which no rule allows: one `use` per module reads better.
fn imports(code: &str) -> Vec<String> {
    let comment = Regex::new(r"//.*").unwrap();
    let code = comment.replace_all(code, "");
    let path = Regex::new(r"\b(?:crate|cdc_sink)::(\w+|\{)(?:::(?:\{([^;]*)\};|(\w+)))?").unwrap();
    let mut found = Vec::new();
    for hit in path.captures_iter(&code) {
        let module = &hit[1];
        let item = hit.get(3).map(|item| item.as_str());
        let group = hit.get(2).map_or(vec![], |group| group.as_str().split(',').collect());
        let items = item.into_iter().chain(group).filter_map(|item| item.trim().split("::").next());
        let before = found.len();
        found.extend(items.filter(|i| !i.is_empty()).map(|item| format!("{module}::{item}")));
        if found.len() == before {
            found.push(module.to_owned());
        }
    }
    found
}

/// `sink/delta/log.rs` is of module `sink`.
fn module_of(path: &str) -> String {
    path.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned()
}

fn source(path: &str) -> String {
    super::repository_file(&format!("src/{path}"))
}

/// The shipped Rust files, relative to `src`, `/`-separated.
fn rust_sources() -> Vec<String> {
    let files = repository_files().into_iter().filter_map(|path| {
        let path = path.strip_prefix("src").ok()?.to_str()?.replace('\\', "/");
        (path.ends_with(".rs") && !path.ends_with("tests.rs")).then_some(path)
    });
    files.collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the repository, relative to its root, build output aside.
fn repository_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![repository().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if [".git", "target", "__pycache__", ".venv"].contains(&name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(repository()).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}
