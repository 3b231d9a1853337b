use super::*;

fn skip(text: &str) -> Result<Range<usize>, Malformed> {
    Cursor::new(text.as_bytes(), 0).skip()
}

#[test]
fn a_value_is_stepped_over_whole() {
    for value in [
        "null",
        "-1.5e3",
        r#""""#,
        r#""a\"]}b""#,
        r#""\\""#,
        "{}",
        "[]",
        r#"{"a":"}","b":[{"c":"\\"}]}"#,
        r#""a string that is longer than what eight bytes a step do, 48 bytes and more of it \" to the end""#,
    ] {
        let text = format!("  {value} ,1");
        assert_eq!(skip(&text), Ok(2..2 + value.len()), "{value}");
    }
    let open = |bytes: &[u8]| container_end(bytes, 0);
    for length in 0..200 {
        // Escapes and quotes at every place of a block.
        let inner = "x".repeat(length);
        for string in [format!(r"{inner}\\"), format!(r#"{inner}\"}}"#), format!(r"{inner}\\\\]")] {
            let text = format!(r#"[{{"{string}":[]}},"{string}"]"#);
            assert_eq!(open(format!("{text}  ]}}").as_bytes()), Some(text.len()), "{text}");
            assert_eq!(open(&text.as_bytes()[..text.len() - 1]), None, "{text}");
        }
        let nested = "[".repeat(length + 1) + &"]".repeat(length + 1);
        assert_eq!(open(nested.as_bytes()), Some(nested.len()));
    }
    for broken in ["", "  ", r#"""#, r#""a\""#, "{", r#"{"a":1"#, "[1", ","] {
        assert!(skip(broken).is_err(), "{broken}");
    }
}

#[test]
fn nesting_does_not_take_the_stack() {
    let deep = "[".repeat(1_000_000) + &"]".repeat(1_000_000);
    assert_eq!(skip(&deep), Ok(0..2_000_000));
    assert!(skip(&"{\"a\":".repeat(1_000_000)).is_err());
}

#[test]
fn the_first_stop_is_found_at_every_place() {
    for length in 0..100 {
        for stop in [b'"', b'\\'] {
            let mut bytes = vec![b'x'; length];
            bytes.push(stop);
            bytes.extend_from_slice(b"yy\"");
            assert_eq!(string_stop(&bytes, 0), Some(length));
            assert_eq!(string_stop(&bytes, length / 2), Some(length));
        }
        assert_eq!(string_stop(&vec![b'!'; length], 0), None);
        assert_eq!(string_stop(&vec![0xa2; length], 0), None);
    }
}

#[test]
fn strings_are_unescaped() {
    let text = |raw: &str| {
        let quoted = format!("\"{raw}\"");
        let mut cursor = Cursor::new(quoted.as_bytes(), 0);
        let string = cursor.string()?;
        cursor.text(string).map(Cow::into_owned)
    };
    assert_eq!(
        text(r#"a\"\\\/\b\f\n\r\tü\u00fc\ud83d\ude00\u0000"#).unwrap(),
        "a\"\\/\u{8}\u{c}\n\r\tüü😀\0"
    );
    for bad in
        [r"\x", r"\u12", r"\u12g4", r"\u+123", r"\ud83d", r"\ud83dx", r"\ud83d\u0041", r"\ude00"]
    {
        assert!(text(bad).is_err(), "{bad}");
    }
    let mut invalid = Cursor::new(b"\"\xff\"", 0);
    let string = invalid.string().unwrap();
    assert!(invalid.text(string).is_err());
}

#[test]
fn a_scalar_ends_where_it_ends() {
    for scalar in [
        "1",
        "-1.5E+10",
        "true",
        "null",
        "123456789012345",
        "1234567890123456",
        "12345678901234567",
    ] {
        for end in [",", "}", "]", " ", "\n", "\t", "", "\"", ":", "{"] {
            for behind in ["", "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1"] {
                let expected = if end == ":" { None } else { Some(scalar.len()) };
                let expected = if end.is_empty() && !behind.is_empty() { None } else { expected };
                let found = scalar_end(format!("{scalar}{end}{behind}").as_bytes(), 0);
                assert!(
                    expected.is_none_or(|expected| expected == found),
                    "{scalar}{end}{behind}: {found}"
                );
            }
        }
    }
}

#[test]
fn integers_are_exact_or_none() {
    for value in [0, 1, -1, 9_007_199_254_740_993, i64::MAX, i64::MIN] {
        assert_eq!(integer(value.to_string().as_bytes()), Some(value));
    }
    for text in [
        "",
        "-",
        "01",
        "1.0",
        "1e3",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999",
        "1a",
    ] {
        assert_eq!(integer(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn numbers_are_of_the_grammar() {
    for number in ["0", "-0", "1.5", "-1.5e10", "1E+2", "1e-2", "99999999999999999999"] {
        assert!(is_number(number.as_bytes()), "{number}");
    }
    for other in ["", "-", "01", "1.", ".5", "1e", "1e+", "0x1", "NaN", "1.5.2", "1e5x", "+1"] {
        assert!(!is_number(other.as_bytes()), "{other}");
    }
}
