//! Tokens for the catalog: none, a given one, or those of an OAuth2 client (RFC 6749, client credentials).

use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{RestOptions, Secret};
use crate::error::{Error, Result};

/// The scope that catalogs expect.
const SCOPE: &str = "catalog";

/// Who gives tokens.
#[derive(Debug)]
pub(super) enum Authority {
    /// None are needed.
    Open,
    /// Always this one.
    Fixed(Secret),
    /// A server, asked as a client.
    Server(Server),
}

#[derive(Debug)]
pub(super) struct Server {
    client: Client,
    url: String,
    id: Option<String>,
    secret: Secret,
    scope: String,
    cached: Mutex<Option<Token>>,
}

#[derive(Debug, Clone)]
struct Token {
    secret: Secret,
    renew_at: Option<Instant>,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: Option<u64>,
}

impl Authority {
    pub(super) fn new(options: &RestOptions, uri: &str, client: Client) -> Self {
        let Some(credential) = &options.credential else {
            return options.token.clone().map_or(Self::Open, Self::Fixed);
        };
        let (id, secret) = match credential.reveal().split_once(':') {
            Some((id, secret)) => (Some(id.to_owned()), secret),
            None => (None, credential.reveal()),
        };
        let url = options.oauth2_server_uri.clone();
        Self::Server(Server {
            client,
            url: url.unwrap_or_else(|| format!("{uri}/v1/oauth/tokens")),
            id,
            secret: Secret::new(secret),
            scope: options.scope.clone().unwrap_or_else(|| SCOPE.to_owned()),
            cached: Mutex::new(None),
        })
    }

    /// True when a token that is refused can be replaced.
    pub(super) fn is_renewable(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The token to use, not the one in `refused`.
    pub(super) async fn token(&self, refused: Option<&Secret>) -> Result<Option<Secret>> {
        let server = match self {
            Self::Open => return Ok(None),
            Self::Fixed(token) => return Ok(Some(token.clone())),
            Self::Server(server) => server,
        };
        let mut cached = server.cached.lock().await;
        if let Some(token) = &*cached {
            let fresh = token.renew_at.is_none_or(|at| Instant::now() < at);
            if fresh && refused != Some(&token.secret) {
                return Ok(Some(token.secret.clone()));
            }
        }
        let token = server.request().await?;
        Ok(Some(cached.insert(token).secret.clone()))
    }
}

impl Server {
    async fn request(&self) -> Result<Token> {
        let what = format!("cannot get a token for the Iceberg catalog from {}", self.url);
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_secret", self.secret.reveal()),
            ("scope", &self.scope),
        ];
        form.extend(self.id.as_deref().map(|id| ("client_id", id)));
        let failed = |e: reqwest::Error| Error::unavailable(what.as_str()).because(e.without_url());
        let asked = Instant::now();
        let answer = self.client.post(&self.url).form(&form).send().await.map_err(failed)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(failed)?;
        if !status.is_success() {
            // The body is not repeated: it may repeat what was sent.
            let text = format!("{what}: the answer is {}", status.as_u16());
            let later = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            return Err(if later {
                Error::unavailable(text)
            } else {
                Error::refused(text)
                    .hint("check CDC_SINK_CATALOG_CREDENTIAL, the scope and the URI")
            });
        }
        let body: TokenBody = serde_json::from_slice(&body)
            .map_err(|_| Error::refused(format!("{what}: the answer has no access_token")))?;
        // Renewed with a quarter of its time left, so a slow request does not outlive it.
        let life = body.expires_in.map(|seconds| Duration::from_secs(seconds) * 3 / 4);
        Ok(Token {
            secret: Secret::new(body.access_token),
            renew_at: life.and_then(|life| asked.checked_add(life)),
        })
    }
}
