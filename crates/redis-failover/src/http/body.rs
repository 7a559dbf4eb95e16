//! What clients send: the body, within its limits, and fields in a query or a form.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use failover_core::time::Time;
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::reply::{Code, Problem};
use super::{BODY_BYTES_MAX, BODY_BYTES_THROWN_AWAY_MAX, Limits};

const FORM: &str = "application/x-www-form-urlencoded";

/// The whole body.
pub(super) async fn read(body: Body, limits: &Limits) -> Result<Vec<u8>, Problem> {
    timeout(limits.body_timeout, read_all(body)).await.unwrap_or_else(|_| {
        Err(Problem::bad_request(format!(
            "the body did not arrive within {} ms",
            limits.body_timeout.as_millis()
        )))
    })
}

/// A JSON object, or nothing at all, which is an empty one.
pub(super) async fn object(body: Body, limits: &Limits) -> Result<Map<String, Value>, Problem> {
    let body = read(body, limits).await?;
    if body.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body must be a JSON object: {error}")))
}

/// A field that is a text; absent and null are the same.
pub(super) fn text(object: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            Err(Problem::bad_request(format!("{field} must be a text; nothing was changed")))
        }
    }
}

/// A field that is a moment which is yet to come.
pub(super) fn moment(
    object: &Map<String, Value>,
    field: &str,
    now: Time,
) -> Result<Option<Time>, Problem> {
    let Some(text) = text(object, field)? else { return Ok(None) };
    let moment = Time::parse(&text).ok_or_else(|| {
        Problem::bad_request(format!(
            "{field} is {text:?}, and must be a moment like 2030-01-31T23:59:00Z; nothing was changed"
        ))
    })?;
    if moment <= now {
        return Err(Problem::bad_request(format!(
            "{field} is {moment}, which is over already; nothing was changed"
        )));
    }
    Ok(Some(moment))
}

async fn read_all(mut body: Body) -> Result<Vec<u8>, Problem> {
    let too_large =
        || Problem::new(Code::TooLarge, format!("the body is longer than {BODY_BYTES_MAX} bytes"));
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_BYTES_THROWN_AWAY_MAX {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        length = length.saturating_add(data.len());
        if length <= BODY_BYTES_MAX {
            bytes.extend_from_slice(data);
        } else if length > BODY_BYTES_THROWN_AWAY_MAX {
            break;
        }
    }
    if length > BODY_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

/// All values of a field in a query string or a form.
pub(super) fn values(encoded: &[u8], field: &str) -> Vec<String> {
    form_urlencoded::parse(encoded)
        .filter(|(key, _)| key == field)
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// The value of a field that may be given once.
pub(super) fn value(query: Option<&str>, field: &str) -> Result<Option<String>, Problem> {
    let mut values = values(query.unwrap_or_default().as_bytes(), field);
    if values.len() > 1 {
        return Err(Problem::bad_request(format!("{field} is given {} times", values.len())));
    }
    Ok(values.pop())
}

/// All values of a field in a body, which is a form when there is one at all.
pub(super) fn form_values(
    headers: &HeaderMap,
    body: &[u8],
    field: &str,
) -> Result<Vec<String>, Problem> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(FORM) {
        return Err(Problem::bad_request(format!(
            "the body must be a form with Content-Type {FORM}, and is {}; or give {field} in the query",
            if essence.is_empty() { "of no stated type" } else { essence }
        )));
    }
    Ok(values(body, field))
}
