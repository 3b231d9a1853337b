//! The database's own client program: it asks, so every way to log in and to encrypt that the database has works here.

use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use url::Url;

use super::rows::Dialect;
use crate::error::{Error, Result};

/// Seconds to wait for a connection.
const PATIENCE: &str = "10";

/// What the client prints for the query of `dialect`. The password comes from the environment, and goes on in it.
pub(super) fn ask(dialect: Dialect, url: &Url, password: Option<&str>) -> Result<String> {
    let (programs, mut arguments, variable): (&[&str], _, _) = match dialect {
        Dialect::Postgres => (&["psql"], psql(url), "PGPASSWORD"),
        Dialect::Mysql => (&["mysql", "mariadb"], mysql(url)?, "MYSQL_PWD"),
    };
    arguments.push(dialect.query().to_owned());
    for program in programs {
        let mut command = Command::new(program);
        command.args(&arguments).stdin(Stdio::null());
        command.env("PGCONNECT_TIMEOUT", PATIENCE).env("PGCLIENTENCODING", "UTF8");
        if let Some(password) = password {
            command.env(variable, password);
        }
        match command.output() {
            Ok(output) => return printed(program, output),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Error::invalid(format!("cannot run {program}")).because(error));
            }
        }
    }
    let program = programs.join(" or ");
    Err(Error::invalid(format!("option types-from: the database's own client, {program}, is not there")).hint(
        format!(
            "install it; or run the query that `cdc-sink plan --types-query {}` prints with any client, and give the rows \
             to --types-from -",
            dialect.name()
        ),
    ))
}

fn printed(program: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        return Err(Error::unavailable(format!(
            "cannot read the columns of the source database: {program}: {}",
            said.join(" ")
        ))
        .hint("is the address right, and the password in CDC_SINK_SOURCE_PASSWORD?"));
    }
    String::from_utf8(output.stdout)
        .map_err(|e| Error::data(format!("{program} printed what is no UTF-8")).because(e))
}

fn psql(url: &Url) -> Vec<String> {
    let flags = ["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"];
    let mut arguments: Vec<String> = flags.map(str::to_owned).into();
    arguments.extend(["--dbname".to_owned(), url.to_string(), "--command".to_owned()]);
    arguments
}

fn mysql(url: &Url) -> Result<Vec<String>> {
    if url.query().is_some() {
        return Err(Error::invalid(
            "option types-from: the address of a MySQL server has no parameters here",
        )
        .hint("mysql reads its options, as those of TLS, from its own file (~/.my.cnf)"));
    }
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut arguments =
        vec!["--batch".to_owned(), "--raw".to_owned(), "--skip-column-names".to_owned()];
    arguments.push(format!("--connect-timeout={PATIENCE}"));
    arguments.push("--default-character-set=utf8mb4".to_owned());
    if let Some(host) = url.host_str() {
        arguments.extend([format!("--host={host}"), "--protocol=TCP".to_owned()]);
    }
    arguments.extend(url.port().map(|port| format!("--port={port}")));
    if !url.username().is_empty() {
        arguments.push(format!("--user={}", decoded(url.username())));
    }
    let database = decoded(url.path().trim_start_matches('/'));
    if !database.is_empty() {
        arguments.push(format!("--database={database}"));
    }
    arguments.push("--execute".to_owned());
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_the_server_and_no_password() {
        let url = Url::parse("mysql://me%40x@db:3307/shop").unwrap();
        let arguments = mysql(&url).unwrap().join(" ");
        assert!(
            arguments.contains("--host=db --protocol=TCP --port=3307 --user=me@x --database=shop")
        );
        let url = Url::parse("postgres://me@db/shop?sslmode=verify-full").unwrap();
        assert!(psql(&url).contains(&"postgres://me@db/shop?sslmode=verify-full".to_owned()));
        assert!(mysql(&Url::parse("mysql://db?ssl=1").unwrap()).is_err());
    }

    #[test]
    fn what_the_client_says_is_passed_on() {
        let url = Url::parse("postgres://nobody@127.0.0.1:1/none").unwrap();
        let report = ask(Dialect::Postgres, &url, Some("hunter2")).unwrap_err().report();
        let is_told = report.contains("psql:") || report.contains("--types-query postgres");
        assert!(is_told && !report.contains("hunter2"), "{report}");
    }
}
