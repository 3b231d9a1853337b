//! Decimals in every form.

use super::*;

#[rstest]
#[case("MDk=", "decimal(10,2)", "Decimal(12345)")]
#[case("nA==", "decimal(10,2)", "Decimal(-100)")]
#[case("AeIT", "decimal(38,2)", "Decimal(123411)")]
#[case("/h3t", "decimal(38,2)", "Decimal(-123411)")]
#[case("AA==", "decimal(5,0)", "Decimal(0)")]
#[case("", "decimal(5,0)", "Decimal(0)")]
#[case(
    "SztMqFqGxHoJiiI//////w==",
    "decimal(38,0)",
    "Decimal(99999999999999999999999999999999999999)"
)]
#[case("tMSzV6V5O4X2dd3AAAAAAA==", "decimal(38,0)", DIGITS)]
// Eighteen bytes, the first two only a sign.
#[case("//////////////////////+c", "decimal(5,2)", "Decimal(-100)")]
#[case("AP//////////", "decimal(20,0)", "Decimal(18446744073709551615)")]
#[case("AP//////////", "decimal(19,0)", DIGITS)]
#[case("not base64!", "decimal(5,2)", MISMATCH)]
fn decimals_in_base64(#[case] text: &str, #[case] ty: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Text(text), ty).unwrap_or_else(str::to_owned), expected);
}

#[rstest]
#[case("123.45", "Decimal(12345)")]
#[case("-0.05", "Decimal(-5)")]
#[case("1.2345e2", "Decimal(12345)")]
#[case("12E+1", "Decimal(12000)")]
#[case("1.10000", "Decimal(110)")]
#[case("0e-400", "Decimal(0)")]
#[case("1.234", PRECISE)]
#[case("0.00001", PRECISE)]
#[case("1e-400", PRECISE)]
#[case("1e30", DIGITS)]
#[case("123456789012345678901234567890123456789012", DIGITS)]
#[case("1.5000000000000000000000000000000000000000000000000000", "Decimal(150)")]
#[case("12.", "Decimal(1200)")]
#[case("x", MISMATCH)]
#[case("-", MISMATCH)]
#[case("NAN", "not_a_number")]
#[case("POSITIVE_INFINITY", INFINITE)]
#[case("1e999999999999", MISMATCH)]
fn decimals_as_numbers_are_exact(#[case] number: &str, #[case] expected: &str) {
    assert_eq!(
        stored(Raw::Number(number), "decimal(10,2)").unwrap_or_else(str::to_owned),
        expected
    );
}

#[rstest]
#[case(r#"{"scale":4,"value":"AYr3"}"#, None, r#"Text("10.1111")"#)]
#[case(r#"{"scale":0,"value":"AA=="}"#, None, r#"Text("0")"#)]
#[case(r#"{"scale":-3,"value":"ew=="}"#, None, r#"Text("123000")"#)]
#[case(r#"{"scale":2,"value":"/w=="}"#, None, r#"Text("-0.01")"#)]
#[case(r#"{"value":"AYr3","scale":4}"#, Some("decimal(10,4)"), "Decimal(101111)")]
#[case(r#"{"scale":4,"value":"AYr3"}"#, Some("decimal(10,2)"), PRECISE)]
#[case(r#"{"scale":-3,"value":"ew=="}"#, Some("decimal(10,2)"), "Decimal(12300000)")]
#[case(r#"{"scale":0,"value":"AYr3"}"#, Some("decimal(5,2)"), DIGITS)]
#[case(r#"{"scale":2000000000,"value":"AYr3"}"#, Some("decimal(5,2)"), PRECISE)]
#[case(r#"{"scale":-2000000000,"value":"AYr3"}"#, Some("decimal(5,2)"), DIGITS)]
#[case(r#"{"scale":-2000000000,"value":"AYr3"}"#, None, MISMATCH)]
#[case(r#"{"scale":4}"#, None, MISMATCH)]
fn decimals_with_their_own_scale(
    #[case] json: &str,
    #[case] declared: Option<&str>,
    #[case] expected: &str,
) {
    let variable = described(ConnectType::Struct, VARIABLE, &[]);
    assert_eq!(told(Raw::Json(json), &variable, declared).unwrap_or_else(str::to_owned), expected);
}

/// Bytes of a decimal as a connector writes them.
fn unscaled(text: &str) -> Vec<u8> {
    text.parse::<num_bigint::BigInt>().unwrap().to_signed_bytes_be()
}

#[rstest]
#[case(
    "12345678901234567890123456789012345678901234567890123450123456789",
    10,
    65,
    "1234567890123456789012345678901234567890123456789012345.0123456789"
)]
#[case("-1", 10, 65, "-0.0000000001")]
#[case("0", 30, 65, "0.000000000000000000000000000000")]
fn decimals_of_more_than_38_digits_are_text(
    #[case] value: &str,
    #[case] scale: i32,
    #[case] precision: i32,
    #[case] expected: &str,
) {
    let (scale, precision) = (scale.to_string(), precision.to_string());
    let parameters = [("scale", scale.as_str()), ("connect.decimal.precision", precision.as_str())];
    let described = described(ConnectType::Bytes, DECIMAL, &parameters);
    let bytes = unscaled(value);
    assert_eq!(told(Raw::Bytes(&bytes), &described, None), Ok(format!("Text({expected:?})")));
}

#[rstest]
#[case("12.50", r#"Text("12.50")"#)]
#[case("-1250", r#"Text("-1250")"#)]
#[case("12345", r#"Text("12345")"#)]
#[case("NaN", r#"Text("NaN")"#)]
// Bytes in base64, whose scale nothing tells; some of them look like a number.
#[case("AYr3", MISMATCH)]
#[case("1234", MISMATCH)]
#[case("1e+2", MISMATCH)]
#[case("", MISMATCH)]
fn a_decimal_without_a_scale_is_no_text(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(stored(Raw::Text(text), "numeric").unwrap_or_else(str::to_owned), expected);
}

#[rstest]
#[case("decimal(45,10)", "A34R1gA=", r#"Text("1.5000000000")"#)]
#[case("decimal(65,30)", "Eu7C6zhpr2TfYAAAAA==", r#"Text("1.500000000000000000000000000000")"#)]
#[case("decimal(45,0)", "1234", r#"Text("-2658824")"#)]
#[case("decimal(45,10)", "12.34", MISMATCH)]
fn a_declared_decimal_of_any_precision_is_exact(
    #[case] ty: &str,
    #[case] base64: &str,
    #[case] expected: &str,
) {
    assert_eq!(stored(Raw::Text(base64), ty).unwrap_or_else(str::to_owned), expected);
}

#[test]
fn a_negative_scale_is_exact() {
    let of = |scale: &str, bytes: &[u8], declared| {
        let parameters = [("scale", scale), ("connect.decimal.precision", "5")];
        told(Raw::Bytes(bytes), &described(ConnectType::Bytes, DECIMAL, &parameters), declared)
    };
    assert_eq!(of("-2", &unscaled("123"), None).as_deref(), Ok("Decimal(12300)"));
    let postgres = unscaled(&format!("12300{}", "0".repeat(2046)));
    assert_eq!(of("2046", &postgres, None).as_deref(), Ok("Decimal(12300)"));
    assert_eq!(of("2046", &postgres, Some("string")).as_deref(), Ok(r#"Text("12300")"#));
    assert_eq!(of("2046", &unscaled("1"), None), Err(PRECISE));
}
