use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;
use crate::error::Kind;

/// A registry that gives these answers, one connection each, and hands back what it was asked.
fn server(answers: Vec<(&'static str, &'static str)>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/apis/ccompat/v7", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let mut asked = Vec::new();
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            asked.push(String::from_utf8(request).unwrap());
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (address, asked)
}

#[tokio::test]
async fn a_schema_is_fetched_once_with_its_references() {
    let (address, asked) = server(vec![
        ("200 OK", r#"{"schema":"\"b\"","references":[{"name":"b","subject":"s/b","version":3}]}"#),
        ("200 OK", r#"{"subject":"s/b","id":1,"version":3,"schema":"\"int\""}"#),
    ]);
    let auth = Some(Auth { user: "u".into(), password: "secret".into() });
    let registry = Registry::new(&address, auth).unwrap();
    let text = registry.get(SchemaId(42)).await.unwrap();
    assert_eq!(*text, Text { schema: "\"b\"".into(), references: vec!["\"int\"".into()] });
    assert!(Arc::ptr_eq(&text, &registry.get(SchemaId(42)).await.unwrap()));
    let asked = asked.join().unwrap();
    assert!(asked[0].starts_with("GET /apis/ccompat/v7/schemas/ids/42 "), "{}", asked[0]);
    assert!(asked[0].contains("authorization: Basic dTpzZWNyZXQ="), "{}", asked[0]);
    assert!(
        asked[1].starts_with("GET /apis/ccompat/v7/subjects/s%2Fb/versions/3 "),
        "{}",
        asked[1]
    );
    assert!(
        !format!("{registry:?} {:?}", registry.server.as_ref().map(|server| &server.auth))
            .contains("secret")
    );
}

#[tokio::test]
async fn only_a_clear_no_is_about_the_data() {
    for (status, body, kind) in [
        ("404 Not Found", r#"{"error_code":40403,"message":"Schema not found"}"#, Kind::Data),
        // A proxy's, or of a wrong address.
        ("404 Not Found", "<html>", Kind::Unavailable),
        ("404 Not Found", "", Kind::Unavailable),
        ("401 Unauthorized", "", Kind::Unavailable),
        ("500 Internal Server Error", "", Kind::Unavailable),
        ("503 Service Unavailable", "", Kind::Unavailable),
        ("200 OK", "<html>", Kind::Unavailable),
        ("200 OK", r#"{"schema":"x","schemaType":"PROTOBUF"}"#, Kind::Data),
    ] {
        let (address, asked) = server(vec![(status, body)]);
        let registry = Registry::new(&address, None).unwrap();
        let error = registry.get(SchemaId(1)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {}", error.report());
        asked.join().unwrap();
    }
    let gone = Registry::new("http://127.0.0.1:1/", None).unwrap();
    assert_eq!(gone.get(SchemaId(1)).await.unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn an_address_is_checked_at_once() {
    for bad in ["", "registry:8081", "ftp://registry", "http://user:password@registry"] {
        let error = Registry::new(bad, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{bad}");
        assert!(!error.report().contains("password@"), "{}", error.report());
    }
}
