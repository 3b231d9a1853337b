//! docker-compose.yml, the image and the connectors fit together and fit what is tested. Files are read only: no
//! container is started, so what the images make of their settings is not seen by these tests.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::{Map, Value};

use crate::{repository_file, repository_yaml};

const CONNECTORS: [(&str, &str); 9] = [
    ("postgres-json", "pg"),
    ("postgres-json-schema", "pgs"),
    ("postgres-avro", "pga"),
    ("mysql-json", "my"),
    ("mysql-json-schema", "mys"),
    ("mysql-avro", "mya"),
    ("mariadb-json", "ma"),
    ("mariadb-json-schema", "mas"),
    ("mariadb-avro", "maa"),
];

fn services() -> Map<String, Value> {
    repository_yaml("docker-compose.yml")["services"].as_object().unwrap().clone()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().map_or(vec![], |items| {
        items.iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    })
}

fn image(service: &str) -> (String, String) {
    let image = services()[service]["image"].as_str().unwrap().to_owned();
    let (name, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{service}: no tag"));
    (name.to_owned(), tag.to_owned())
}

/// The file with each `${NAME:-default}` replaced by its default.
fn with_defaults(text: &str) -> String {
    Regex::new(r"\$\{[A-Z_]+:-([^}]*)\}").unwrap().replace_all(text, "$1").into_owned()
}

#[test]
fn every_image_is_pinned() {
    for service in services().keys() {
        let (_, tag) = image(service);
        assert!(tag.contains('.') || tag.starts_with("RELEASE."), "{service}: tag {tag} moves");
    }
}

#[test]
fn images_are_of_the_versions_that_are_tested() {
    let tested: toml::Table = repository_file("tests/stack/versions.toml").parse().unwrap();
    let version = |part: &str, key: &str| tested[part][key].as_str().unwrap().to_owned();
    assert_eq!(image("kafka").1, version("kafka", "version"));
    assert_eq!(image("registry").1, version("registry", "version"));
    assert_eq!(image("iceberg-rest").1, version("iceberg-rest", "iceberg"));
    // The test stack's packages add a patch number of their own.
    assert_eq!(format!("{}.0", image("postgres").1), version("postgres", "version"));
    // One image has every connector at one version; the tests have each at its newest.
    let connectors = tested["connectors"].as_table().unwrap();
    let versions: BTreeSet<&str> = connectors.values().map(|v| v.as_str().unwrap()).collect();
    assert!(versions.contains(&*image("connect").1), "{} of {versions:?}", image("connect").1);
    assert_eq!(image("connect"), image("connectors"));
}

#[test]
fn ports_are_open_to_this_machine_only_and_once() {
    let mut taken = BTreeMap::new();
    for (service, settings) in services() {
        for port in list(&settings["ports"]) {
            let parts: Vec<&str> = port.split(':').collect();
            assert_eq!(parts[0], "127.0.0.1", "{service}: {port}");
            let other = taken.insert(parts[1].to_owned(), service.clone());
            assert_eq!(other, None, "{service}: host port {} is taken", parts[1]);
        }
    }
}

#[test]
fn services_wait_for_what_there_is() {
    let services = services();
    for (service, settings) in &services {
        let Some(needs) = settings["depends_on"].as_object() else { continue };
        for (need, how) in needs {
            let other = services.get(need).unwrap_or_else(|| panic!("{service}: no {need}"));
            // The Iceberg image brings its own.
            let checked = other["healthcheck"].is_object() || need == "iceberg-rest";
            assert!(how["condition"] != "service_healthy" || checked, "{need} has no health check");
        }
    }
}

#[test]
fn hosts_are_services() {
    let services = services();
    let names: BTreeSet<&str> =
        services.keys().map(String::as_str).chain(["localhost", "127.0.0.1"]).collect();
    let files = [
        "docker-compose.yml",
        "prometheus/prometheus.yml",
        "grafana/provisioning/datasources/prometheus.yml",
    ];
    let host = Regex::new(
        r"(?:https?://|--brokers=|INTERNAL://|EXTERNAL://|\d@|BOOTSTRAP_SERVERS: )([a-z][a-z.-]*):\d+",
    )
    .unwrap();
    for file in files {
        for hit in host.captures_iter(&repository_file(file)) {
            assert!(names.contains(&hit[1]), "{file}: {} is no service", &hit[0]);
        }
    }
    let target = &repository_yaml("prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"]
        [0]["targets"][0];
    let command = list(&services["cdc-sink"]["command"]);
    let listen =
        command.iter().find_map(|option| option.strip_prefix("--listen=0.0.0.0:")).unwrap();
    assert_eq!(*target, format!("cdc-sink:{listen}"));
    assert_eq!(list(&services["cdc-sink"]["ports"]), [format!("127.0.0.1:{listen}:{listen}")]);
}

#[test]
fn what_is_mounted_is_there() {
    let file = repository_yaml("docker-compose.yml");
    for (service, settings) in services() {
        for volume in list(&settings["volumes"]) {
            let folder = volume.split(':').next().unwrap();
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
            assert!(path.is_dir(), "{service}: {volume}");
            assert!(volume.ends_with(":ro"), "{service}: {volume}");
        }
        for config in settings["configs"].as_array().unwrap_or(&vec![]) {
            let name = config["source"].as_str().unwrap();
            assert!(file["configs"][name]["content"].is_string(), "{service}: no config {name}");
        }
    }
}

#[test]
fn connectors_are_what_their_names_say() {
    let readme = repository_file("connectors/README.md");
    let variable = Regex::new(r"\$\{([A-Z_]+)").unwrap();
    let mut server_ids = BTreeSet::new();
    for (name, prefix) in CONNECTORS {
        let text = repository_file(&format!("connectors/{name}.json"));
        for variable in variable.captures_iter(&text) {
            assert!(readme.contains(&format!("`{}`", &variable[1])), "{name}: {}", &variable[1]);
        }
        let connector: Value = serde_json::from_str(&with_defaults(&text)).unwrap();
        assert_eq!(connector["name"], name);
        let config = connector["config"].as_object().unwrap();
        assert!(config.values().all(Value::is_string), "{name}: Connect takes text only");
        assert_eq!(config["topic.prefix"], prefix);
        let (database, encoding) = name.split_once('-').unwrap();
        assert_eq!(config["database.hostname"], database);
        let class = config["connector.class"].as_str().unwrap();
        assert!(class.starts_with(&format!(
            "io.debezium.connector.{}",
            database.replace("postgres", "postgresql")
        )));
        if let Some(id) = config.get("database.server.id") {
            assert!(server_ids.insert(id.to_string()), "{name}: server id {id} is taken");
        }
        for side in ["key", "value"] {
            let converter = config[&format!("{side}.converter")].as_str().unwrap();
            let schemas = config.get(&format!("{side}.converter.schemas.enable"));
            match encoding {
                "json" => assert_eq!(schemas.unwrap(), "false"),
                "json-schema" => assert_eq!(schemas.unwrap(), "true"),
                _ => assert!(schemas.is_none()),
            }
            assert_eq!(converter.ends_with(".AvroConverter"), encoding == "avro", "{name}");
        }
    }
}

#[test]
fn every_connector_file_is_listed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors");
    let found: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed = CONNECTORS.iter().map(|(name, _)| format!("{name}.json"));
    let pages = ["README.md", "types.md"].map(str::to_owned);
    assert_eq!(found, listed.chain(pages).collect());
    let registered = list(&services()["connectors"]["command"]);
    assert!(registered.iter().all(|name| CONNECTORS.iter().any(|(known, _)| known == name)));
}

#[test]
fn the_demonstration_reads_what_its_connectors_write() {
    let command = list(&services()["cdc-sink"]["command"]);
    let topics = command.iter().find_map(|option| option.strip_prefix("--topics=")).unwrap();
    for name in list(&services()["connectors"]["command"]) {
        let (_, prefix) = CONNECTORS.iter().find(|(known, _)| *known == name).unwrap();
        assert!(topics.split(',').any(|topic| topic == format!("{prefix}.*")), "{name}: {topics}");
    }
}

#[test]
fn the_image_is_built_with_the_tested_compiler_and_runs_as_nobody() {
    let dockerfile = repository_file("Dockerfile");
    let manifest: toml::Table = repository_file("Cargo.toml").parse().unwrap();
    let rust = manifest["package"]["rust-version"].as_str().unwrap();
    assert!(dockerfile.contains(&format!("FROM rust:{rust}-")), "rust {rust}");
    let last = dockerfile.rsplit("\nFROM ").next().unwrap();
    for line in ["USER 65532:65532", r#"ENTRYPOINT ["cdc-sink"]"#] {
        assert!(last.lines().any(|found| found == line), "no {line}");
    }
    let version = manifest["package"]["version"].as_str().unwrap();
    assert_eq!(image("cdc-sink"), ("cdc-sink".to_owned(), version.to_owned()));
}
