//! What lets us into the catalog: nothing, a user's password, a given token, or those of an OAuth2 client (RFC 6749,
//! client credentials).

use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exchange::{Line, Unanswered};
use super::{RestOptions, Secret};
use crate::error::{Error, Result};

/// The scope that catalogs expect.
const SCOPE: &str = "catalog";
/// What a server may say of a request that it refuses (RFC 6749, 5.2). No other word of its answer is repeated: it may
/// repeat what was sent.
const REASONS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// Who gives tokens.
#[derive(Debug)]
pub(super) enum Authority {
    /// None are needed.
    Open,
    /// A user's name and password stand for them, `user:password`.
    Basic(Secret),
    /// Always this one.
    Fixed(Secret),
    /// A server, asked as a client.
    Server(Box<Server>),
}

#[derive(Debug)]
pub(super) struct Server {
    line: Line,
    catalog: String,
    url: String,
    id: Option<String>,
    secret: Secret,
    scope: String,
    cached: Mutex<Option<Token>>,
}

#[derive(Debug, Clone)]
struct Token {
    secret: Secret,
    /// For one that expires.
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct RefusalBody {
    error: String,
}

impl Authority {
    pub(super) fn new(options: &RestOptions, uri: &str, line: Line) -> Self {
        let Some(credential) = &options.credential else {
            let basic = options.auth.clone().map(Self::Basic);
            return options.token.clone().map(Self::Fixed).or(basic).unwrap_or(Self::Open);
        };
        let (id, secret) = match credential.reveal().split_once(':') {
            Some((id, secret)) => (Some(id.to_owned()), secret),
            None => (None, credential.reveal()),
        };
        let url = options.oauth2_server_uri.clone();
        Self::Server(Box::new(Server {
            line,
            catalog: uri.to_owned(),
            url: url.unwrap_or_else(|| format!("{uri}/v1/oauth/tokens")),
            id,
            secret: Secret::new(secret),
            scope: options.scope.clone().unwrap_or_else(|| SCOPE.to_owned()),
            cached: Mutex::new(None),
        }))
    }

    /// True when a token that is refused can be replaced.
    pub(super) fn is_renewable(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// What a person can do when the catalog lets us not in.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Open => {
                "set CDC_SINK_CATALOG_CREDENTIAL, CDC_SINK_CATALOG_TOKEN or CDC_SINK_CATALOG_AUTH"
            }
            Self::Basic(_) => "check user and password in CDC_SINK_CATALOG_AUTH",
            Self::Fixed(_) => {
                "CDC_SINK_CATALOG_TOKEN is wrong or has expired; with CDC_SINK_CATALOG_CREDENTIAL tokens are asked for when they are needed"
            }
            Self::Server(_) => {
                "the catalog does not take this client's tokens: check --catalog-scope, and the audience that the authorization server puts in"
            }
        }
    }

    /// The request with the token, or what stands for one.
    pub(super) fn sign(&self, request: RequestBuilder, token: Option<&Secret>) -> RequestBuilder {
        match (self, token) {
            (Self::Basic(both), _) => {
                let both = both.reveal();
                let (user, password) = both.split_once(':').unwrap_or((both, ""));
                request.basic_auth(user, Some(password))
            }
            (_, Some(token)) => request.bearer_auth(token.reveal()),
            (_, None) => request,
        }
    }

    /// The token to use, not the one in `refused`.
    pub(super) async fn token(&self, refused: Option<&Secret>) -> Result<Option<Secret>> {
        let server = match self {
            Self::Open | Self::Basic(_) => return Ok(None),
            Self::Fixed(token) => return Ok(Some(token.clone())),
            Self::Server(server) => server,
        };
        let mut cached = server.cached.lock().await;
        let now = Instant::now();
        let usable = cached.as_ref().filter(|token| refused != Some(&token.secret));
        if let Some(token) = usable
            && token.life.is_none_or(|life| now < life.renew_at)
        {
            return Ok(Some(token.secret.clone()));
        }
        match server.request().await {
            Ok(token) => Ok(Some(cached.insert(token).secret.clone())),
            // A server that is away for a while stops nobody whose token still has some of its time.
            Err(error) if error.is_retryable() => usable
                .filter(|token| token.life.is_some_and(|life| now < life.ends_at))
                .map(|token| Some(token.secret.clone()))
                .ok_or(error),
            Err(error) => Err(error),
        }
    }
}

impl Server {
    async fn request(&self) -> Result<Token> {
        let Self { catalog, url, .. } = self;
        let what = format!("cannot get a token for the Iceberg catalog {catalog} from {url}");
        let mut form = vec![
            ("grant_type", "client_credentials"),
            ("client_secret", self.secret.reveal()),
            ("scope", &self.scope),
        ];
        form.extend(self.id.as_deref().map(|id| ("client_id", id)));
        let failed = |e: Unanswered| Error::unavailable(what.as_str()).because(e);
        let asked = Instant::now();
        let request = self.line.request(Method::POST, url).form(&form);
        let (status, body) = self.line.send(request).await.map_err(failed)?;
        if !status.is_success() {
            return Err(refusal(&what, status, &body));
        }
        let body: TokenBody = serde_json::from_slice(&body)
            .map_err(|_| Error::refused(format!("{what}: the answer has no access_token")))?;
        // Renewed with a quarter of its time left, so a slow request does not outlive it.
        let life = body.expires_in.map(Duration::from_secs).and_then(|life| {
            let (renew_at, ends_at) =
                (asked.checked_add(life - life / 4)?, asked.checked_add(life)?);
            Some(Life { renew_at, ends_at })
        });
        Ok(Token { secret: Secret::new(body.access_token), life })
    }
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> Error {
    let said = serde_json::from_slice::<RefusalBody>(body).ok();
    let reason = said.and_then(|body| REASONS.into_iter().find(|reason| *reason == body.error));
    let reason = reason.map_or(String::new(), |reason| format!(" {reason}"));
    let text = format!("{what}: the answer is {}{reason}", status.as_u16());
    match status {
        // Catalogs that give no tokens themselves.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
            Error::refused(text).hint("name the authorization server with --catalog-oauth2-server")
        }
        StatusCode::TOO_MANY_REQUESTS => Error::unavailable(text),
        status if status.is_server_error() => Error::unavailable(text),
        _ => Error::refused(text)
            .hint("check CDC_SINK_CATALOG_CREDENTIAL, --catalog-scope and --catalog-oauth2-server"),
    }
}
