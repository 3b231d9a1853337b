//! Which certificate authorities HTTPS servers may have, and how every HTTP client begins.

use std::path::Path;

use object_store::ClientOptions;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, ClientBuilder, Url};

use crate::error::{Error, Result};

/// Redirects that are followed in a row.
const REDIRECTS: usize = 5;

/// Certificate authorities that count beside the public ones. Certificates are always verified, and so are host names.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    http: Vec<Certificate>,
    store: Vec<object_store::Certificate>,
}

impl Trust {
    /// The authorities in a file of certificates in PEM.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |what| Error::invalid(format!("option ca-file: {what} {}", path.display()));
        let unusable = || {
            failed("there are no certificates to use in")
                .hint("give a file with the certificates of authorities in PEM")
        };
        let pem = std::fs::read(path).map_err(|e| failed("cannot read").because(e))?;
        let http = Certificate::from_pem_bundle(&pem).map_err(|e| unusable().because(e))?;
        let store =
            object_store::Certificate::from_pem_bundle(&pem).map_err(|e| unusable().because(e))?;
        if http.is_empty() {
            return Err(unusable());
        }
        let trust = Self { http, store };
        // What is in PEM but no certificate shows here first.
        trust.http().build().map_err(|e| unusable().because(e))?;
        Ok(trust)
    }

    /// The beginnings of an HTTP client. It goes on to another place of the same server when that says so, and to no
    /// other server: what it sends may be a secret.
    pub fn http(&self) -> ClientBuilder {
        let client = Client::builder().redirect(Policy::custom(follow));
        self.http.iter().cloned().fold(client, ClientBuilder::add_root_certificate)
    }

    /// The beginnings of an object store's client.
    pub(crate) fn store(&self) -> ClientOptions {
        self.store.iter().cloned().fold(ClientOptions::new(), ClientOptions::with_root_certificate)
    }
}

fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let server = |url: &Url| {
        (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default())
    };
    let asked = attempt.previous();
    if asked.len() <= REDIRECTS && asked.first().map(server) == Some(server(attempt.url())) {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rstest::rstest;

    use super::*;
    use crate::error::Kind;

    /// Signed by itself; its key is thrown away.
    pub(crate) const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBGzCBwqADAgECAgEBMAoGCCqGSM49BAMCMAwxCjAIBgNVBAMMAWEwIBcNMDAw
MTAxMDAwMDAwWhgPMjk5OTAxMDEwMDAwMDBaMAwxCjAIBgNVBAMMAWEwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAATth7TnAhntp2kHHjj1zA6si/Y4Jyn6Q+1PMSye
kmSMDfhDUfAaHaOIArX1OSBZLRpbs/kxH1jFhdfxClGbo1bBoxMwETAPBgNVHRMB
Af8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDEIyO9K3bysTt4exWqwpNt21N+
xeiI9asf+bgo6ZyihAIgOp25Lh0Of2xaL9oH47FMSvfw2BciipHr1fnfuOrxJwM=
-----END CERTIFICATE-----";

    #[rstest]
    #[case("", false)]
    #[case("no PEM", false)]
    #[case("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", false)]
    #[case("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", false)]
    #[case(AUTHORITY, true)]
    fn authorities_come_from_a_file_of_certificates(#[case] text: &str, #[case] fine: bool) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        match Trust::read(file.path()) {
            Ok(trust) => assert!(fine && (trust.http.len(), trust.store.len()) == (1, 1)),
            Err(error) => {
                assert!(!fine && error.kind() == Kind::Invalid, "{}", error.report());
                assert!(error.report().starts_with("option ca-file: "), "{}", error.report());
            }
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let error = Trust::read(Path::new("no/such/file.pem")).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.report().starts_with("option ca-file: cannot read no/such/file.pem: "));
    }

    /// A server that sends whoever asks on to `to`; and how often it was asked.
    async fn sends_on(to: Option<String>) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (to, asked) = (to.unwrap_or_else(|| url.clone()), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        let router = axum::Router::new().fallback(move || async move {
            counted.fetch_add(1, Ordering::Relaxed);
            axum::response::Redirect::temporary(&to)
        });
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await });
        server.detach_all();
        (url, asked)
    }

    #[tokio::test]
    async fn a_redirect_is_followed_on_the_same_server_alone() {
        let (here, asked_here) = sends_on(None).await;
        let (elsewhere, asked_elsewhere) = sends_on(Some(here.clone())).await;
        let client = Trust::default().http().build().unwrap();
        for (url, asked, times) in
            [(elsewhere, asked_elsewhere, 1), (here, asked_here, REDIRECTS + 1)]
        {
            let answer = client.post(url).body("a secret").send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 307);
            assert_eq!(asked.load(Ordering::Relaxed), times);
        }
    }
}
