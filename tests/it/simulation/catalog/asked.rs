//! What a request asks of the catalog.

use std::fmt;

use bytes::Bytes;
use reqwest::{Method, Request};

/// The catalog's URI.
pub(super) const URI: &str = "http://catalog.simulation";

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Call {
    Config,
    Token,
    /// Is there such a namespace?
    Look,
    /// Makes a namespace.
    Found,
    Create,
    Load,
    Commit,
}

/// A request as the server reads it.
#[derive(Debug)]
pub(in super::super) struct Asked {
    pub(super) call: Call,
    /// The namespace; for requests of one table its name as well, after a `/`.
    pub(super) key: String,
    pub(super) body: Bytes,
    pub(super) token: Option<String>,
}

impl Asked {
    /// Panics at what the protocol does not have.
    pub(super) fn new(request: &Request) -> Self {
        let url = request.url().as_str().strip_prefix(URI).unwrap();
        let parts: Vec<_> = url.strip_prefix("/v1/").unwrap().split('/').collect();
        let is_get = *request.method() == Method::GET;
        let (call, key) = match (parts.as_slice(), is_get) {
            (["config"], true) => (Call::Config, String::new()),
            (["oauth", "tokens"], false) => (Call::Token, String::new()),
            (["sim", "namespaces"], false) => (Call::Found, String::new()),
            (["sim", "namespaces", space], true) => (Call::Look, (*space).to_owned()),
            (["sim", "namespaces", space, "tables"], false) => (Call::Create, (*space).to_owned()),
            (["sim", "namespaces", space, "tables", table], is_get) => {
                let call = if is_get { Call::Load } else { Call::Commit };
                (call, format!("{space}/{table}"))
            }
            _ => panic!("the catalog knows no {} {url}", request.method()),
        };
        let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        let token = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        let token = token.map(|token| token.strip_prefix("Bearer ").unwrap().to_owned());
        Self { call, key, body: Bytes::copy_from_slice(body), token }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "catalog {:?} {}", self.call, self.key)
    }
}
