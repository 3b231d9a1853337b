//! `plan --types-from`: the types of a source database's columns, as the part of a configuration that declares them for
//! records in JSON without a schema.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;

use url::Url;

use crate::decode::{Database, DeclaredType, Modes, SourceType};
use crate::error::{Error, Result};
use crate::source::Topics;

mod client;
mod rows;

pub(super) use rows::Dialect;

/// The variable with the password; the clients know others of their own.
const PASSWORD: &str = "CDC_SINK_SOURCE_PASSWORD";

/// A column of a table, in the database's order.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SourceColumn {
    database: Database,
    /// The schema, or MySQL's database.
    schema: String,
    table: String,
    name: String,
    ty: SourceType,
}

/// What to ask, and how to name what is found.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The database's address, without a password; `-` for rows of the query on the standard input.
    pub(super) from: String,
    /// The connector's `topic.prefix`.
    pub(super) prefix: String,
    /// Only tables whose topics match; all without.
    pub(super) topics: Option<Topics>,
    /// Options of the connector that say how values are written.
    pub(super) modes: Modes,
}

/// The configuration's part with the types of every table, as TOML.
pub(super) fn read(wanted: &Wanted, env: impl Fn(&str) -> Option<String>) -> Result<String> {
    let rows = match wanted.from.as_str() {
        "-" => {
            let mut rows = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut rows);
            read.map_err(|e| {
                Error::invalid("option types-from: cannot read the standard input").because(e)
            })?;
            rows
        }
        address => asked(address, env)?,
    };
    let text = text(&rows::columns(&rows)?, wanted);
    if text.is_empty() {
        return Err(Error::invalid("option types-from: the database has no such table").hint(
            "look at --topic-prefix and --topics: a table's topic is <prefix>.<schema or database>.<table>",
        ));
    }
    Ok(text)
}

fn asked(address: &str, env: impl Fn(&str) -> Option<String>) -> Result<String> {
    let bad = || {
        Error::invalid("option types-from: no address of a database")
            .hint("postgres://user@host/database, mysql://user@host/database, or - for rows of --types-query")
    };
    let url = Url::parse(address).map_err(|_| bad())?;
    if url.password().is_some() {
        return Err(Error::invalid(
            "option types-from: the address has a password, which others can see there",
        )
        .hint("leave it out and give it by the variable CDC_SINK_SOURCE_PASSWORD"));
    }
    let dialect = match url.scheme() {
        "postgres" | "postgresql" => Dialect::Postgres,
        "mysql" | "mariadb" => Dialect::Mysql,
        _ => return Err(bad()),
    };
    client::ask(dialect, &url, env(PASSWORD).as_deref())
}

/// A section for each table.
fn text(columns: &[SourceColumn], wanted: &Wanted) -> String {
    let mut tables: BTreeMap<String, Vec<&SourceColumn>> = BTreeMap::new();
    for column in columns {
        let topic = [&*wanted.prefix, &column.schema, &column.table].map(topic_part).join(".");
        if wanted.topics.as_ref().is_none_or(|topics| topics.matches(&topic)) {
            tables.entry(topic).or_default().push(column);
        }
    }
    let mut out = String::new();
    for (topic, columns) in tables {
        writeln!(out, "[tables.{}.types]", quoted(&topic)).ok();
        for column in columns {
            let name = quoted(&column.name);
            match DeclaredType::of_source(column.database, &column.ty, &wanted.modes) {
                Some(declared) => writeln!(out, "{name} = \"{declared}\"").ok(),
                None => {
                    let brackets = if column.ty.is_array { "[]" } else { "" };
                    let ty = quoted(&format!("{}{brackets}", column.ty.name));
                    writeln!(out, "# {name}: {ty} cannot be declared; the connector leaves most such columns out").ok()
                }
            };
        }
        out.push('\n');
    }
    out
}

/// What connectors replace in the names of topics.
fn topic_part(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect()
}

/// TOML's spelling of a text on one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)).unwrap_or_default(),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Options;

    fn column(schema: &str, table: &str, name: &str, ty: &str, is_array: bool) -> SourceColumn {
        let ty = SourceType { name: ty.into(), is_array, ..SourceType::default() };
        SourceColumn {
            database: Database::Postgres,
            schema: schema.into(),
            table: table.into(),
            name: name.into(),
            ty,
        }
    }

    fn wanted(topics: Option<&str>) -> Wanted {
        Wanted {
            from: String::new(),
            prefix: "shop".into(),
            topics: topics.map(|topics| Topics::parse([topics]).unwrap()),
            modes: Modes::parse::<&str>([]).unwrap(),
        }
    }

    #[test]
    fn what_is_printed_is_a_configuration() {
        let columns = [
            column("public", "a", "id", "int8", false),
            column("public", "a", "odd \"name\"\n\\", "timestamp", false),
            column("public", "a", "tags", "text", true),
            column("public", "a", "pair", "\npair", false),
            column("public", "b c", "id", "uuid", false),
        ];
        let text = text(&columns, &wanted(None));
        let options: Options = toml::from_str(&text).unwrap();
        let types = |topic: &str| -> Vec<(String, String)> {
            options.tables[topic].types.clone().into_iter().collect()
        };
        let pair = |name: &str, ty: &str| (name.to_owned(), ty.to_owned());
        assert_eq!(
            types("shop.public.a"),
            [
                pair("id", "long"),
                pair("odd \"name\"\n\\", "timestamp(micros)"),
                pair("tags", "list<string>")
            ]
        );
        assert_eq!(types("shop.public.b_c"), [pair("id", "string")]);
        assert!(text.contains("# \"pair\": \"\\u000Apair\" cannot be declared"), "{text}");
    }

    #[test]
    fn topics_choose_tables() {
        let columns =
            [column("public", "a", "id", "int8", false), column("other", "b", "id", "int8", false)];
        let text = text(&columns, &wanted(Some("shop.public.*")));
        assert_eq!(text, "[tables.\"shop.public.a\".types]\n\"id\" = \"long\"\n\n");
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_repeated() {
        let error = asked("postgres://me:hunter2@nowhere/db", |_| None).unwrap_err().report();
        assert!(
            error.contains("CDC_SINK_SOURCE_PASSWORD") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(asked("oracle://x", |_| None).unwrap_err().report().contains("mysql://"));
    }
}
