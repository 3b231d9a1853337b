//! Option dead-letters: where dead letters go.

use crate::error::{Error, Result};
use crate::names::TableId;

/// The table of dead letters when the option gives no name.
const DEAD_LETTER_TABLE: &str = "cdc_sink.dead_letters";

/// Where dead letters go; nowhere when both are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterPlaces {
    /// A Kafka topic.
    pub topic: Option<String>,
    /// A table of the warehouse.
    pub table: Option<TableId>,
}

impl DeadLetterPlaces {
    /// Parses the entries of option dead-letters; a bare name is a topic.
    pub(super) fn parse(entries: &[String]) -> Result<Self> {
        let bad = |what: String| {
            Error::invalid(format!("option dead-letters: {what}"))
                .hint("give topic:NAME, table or table:NAMESPACE.NAME, or one of each")
        };
        let mut places = Self::default();
        for entry in entries {
            let again = match entry.split_once(':').unwrap_or(("topic", entry)) {
                (_, "") => return Err(bad(format!("{entry:?} has no name"))),
                ("topic", "table") if entry == "table" => {
                    places.table.replace(TableId::parse(DEAD_LETTER_TABLE)?).is_some()
                }
                ("topic", name) => places.topic.replace(name.to_owned()).is_some(),
                ("table", name) => {
                    let table = TableId::parse(name).map_err(|e| bad(e.to_string()))?;
                    places.table.replace(table).is_some()
                }
                (place, _) => return Err(bad(format!("{place:?} is no place for dead letters"))),
            };
            if again {
                return Err(bad("there is more than one topic, or more than one table".to_owned()));
            }
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::Options;
    use super::*;

    #[rstest]
    #[case(r#""dead""#, Some("dead"), None)]
    #[case(r#""topic:table""#, Some("table"), None)]
    #[case(r#""table""#, None, Some("cdc_sink.dead_letters"))]
    #[case(r#"["table:ops.letters", "dead"]"#, Some("dead"), Some("ops.letters"))]
    fn dead_letters_go_to_a_topic_or_a_table_or_both(
        #[case] written: &str,
        #[case] topic: Option<&str>,
        #[case] table: Option<&str>,
    ) {
        let options: Options = toml::from_str(&format!("dead-letters = {written}")).unwrap();
        let places = DeadLetterPlaces::parse(&options.dead_letters.unwrap()).unwrap();
        assert_eq!(places.topic.as_deref(), topic);
        assert_eq!(places.table.map(|table| table.to_string()).as_deref(), table);
    }

    #[rstest]
    #[case(&["a", "topic:b"], "more than one topic")]
    #[case(&["table", "table:a.b"], "more than one table")]
    #[case(&["table:"], "has no name")]
    #[case(&[""], "has no name")]
    #[case(&["table:letters"], "is no name of a table")]
    #[case(&["delta:a.b"], "is no place")]
    fn what_is_no_place_for_dead_letters_is_told(#[case] entries: &[&str], #[case] told: &str) {
        let entries: Vec<String> = entries.iter().map(|entry| (*entry).to_owned()).collect();
        let report = DeadLetterPlaces::parse(&entries).unwrap_err().report();
        assert!(report.contains(told) && report.contains("topic:NAME"), "{report}");
    }
}
