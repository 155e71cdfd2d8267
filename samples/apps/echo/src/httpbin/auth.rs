//! Basic and bearer authentication as a client meets it. Nothing is protected by it: the wanted name and password stand in the path.

use axum::extract::Path;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::answer;

pub async fn basic(Path(wanted): Path<(String, String)>, headers: HeaderMap) -> Response {
    let given = credentials(&headers).unwrap_or_default();
    let authorized = given == wanted;
    let status = if authorized {
        StatusCode::OK
    } else {
        StatusCode::UNAUTHORIZED
    };
    let mut response = answer::json(
        status,
        &json!({"authenticated": authorized, "user": given.0, "authorized": authorized}),
    );
    if !authorized {
        response.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"Fake Realm\""),
        );
    }
    response
}

/// 404 in place of 401.
pub async fn hidden(Path(wanted): Path<(String, String)>, headers: HeaderMap) -> Response {
    let given = credentials(&headers).unwrap_or_default();
    if given != wanted {
        return answer::error(StatusCode::NOT_FOUND, "");
    }
    answer::json(
        StatusCode::OK,
        &json!({"authenticated": true, "user": given.0, "authorized": true}),
    )
}

/// Any bearer token will do.
pub async fn bearer(headers: HeaderMap) -> Response {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match token {
        Some(token) => answer::json(
            StatusCode::OK,
            &json!({"authenticated": true, "token": token}),
        ),
        None => {
            let mut response = answer::error(StatusCode::UNAUTHORIZED, "");
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// User and password of basic authentication.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers
        .get(AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
