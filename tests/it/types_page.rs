//! `connectors/types.md` tells of types what `cdc-sink plan --types` does. `CDC_SINK_WRITE_PAGES=1` writes it anew.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = "# What each type becomes

What `cdc-sink plan --types` prints, as a page: a row for each type that Debezium writes. Types without a name of their own,
and with one that is not here, come last. `cdc-sink plan` tells the same of the columns of your topics, before anything is
written.

| from the database | Debezium writes | Delta | Iceberg | how it is kept, and what is lost |
|---|---|---|---|---|
";

const FOOT: &str = "
Delta has no time of day: with Delta among the formats a time is a long, so that both have the same.

Values that a column cannot hold follow the option `invalid-value`: `dead-letter` by default, `null`, or `clamp` where there
is a nearest one. They are counted (`cdc_sink_invalid_values_total`).
";

/// The table of types, as the program prints it.
fn types() -> Vec<Value> {
    let output = crate::program().args(["plan", "--types", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(ty: &'a Value, field: &str) -> &'a str {
    ty[field].as_str().unwrap()
}

fn row(ty: &Value) -> String {
    let columns = |format: &str| {
        let names: Vec<String> = ty[format]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| format!("`{}`", n.as_str().unwrap()))
            .collect();
        names.join(" or ")
    };
    let written = match text(ty, "name") {
        "" => text(ty, "connect").to_owned(),
        name => format!("{} `{name}`", text(ty, "connect")),
    };
    let told = [
        ("", "kept"),
        ("**lossy**: ", "lossy"),
        ("**lossy from MySQL**: ", "lossy_in_mysql"),
        ("cannot hold: ", "cannot_hold"),
    ];
    let told: Vec<String> = told
        .iter()
        .filter(|(_, field)| !text(ty, field).is_empty())
        .map(|(what, field)| format!("{what}{}", text(ty, field)))
        .collect();
    let cells = [
        text(ty, "sources").to_owned(),
        written,
        columns("delta"),
        columns("iceberg"),
        told.join("<br>"),
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

#[test]
fn the_page_of_types_is_what_the_program_prints() {
    let mut page = HEAD.to_owned();
    for ty in types() {
        writeln!(page, "{}", row(&ty)).unwrap();
    }
    page.push_str(FOOT);
    if std::env::var_os("CDC_SINK_WRITE_PAGES").is_some() {
        std::fs::write(crate::REPOSITORY.join("connectors/types.md"), &page).unwrap();
    }
    let there = crate::repository_file("connectors/types.md");
    assert!(
        there == page,
        "connectors/types.md is out of date: CDC_SINK_WRITE_PAGES=1 writes it anew"
    );
}
