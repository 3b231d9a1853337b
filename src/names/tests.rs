use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn by(template: &str, topic: &str) -> String {
    Naming::parse(template).unwrap().table(topic).to_string()
}

#[rstest]
#[case("shop.public.orders", "shop_public.orders")]
#[case("public.orders", "public.orders")]
#[case("orders", "default.orders")]
#[case("eu.shop.public.order_items", "eu_x2eshop_public.order_items")]
#[case("shop.public.Mixed Case", "shop_public.Mixed_x20Case")]
#[case("shop.public._delta_log", "shop_public.x_xff_delta_log")]
#[case("shop.xml.a_xb", "shop_xml.a_xb")]
#[case("shop.public.a_x5fb", "shop_public.a_x5fx5fb")]
#[case("_shop.public.select", "x_xff_shop_public.select")]
#[case("shop.public.na\u{ef}ve", "shop_public.na_xc3_xafve")]
#[case("shop..", "shop_.x_xff")]
#[case("..", "x_xff_.x_xff")]
#[case(".", "x_xff.x_xff")]
#[case("", "default.x_xff")]
#[case("a/../b", "a_x2f_.x_xff_x2fb")]
fn a_topic_names_its_table(#[case] topic: &str, #[case] table: &str) {
    assert_eq!(by(Naming::DEFAULT, topic), table);
}

#[rstest]
#[case("{prefix}_{schema}_raw.t-{table}", "shop.public.orders", "shop_public_raw.t-orders")]
#[case("lake.{schema}_{table}", "shop.public.orders", "lake.public_orders")]
#[case("lake.{schema}_{table}", "orders", "lake.orders")]
#[case("{prefix}_{schema}.{table}", "public.orders", "public.orders")]
#[case("all.{topic}", "shop.public.orders", "all.shop_x2epublic_x2eorders")]
fn a_template_names_tables(#[case] template: &str, #[case] topic: &str, #[case] table: &str) {
    assert_eq!(by(template, topic), table);
}

#[rstest]
#[case("{table}")]
#[case("a.b.{table}")]
#[case("a.{tabel}")]
#[case("a.{table")]
#[case("a.table}")]
#[case("a b.{table}")]
#[case("../{table}.x")]
#[case(".{table}")]
#[case("a.t")]
fn a_template_that_names_no_tables_is_refused(#[case] template: &str) {
    let error = Naming::parse(template).unwrap_err().report();
    assert!(error.contains("option table-name") && error.contains("{prefix}"), "{error}");
}

#[rstest]
#[case("shop.orders", true)]
#[case("shop", false)]
#[case("shop.a.b", false)]
#[case("_shop.a", false)]
#[case("shop._a", false)]
#[case("shop.", false)]
#[case("../shop.a", false)]
fn a_name_of_the_configuration_is_checked(#[case] name: &str, #[case] good: bool) {
    assert_eq!(TableId::parse(name).is_ok(), good);
}

#[test]
fn one_table_has_one_topic() {
    let (registrar, naming) = (Registrar::default(), Naming::parse(Naming::DEFAULT).unwrap());
    let claim = |topic: &str| registrar.claim(&topic.into(), naming.table(topic));
    assert!(claim("a.b_c.t").is_ok());
    assert!(claim("a.b_c.t").is_ok());
    let error = claim("a_b.c.t").unwrap_err().report();
    assert!(error.contains("a.b_c.t") && error.contains("a_b.c.t"), "{error}");
    assert!(claim("a.b_c.T").is_err());
}

#[rstest]
#[case("a.b.public.t", "a.b", "public", "t", "a_x2eb_public.t")]
#[case("shop.public.my.table", "shop", "public", "my.table", "shop_public.my_x2etable")]
#[case("shop.a.b.t", "shop", "a.b", "t", "shop_a_x2eb.t")]
#[case("shop.public.My_Table__", "shop", "public", "My Table\u{1f600}", "shop_public.My_Table__")]
fn a_topic_is_split_as_its_source_says(
    #[case] topic: &str,
    #[case] prefix: &str,
    #[case] schema: &str,
    #[case] table: &str,
    #[case] name: &str,
) {
    let naming = Naming::parse(Naming::DEFAULT).unwrap();
    let split = Split::told(topic, prefix, schema, table).unwrap();
    assert_eq!(naming.table_at(topic, split).to_string(), name);
    assert_eq!(Split::told("routed.by.somebody.else", prefix, schema, table), None);
}

#[rstest]
#[case(Naming::DEFAULT, "shop.public.orders", false)]
#[case(Naming::DEFAULT, "orders", false)]
#[case(Naming::DEFAULT, "a.b.public.orders", true)]
#[case("all.{topic}", "a.b.public.orders", false)]
fn few_topics_need_their_records_for_a_name(
    #[case] template: &str,
    #[case] topic: &str,
    #[case] ambiguous: bool,
) {
    assert_eq!(Naming::parse(template).unwrap().is_ambiguous(topic), ambiguous);
}

/// Topics of characters that mean something here, close to one another; and any text.
fn topics() -> impl Strategy<Value = String> {
    let likely = proptest::sample::select(vec!["a", "x", "_", ".", "5", "f", "/", "_x5f", "x_xff"]);
    prop_oneof![
        4 => prop::collection::vec(likely, 0..8).prop_map(|parts| parts.concat()),
        1 => any::<String>(),
        1 => ("[a._]", 190usize..260).prop_map(|(c, count)| c.repeat(count)),
    ]
}

/// Prefix and schema as one text, and the table: what the default keeps of a topic.
fn kept(topic: &str) -> (String, String) {
    let (rest, table) = topic.rsplit_once('.').unwrap_or(("default", topic));
    let namespace = match rest.rsplit_once('.') {
        Some((prefix, schema)) => format!("{prefix}_{schema}"),
        None => rest.to_owned(),
    };
    (namespace, table.to_owned())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_name_is_safe_wherever_it_is_used(topic in topics()) {
        let table = Naming::parse(Naming::DEFAULT).unwrap().table(&topic);
        for name in [&table.namespace, &table.name] {
            prop_assert!(name.starts_with(|c: char| is_plain(c) && c != '_'), "{name}");
            prop_assert!(name.chars().all(is_plain) && name.len() < 255, "{name}");
        }
    }

    /// Whatever dots its parts have: the source tells where a topic's name is split, and nothing else does.
    #[test]
    fn a_source_tells_the_parts_of_its_topic(
        [prefix, schema, table] in prop::array::uniform3("[a-b._\u{e9}\u{1f600} ]{0,6}"),
        other in topics(),
    ) {
        let topic = format!("{}.{}.{}", in_topic(&prefix), in_topic(&schema), in_topic(&table));
        let split = Split::told(&topic, &prefix, &schema, &table).unwrap();
        let parts = (Some(&*in_topic(&prefix)), Some(&*in_topic(&schema)), &*in_topic(&table));
        prop_assert_eq!(split.parts(&topic), parts);
        prop_assert!(Split::all(&topic).any(|one| one == split));
        if other != topic {
            prop_assert_eq!(Split::told(&other, &prefix, &schema, &table), None);
        }
    }

    /// Different topics have different tables wherever their names are split, but where the parts that make the
    /// namespace are one text.
    #[test]
    fn split_names_differ_as_their_parts_do(one in topics(), other in topics(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let naming = Naming::parse(Naming::DEFAULT).unwrap();
        let pick = |topic: &str, index: prop::sample::Index| {
            let all: Vec<Split> = Split::all(topic).collect();
            (!all.is_empty()).then(|| all[index.index(all.len())])
        };
        if let (Some(a), Some(b)) = (pick(&one, a), pick(&other, b)) {
            let kept = |topic: &str, split: Split| {
                let (prefix, schema, table) = split.parts(topic);
                (format!("{}_{}", prefix.unwrap(), schema.unwrap()), table.to_owned())
            };
            let same = naming.table_at(&one, a) == naming.table_at(&other, b);
            prop_assert_eq!(same, kept(&one, a) == kept(&other, b));
        }
    }

    /// Different topics have different tables, but where one has in its prefix what the other has in its schema.
    #[test]
    fn different_topics_have_different_tables(one in topics(), other in topics()) {
        let naming = Naming::parse(Naming::DEFAULT).unwrap();
        prop_assert_eq!(naming.table(&one) == naming.table(&other), kept(&one) == kept(&other));
        let whole = Naming::parse("a.{topic}").unwrap();
        prop_assert_eq!(whole.table(&one) == whole.table(&other), one == other);
    }
}
