//! How requests get to a catalog and answers back. The protocol is above; sockets are below.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::{Client, Error, Method, Request, RequestBuilder, StatusCode};

/// Why there is no answer, or none that is whole.
pub type Unanswered = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to a catalog: an HTTP client, or what stands for one where there are no sockets.
#[async_trait]
pub trait Exchange: fmt::Debug + Send + Sync {
    /// Sends the request, once; status and body of the answer. What fails names no URL: there may be a secret in it.
    async fn send(&self, request: Request) -> Result<(StatusCode, Bytes), Unanswered>;
}

#[async_trait]
impl Exchange for Client {
    async fn send(&self, request: Request) -> Result<(StatusCode, Bytes), Unanswered> {
        let answer = self.execute(request).await.map_err(Error::without_url)?;
        let status = answer.status();
        Ok((status, answer.bytes().await.map_err(Error::without_url)?))
    }
}

/// Makes requests, and sends them.
#[derive(Debug, Clone)]
pub(super) struct Line {
    client: Client,
    exchange: Arc<dyn Exchange>,
}

impl Line {
    /// A line whose requests `exchange` sends; the client itself where there is none.
    pub(super) fn new(client: Client, exchange: Option<Arc<dyn Exchange>>) -> Self {
        let exchange = exchange.unwrap_or_else(|| Arc::new(client.clone()));
        Self { client, exchange }
    }

    pub(super) fn request(&self, method: Method, url: &str) -> RequestBuilder {
        self.client.request(method, url)
    }

    pub(super) async fn send(
        &self,
        request: RequestBuilder,
    ) -> Result<(StatusCode, Bytes), Unanswered> {
        self.exchange.send(request.build().map_err(Error::without_url)?).await
    }
}
