//! Which packages the program is made of, by the rules in `.cargo/deny.toml`: where they are from, under which licence,
//! and which may not be among them. cargo-deny checks the same and more; it needs no network for this.

use std::collections::BTreeSet;
use std::process::Command;

use rstest::rstest;
use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    sources: Sources,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Banned>,
}

#[derive(Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[test]
fn every_package_may_be_there() {
    let rules: Rules = toml::from_str(&super::repository_file(".cargo/deny.toml")).unwrap();
    let told = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--all-features", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: Metadata = serde_json::from_slice(&told.stdout).unwrap();
    assert!(metadata.packages.len() > 100, "{} packages", metadata.packages.len());
    let wrong: Vec<_> =
        metadata.packages.iter().filter_map(|package| rules.broken_by(package)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[rstest]
#[case("good", "MIT/Apache-2.0", Some("registry+https://crates"), true)]
#[case("good", "MIT AND (GPL-3.0 OR ISC)", Some("registry+https://crates"), true)]
#[case("good", "Apache-2.0 WITH LLVM-exception", Some("registry+https://crates"), true)]
#[case("good", "GPL-3.0", None, true)]
#[case("excepted", "GPL-3.0", Some("registry+https://crates"), true)]
#[case("good", "GPL-3.0", Some("registry+https://crates"), false)]
#[case("good", "MIT AND GPL-3.0", Some("registry+https://crates"), false)]
#[case("good", "Apache-2.0 WITH another", Some("registry+https://crates"), false)]
#[case("good", "", Some("registry+https://crates"), false)]
#[case("good", "MIT", Some("git+https://example.org/a?rev=1"), false)]
#[case("good", "MIT", Some("registry+https://elsewhere"), false)]
#[case("bad", "MIT", Some("registry+https://crates"), false)]
fn the_rules_see_what_they_forbid(
    #[case] name: &str,
    #[case] license: &str,
    #[case] source: Option<&str>,
    #[case] fine: bool,
) {
    let rules = r#"
        licenses.allow = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]
        licenses.exceptions = [{ crate = "excepted", allow = ["GPL-3.0"] }]
        sources.allow-registry = ["https://crates"]
        bans.deny = [{ crate = "bad", reason = "it is bad" }]
    "#;
    let rules: Rules = toml::from_str(rules).unwrap();
    let package = Package {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        license: Some(license.to_owned()),
        source: source.map(str::to_owned),
    };
    let broken = rules.broken_by(&package);
    assert_eq!(broken.is_none(), fine, "{broken:?}");
}

impl Rules {
    /// Which rule a package breaks; the program's own, which come from nowhere, break none.
    fn broken_by(&self, package: &Package) -> Option<String> {
        let Package { name, version, license, source } = package;
        let source = source.as_ref()?;
        if let Some(banned) = self.bans.deny.iter().find(|banned| banned.name == *name) {
            return Some(format!("{name} {version} may not be used: {}", banned.reason));
        }
        let registry = source.strip_prefix("registry+").map(str::to_owned);
        if !registry.is_some_and(|registry| self.sources.allow_registry.contains(&registry)) {
            return Some(format!("{name} {version} is from {source}"));
        }
        let license = license.as_deref().unwrap_or_default();
        let is_allowed = |id: &str| {
            let exception =
                self.licenses.exceptions.iter().find(|exception| exception.name == *name);
            self.licenses.allow.contains(id) || exception.is_some_and(|e| e.allow.contains(id))
        };
        (!Expression::new(license).holds(&is_allowed))
            .then(|| format!("{name} {version} has the licence {license:?}"))
    }
}

/// An expression of SPDX, as far as it is read; `/` is an old way to write `OR`.
struct Expression<'e> {
    words: std::iter::Peekable<std::vec::IntoIter<&'e str>>,
}

impl<'e> Expression<'e> {
    fn new(text: &'e str) -> Self {
        let split = text.split_inclusive(['(', ')', '/', ' ']).flat_map(|word| {
            let end = word.len() - usize::from(word.ends_with(['(', ')', '/', ' ']));
            let (word, mark) = word.split_at(end);
            [word, mark.trim()]
        });
        let words: Vec<_> = split.filter(|word| !word.is_empty()).collect();
        Self { words: words.into_iter().peekable() }
    }

    /// True when the licences that `is_allowed` suffice.
    fn holds(mut self, is_allowed: &impl Fn(&str) -> bool) -> bool {
        let holds = self.any(is_allowed);
        holds && self.words.next().is_none()
    }

    fn any(&mut self, is_allowed: &impl Fn(&str) -> bool) -> bool {
        let mut holds = self.all(is_allowed);
        while self.words.next_if(|word| ["OR", "/"].contains(word)).is_some() {
            holds |= self.all(is_allowed);
        }
        holds
    }

    fn all(&mut self, is_allowed: &impl Fn(&str) -> bool) -> bool {
        let mut holds = self.one(is_allowed);
        while self.words.next_if_eq(&"AND").is_some() {
            holds &= self.one(is_allowed);
        }
        holds
    }

    fn one(&mut self, is_allowed: &impl Fn(&str) -> bool) -> bool {
        match self.words.next() {
            Some("(") => {
                let holds = self.any(is_allowed);
                self.words.next_if_eq(&")").is_some() && holds
            }
            Some(id) if self.words.next_if_eq(&"WITH").is_some() => {
                is_allowed(&format!("{id} WITH {}", self.words.next().unwrap_or_default()))
            }
            Some(id) => is_allowed(id),
            None => false,
        }
    }
}
