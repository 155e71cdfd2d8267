//! Endpoints that are about the status: `/status`, `/unstable`, `/etag`, `/cache`.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer;
use super::reflect::{self, Seen};
use crate::query;
use crate::server::Echo;

/// `/status/503`, or one of several by weight: `/status/200:0.9,503:0.1`.
pub async fn status(Path(codes): Path<String>) -> Response {
    match choose(&codes, fastrand::f64()) {
        Ok(code) => respond(code),
        Err(error) => answer::bad_request(&error),
    }
}

/// 500 at a `failure_rate` of 0 to 1, half of the time if not given; the same `seed` gives the same answer.
pub async fn unstable(RawQuery(query): RawQuery) -> Response {
    let pairs = query::pairs(query.as_deref().unwrap_or_default());
    let chance = match query::first(&pairs, "seed").map(str::parse::<i64>) {
        None => fastrand::f64(),
        Some(Ok(seed)) => fastrand::Rng::with_seed(seed.cast_unsigned()).f64(),
        Some(Err(error)) => return answer::bad_request(&format!("invalid seed: {error}")),
    };
    let rate = query::first(&pairs, "failure_rate").map_or(Ok(0.5), str::parse::<f64>);
    match rate {
        Ok(rate) if (0.0..=1.0).contains(&rate) => {
            let status = if chance < rate {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            };
            (status, [(CONTENT_TYPE, answer::TEXT)]).into_response()
        }
        _ => answer::bad_request("invalid failure rate: not in range [0, 1]"),
    }
}

/// The resource has this tag: 304 to a matching if-none-match, 412 to an if-match that doesn't.
pub async fn etag(
    State(echo): State<Arc<Echo>>,
    Path(tag): Path<String>,
    headers: HeaderMap,
    seen: Seen,
) -> Response {
    let tag = format!("\"{tag}\"");
    let Ok(value) = HeaderValue::from_str(&tag) else {
        return answer::bad_request("invalid etag");
    };
    let matches = |name| {
        headers
            .get(name)
            .map(|list: &HeaderValue| names(list, &tag))
    };
    let mut response = match (matches(IF_MATCH), matches(IF_NONE_MATCH)) {
        (Some(false), _) => StatusCode::PRECONDITION_FAILED.into_response(),
        (_, Some(true)) => StatusCode::NOT_MODIFIED.into_response(),
        _ => answer::json(StatusCode::OK, &seen.object(&echo)),
    };
    response.headers_mut().insert(ETAG, value);
    response
}

/// 304 to every conditional request.
pub async fn cache(State(echo): State<Arc<Echo>>, headers: HeaderMap, seen: Seen) -> Response {
    if headers.contains_key(IF_MODIFIED_SINCE) || headers.contains_key(IF_NONE_MATCH) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let mut response = reflect::get(State(echo), seen).await;
    response
        .headers_mut()
        .insert(ETAG, HeaderValue::from_static("\"tanbark-echo\""));
    response
}

pub async fn cache_for(
    State(echo): State<Arc<Echo>>,
    Path(seconds): Path<String>,
    seen: Seen,
) -> Response {
    let Ok(seconds) = seconds.parse::<i64>() else {
        return answer::bad_request("invalid seconds");
    };
    let mut response = reflect::get(State(echo), seen).await;
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={seconds}")) {
        response.headers_mut().insert(CACHE_CONTROL, value);
    }
    response
}

/// The tag in a list of tags, or `*`.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let list = list.to_str().unwrap_or_default();
    list.split(',')
        .map(|one| one.trim().trim_start_matches("W/"))
        .any(|one| one == "*" || one == tag)
}

/// `chance` is even over 0..1.
fn choose(codes: &str, chance: f64) -> Result<StatusCode, String> {
    let mut choices = Vec::new();
    for choice in codes.split(',') {
        let (code, weight) = choice.split_once(':').unwrap_or((choice, "1"));
        let weight: f64 = weight
            .parse()
            .map_err(|_| format!("invalid weight value: {weight:?}"))?;
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(format!("invalid weight value: {weight}"));
        }
        choices.push((parse(code)?, weight));
    }
    let mut left = chance * choices.iter().map(|(_, weight)| weight).sum::<f64>();
    for (code, weight) in &choices {
        if left < *weight {
            return Ok(*code);
        }
        left -= weight;
    }
    choices
        .last()
        .map(|(code, _)| *code)
        .ok_or_else(|| "no status code".to_owned())
}

/// 200 to 599. Lower ones are interim answers, which no server can end with.
pub fn parse(code: &str) -> Result<StatusCode, String> {
    let number: u16 = code
        .parse()
        .map_err(|_| format!("invalid status code: {code:?}"))?;
    match StatusCode::from_u16(number) {
        Ok(status) if (200..600).contains(&number) => Ok(status),
        _ => Err(format!(
            "invalid status code: {number} not in range [200, 599]"
        )),
    }
}

fn respond(status: StatusCode) -> Response {
    let mut response = (status, [(CONTENT_TYPE, answer::TEXT)]).into_response();
    let (name, value) = match status.as_u16() {
        301 | 302 | 303 | 305 | 307 | 308 => (LOCATION, "/redirect/1"),
        401 => (WWW_AUTHENTICATE, "Basic realm=\"Fake Realm\""),
        418 => {
            *response.body_mut() = "I'm a teapot!".into();
            return response;
        }
        _ => return response,
    };
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_divide_the_range() {
        let code = |chance| choose("200:3,503:1", chance).unwrap().as_u16();
        assert_eq!(
            [code(0.0), code(0.74), code(0.76), code(0.999)],
            [200, 200, 503, 503]
        );
        assert_eq!(choose("404", 0.5).unwrap(), StatusCode::NOT_FOUND);
        for wrong in ["", "99", "101", "600", "abc", "200:x", "200:-1"] {
            assert!(choose(wrong, 0.0).is_err(), "{wrong}");
        }
    }
}
