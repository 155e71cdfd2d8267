//! Redirects and cookies.

use std::collections::BTreeMap;

use axum::extract::{Extension, Path, RawQuery};
use axum::response::{IntoResponse, Response};
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::{answer, reflect, status};
use crate::connection::Connection;
use crate::query;

/// `/redirect/3` → `/relative-redirect/2` → … → `/get`; absolute with `?absolute=true`.
pub async fn redirect(
    count: Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    uri: Uri,
    connection: Extension<Connection>,
) -> Response {
    let pairs = query::pairs(query.as_deref().unwrap_or_default());
    if query::first(&pairs, "absolute").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return absolute(count, headers, uri, connection).await;
    }
    relative(count).await
}

pub async fn relative(Path(count): Path<String>) -> Response {
    match next(&count, "relative") {
        Ok(path) => found(&path),
        Err(error) => answer::bad_request(&error),
    }
}

pub async fn absolute(
    Path(count): Path<String>,
    headers: HeaderMap,
    uri: Uri,
    connection: Extension<Connection>,
) -> Response {
    match next(&count, "absolute") {
        Ok(path) => found(&(reflect::base(&headers, &uri, connection) + &path)),
        Err(error) => answer::bad_request(&error),
    }
}

/// To `url` with `status_code` (300 to 399, 302 if not given).
pub async fn to(RawQuery(query): RawQuery) -> Response {
    let pairs = query::pairs(query.as_deref().unwrap_or_default());
    let Some(url) = query::first(&pairs, "url").filter(|url| !url.is_empty()) else {
        return answer::bad_request("missing required query parameter: url");
    };
    let code = match status::parse(query::first(&pairs, "status_code").unwrap_or("302")) {
        Ok(code) if code.is_redirection() => code,
        Ok(code) => {
            return answer::bad_request(&format!(
                "invalid status code: {code} not in range [300, 399]"
            ));
        }
        Err(error) => return answer::bad_request(&error),
    };
    found_with(code, url)
}

pub async fn cookies(headers: HeaderMap) -> Response {
    let mut cookies = BTreeMap::new();
    for pair in headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(';'))
    {
        if let Some((name, value)) = pair.trim().split_once('=') {
            cookies.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    answer::json(StatusCode::OK, &cookies)
}

pub async fn set_cookies(RawQuery(query): RawQuery) -> Response {
    with_cookies(query.as_deref(), |name, value| {
        format!("{name}={value}; HttpOnly")
    })
}

pub async fn delete_cookies(RawQuery(query): RawQuery) -> Response {
    with_cookies(query.as_deref(), |name, _| {
        format!("{name}=; Max-Age=0; HttpOnly")
    })
}

fn with_cookies(query: Option<&str>, cookie: impl Fn(&str, &str) -> String) -> Response {
    let mut response = found("/cookies");
    for (name, value) in query::pairs(query.unwrap_or_default()) {
        let sound = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b";,\"\\".contains(&byte))
        };
        let Some(value) = (sound(&name) && sound(&value))
            .then(|| HeaderValue::from_str(&cookie(&name, &value)).ok())
            .flatten()
        else {
            return answer::bad_request(&format!("invalid cookie: {name}"));
        };
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

/// Where redirect number `count` leads.
fn next(count: &str, kind: &str) -> Result<String, String> {
    match count.parse::<u32>() {
        Ok(0) => Err("redirect count must be > 0".to_owned()),
        Ok(1) => Ok("/get".to_owned()),
        Ok(count) => Ok(format!("/{kind}-redirect/{}", count - 1)),
        Err(error) => Err(format!("invalid redirect count: {error}")),
    }
}

fn found(location: &str) -> Response {
    found_with(StatusCode::FOUND, location)
}

fn found_with(status: StatusCode, location: &str) -> Response {
    match HeaderValue::from_str(location) {
        Ok(location) => (status, [(LOCATION, location)]).into_response(),
        Err(error) => answer::bad_request(&format!("invalid url: {error}")),
    }
}
