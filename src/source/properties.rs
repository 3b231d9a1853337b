//! librdkafka properties that a user may set, and the secrets among them.
//!
//! The list is what is allowed, not what is forbidden: a property of a newer client stays out until somebody has
//! thought about it. No value is ever printed: not in an error, not in `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::error::{Error, Result};

/// How a cluster is reached: what consumer and producer share.
#[derive(Clone)]
pub struct Connection {
    brokers: String,
    shared: BTreeMap<String, String>,
    consumer: BTreeMap<String, String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.shared.keys().chain(self.consumer.keys()).collect();
        f.debug_struct("Connection")
            .field("brokers", &self.brokers)
            .field("properties", &names)
            .finish()
    }
}

/// Properties of every client.
const SHARED: &[&str] = &[
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "metadata.max.age.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.sigalgs.list",
];

/// Properties of the consumer alone.
const CONSUMER: &[&str] = &[
    "fetch.error.backoff.ms",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "group.instance.id",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "session.timeout.ms",
];

/// Librdkafka's own `session.timeout.ms`.
const SESSION_TIMEOUT_MS: u64 = 45_000;

/// Properties whose value is a secret: given only by reference.
const SECRET: &[&str] =
    &["sasl.password", "ssl.key.password", "ssl.key.pem", "ssl.keystore.password"];

/// Properties that exactness rests on.
const OURS: &[&str] = &[
    "auto.offset.reset",
    "bootstrap.servers",
    "check.crcs",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
];

impl Connection {
    /// Checks `properties` and resolves their references: `${env:NAME}` through `env`, `${file:PATH}` from the
    /// disk, one trailing newline removed.
    pub fn new(
        brokers: &str,
        properties: &BTreeMap<String, String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if brokers.trim().is_empty() {
            return Err(Error::invalid("no broker is named")
                .hint("name one or more with --brokers HOST:PORT,HOST:PORT"));
        }
        let mut connection = Self {
            brokers: brokers.to_owned(),
            shared: BTreeMap::new(),
            consumer: BTreeMap::new(),
        };
        for (name, value) in properties {
            let group = if SHARED.contains(&name.as_str()) {
                &mut connection.shared
            } else if CONSUMER.contains(&name.as_str()) {
                &mut connection.consumer
            } else {
                return Err(refuse(name));
            };
            let value = resolve(name, value, &env)?;
            check_value(name, &value)?;
            group.insert(name.clone(), value);
        }
        connection.try_out()?;
        Ok(connection)
    }

    /// The brokers, as given.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// A property of the consumer or of both, if it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.consumer.get(name).or_else(|| self.shared.get(name)).map(String::as_str)
    }

    /// How long the brokers keep a member that they do not hear of.
    pub(super) fn session_timeout(&self) -> Duration {
        let given = self.get("session.timeout.ms").and_then(|value| value.parse().ok());
        Duration::from_millis(given.unwrap_or(SESSION_TIMEOUT_MS))
    }

    /// The name of a static member, if it has one.
    pub(super) fn member_name(&self) -> Option<&str> {
        self.get("group.instance.id")
    }

    /// The configuration of a producer or of a client that only asks.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", concat!("cdc-sink-", env!("CARGO_PKG_VERSION")));
        config.set("log.connection.close", "false");
        config.set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in &self.shared {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// The configuration of a consumer.
    pub(super) fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        for (name, value) in &self.consumer {
            config.set(name, value);
        }
        config
    }

    /// Lets librdkafka check the values now, without its message: that one repeats the value.
    fn try_out(&self) -> Result<()> {
        for (name, value) in self.shared.iter().chain(&self.consumer) {
            let mut config = ClientConfig::new();
            config.set(name, value);
            if config.create_native_config().is_err() {
                return Err(Error::invalid(format!(
                    "the value of Kafka property \"{name}\" is refused by the client"
                ))
                .hint("see the property's range in librdkafka's CONFIGURATION.md"));
            }
        }
        Ok(())
    }
}

fn refuse(name: &str) -> Error {
    // The name may be a typing error with a secret in it: what is no property name is not repeated.
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '_';
    if name.len() > 60 || !name.chars().all(legal) {
        return Error::invalid("a Kafka property has a name that no property has");
    }
    if OURS.contains(&name) {
        return Error::invalid(format!(
            "Kafka property \"{name}\" cannot be set: reading exactly once rests on its value"
        ));
    }
    if name.starts_with("sasl.oauthbearer") || name.starts_with("sasl.kerberos") {
        return Error::invalid(format!(
            "Kafka property \"{name}\" belongs to a login that this build does not have"
        ))
        .hint("sasl.mechanism may be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; client certificates work too");
    }
    Error::invalid(format!("Kafka property \"{name}\" is not one that can be set here"))
        .hint("connection, TLS, SASL, session and fetch properties of librdkafka can be")
}

fn check_value(name: &str, value: &str) -> Result<()> {
    let (allowed, why): (&[&str], _) = match name {
        "sasl.mechanism" | "sasl.mechanisms" => (
            &["plain", "scram-sha-256", "scram-sha-512"],
            "this build knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512",
        ),
        "enable.ssl.certificate.verification" => {
            (&["true"], "the broker's certificate is always verified")
        }
        "ssl.endpoint.identification.algorithm" => {
            (&["https"], "the broker's host name is always verified")
        }
        _ => return Ok(()),
    };
    if allowed.contains(&value.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Error::invalid(format!("Kafka property \"{name}\" cannot have this value: {why}")))
}

fn resolve(name: &str, value: &str, env: &impl Fn(&str) -> Option<String>) -> Result<String> {
    let reference = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match reference.and_then(|reference| reference.split_once(':')) {
        Some(("env", variable)) => env(variable).ok_or_else(|| {
            Error::invalid(format!(
                "Kafka property \"{name}\" refers to the environment variable {variable}, which is not set"
            ))
        }),
        Some(("file", path)) => std::fs::read_to_string(path)
            .map(|text| text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
            .map_err(|error| {
                Error::invalid(format!(
                    "Kafka property \"{name}\" refers to the file {path}, which cannot be read"
                ))
                .because(error)
            }),
        _ if SECRET.contains(&name) => Err(Error::invalid(format!(
            "Kafka property \"{name}\" is a secret and cannot be written out"
        ))
        .hint("refer to it: ${env:NAME} or ${file:PATH}")),
        _ => Ok(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn connect(entries: &[(&str, &str)]) -> Result<Connection> {
        let properties =
            entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let env = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
        Connection::new("localhost:9092", &properties, env)
    }

    #[rstest]
    #[case("plugin.library.paths", "/tmp/evil.so")]
    #[case("ssl.engine.location", "canary")]
    #[case("enable.sasl.oauthbearer.unsecure.jwt", "true")]
    #[case("test.mock.num.brokers", "3")]
    #[case("debug", "all")]
    #[case("enable.auto.commit", "true")]
    #[case("auto.offset.reset", "latest")]
    #[case("enable.ssl.certificate.verification", "false")]
    #[case("ssl.endpoint.identification.algorithm", "none")]
    #[case("sasl.password", "canary")]
    #[case("sasl.mechanism", "GSSAPI")]
    #[case("session.timeout.ms", "canary")]
    #[case("sasl.password", "${env:MISSING}")]
    #[case("ssl.key.password", "${file:/no/such/canary-file}")]
    #[case("sasl.password=canary", "x")]
    fn a_property_is_refused_without_its_value(#[case] name: &str, #[case] value: &str) {
        let error = connect(&[(name, value)]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid);
        let report = error.report();
        assert!(!report.contains("canary") || report.contains("canary-file"), "{report}");
        if name.chars().all(|c| c != '=') {
            assert!(report.contains(name), "{report}");
        }
    }

    #[test]
    fn a_secret_comes_by_reference_and_is_never_shown() {
        let connection = connect(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "reader"),
            ("sasl.password", "${env:PASSWORD}"),
            ("session.timeout.ms", "10000"),
        ])
        .unwrap();
        assert_eq!(connection.client().get("sasl.password"), Some("hunter2"));
        assert_eq!(connection.client().get("session.timeout.ms"), None);
        assert_eq!(connection.consumer().get("session.timeout.ms"), Some("10000"));
        let shown = format!("{connection:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_secret_may_be_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\n").unwrap();
        let reference = format!("${{file:{}}}", file.path().display());
        let connection = connect(&[("sasl.password", &reference)]).unwrap();
        assert_eq!(connection.client().get("sasl.password"), Some("s3cret"));
    }
}
