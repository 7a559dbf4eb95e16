//! Webhooks: what happened as a JSON POST, signed, with a key that is the same whenever the same is told again.
//!
//! What they answer is not repeated anywhere: a service that echoes its address would put a password that is part of it
//! into a log. The exception is the reason of a veto, which is meant to be read.

use std::collections::BTreeSet;
use std::error::Error;

use bytes::Bytes;
use failover_core::node::GroupName;
use hmac::{Hmac, Mac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::Sha256;
use tokio::time::{Instant, timeout_at};

use super::HookCall;
use crate::config::WebhookConfig;

/// Of the answer that vetoes a failover, at most this much is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// The status with which a webhook vetoes a failover.
const VETO: StatusCode = StatusCode::CONFLICT;
/// `sha256=` and the HMAC of the body in hexadecimal digits.
const SIGNATURE: &str = "redis-failover-signature";
/// The same whenever the same is told again.
const KEY: &str = "idempotency-key";
/// What happened, as in the body.
const EVENT: &str = "redis-failover-event";
/// Counts the tries, from 1.
const ATTEMPT: &str = "redis-failover-attempt";

#[cfg(feature = "https")]
pub(super) type Connector = hyper_rustls::HttpsConnector<HttpConnector>;
#[cfg(not(feature = "https"))]
pub(super) type Connector = HttpConnector;

/// One service that is told.
pub(super) struct Webhook {
    uri: Uri,
    groups: BTreeSet<String>,
    secret: Option<SecretString>,
    timeout: std::time::Duration,
    client: Client<Connector, Full<Bytes>>,
}

/// What it said when it was asked.
pub(super) enum Said {
    Yes,
    No(String),
}

impl Webhook {
    /// # Errors
    /// A sentence, when its URL is none, or wants TLS where there is none.
    pub(super) fn new(config: &WebhookConfig) -> Result<Self, String> {
        let name = &config.name;
        let uri: Uri = config
            .url
            .expose_secret()
            .parse()
            .map_err(|_| format!("the url of the webhook \"{name}\" is no URL"))?;
        let connector = connector(uri.scheme_str() == Some("https"))
            .map_err(|why| format!("the webhook \"{name}\" cannot be reached: {why}"))?;
        // Something is told once in a while: a connection that waits for it would be stale by then.
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self {
            uri,
            groups: config.groups.clone(),
            secret: config.secret.clone(),
            timeout: config.timeout,
            client,
        })
    }

    /// Whether it is to be told of this group; `None` is the node itself.
    pub(super) fn is_of(&self, group: Option<&GroupName>) -> bool {
        self.groups.is_empty() || group.is_none_or(|group| self.groups.contains(group.as_str()))
    }

    /// Tells it; an error is a sentence.
    pub(super) async fn tell(&self, call: &HookCall, attempt: u32) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        let status = timeout_at(deadline, self.post(call, attempt)).await;
        let (status, _) = status.map_err(|_| self.too_late())??;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("it answered with HTTP status {}", status.as_u16())),
        }
    }

    /// Asks it whether a failover may happen.
    ///
    /// # Errors
    /// A sentence that says why it has no say.
    pub(super) async fn ask(&self, call: &HookCall, deadline: Instant) -> Result<Said, String> {
        let deadline = deadline.min(Instant::now() + self.timeout);
        let answer = timeout_at(deadline, self.post(call, 1)).await.map_err(|_| self.too_late())?;
        match answer? {
            (status, _) if status.is_success() => Ok(Said::Yes),
            (VETO, body) => {
                let body = timeout_at(deadline, body).await.map_err(|_| self.too_late())?;
                Ok(Said::No(reason(&body)))
            }
            (status, _) => Err(format!("it answered with HTTP status {}", status.as_u16())),
        }
    }

    fn too_late(&self) -> String {
        format!("it did not answer in time ({} ms at most)", self.timeout.as_millis())
    }

    /// Sends it, and gives the status and a way to read the rest.
    async fn post(
        &self,
        call: &HookCall,
        attempt: u32,
    ) -> Result<(StatusCode, impl Future<Output = Bytes>), String> {
        let body = Bytes::from(call.json());
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, concat!("redis-failover/", env!("CARGO_PKG_VERSION")))
            .header(KEY, &call.id)
            .header(EVENT, call.event.name())
            .header(ATTEMPT, attempt);
        if let Some(secret) = &self.secret {
            request = request.header(SIGNATURE, signature(secret, &body));
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| format!("the request cannot be made: {error}"))?;
        let response = self.client.request(request).await.map_err(|error| chain(&error))?;
        let (head, body) = response.into_parts();
        let rest = async {
            let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            read.map(|read| read.to_bytes()).unwrap_or_default()
        };
        Ok((head.status, rest))
    }
}

pub(super) fn connector(tls: bool) -> Result<Connector, String> {
    let mut http = HttpConnector::new();
    #[cfg(not(feature = "https"))]
    {
        http.enforce_http(true);
        match tls {
            true => Err("this build has no TLS: it lacks the feature https".to_owned()),
            false => Ok(http),
        }
    }
    #[cfg(feature = "https")]
    {
        http.enforce_http(false);
        let mut roots = rustls::RootCertStore::empty();
        if tls {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(
                    "this host has no certificates of authorities that could be trusted; install \
                            ca-certificates, or name a file of them in SSL_CERT_FILE"
                        .to_owned(),
                );
            }
        }
        // The provider is named here, so that the one that the host may have installed is neither needed nor touched.
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config);
        Ok(builder.https_or_http().enable_http1().wrap_connector(http))
    }
}

fn signature(secret: &SecretString, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes())
        .expect("a key may have any length");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The reason of a veto: `{"reason": …}`, or the text as it is.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Veto {
        reason: String,
    }
    let text = match serde_json::from_slice::<Veto>(body) {
        Ok(veto) => veto.reason,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    match text.trim() {
        "" => "a webhook said no without a reason".to_owned(),
        text => text.to_owned(),
    }
}

/// An error with what caused it: the outermost says little.
pub(super) fn chain(error: &dyn Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_signed_as_everybody_else_does_it() {
        // printf '{"a":1}' | openssl dgst -sha256 -hmac key
        let digest = "sha256=88a67f24bbcdaed0e6c997404bb79a743baf44c6bab2f4c27328e3009d22e342";
        assert_eq!(signature(&SecretString::from("key"), br#"{"a":1}"#), digest);
    }

    #[test]
    fn a_veto_gives_its_reason_as_json_or_text() {
        assert_eq!(reason(br#"{"reason":"a backup runs"}"#), "a backup runs");
        assert_eq!(reason(b"not now\n"), "not now");
        assert_eq!(reason(b" "), "a webhook said no without a reason");
    }
}
