//! `productpage`: the page people look at, and the API over the three other services.
//!
//! `/`, `/productpage`, `POST /login`, `/logout`, `/health`, `/metrics`, `/api/v1/products[/ID[/reviews|/ratings]]`.
//! As in Istio's sample: each request to another service gets three seconds; details are asked once, reviews twice (so a reviews service that
//! needs seven seconds costs the visitor six and an error box: that planted bug is what the fault-injection task finds). The session's user
//! goes on as header `end-user`; an `end-user` header of the visitor does not.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Form, OriginalUri, State};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, LOCATION, REFERER, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::page;
use crate::session;
use crate::upstream::{Upstream, forwarded};

/// How often reviews are asked before giving up.
const REVIEWS_TRIES: usize = 2;

pub struct Settings {
    pub details: Upstream,
    pub reviews: Upstream,
    pub ratings: Upstream,
    /// Needless requests to reviews per page view.
    pub flood_factor: u32,
}

/// One product of the catalogue; there is one.
#[derive(Serialize)]
pub struct Product {
    pub id: u32,
    pub title: &'static str,
    #[serde(rename = "descriptionHtml")]
    pub description_html: &'static str,
}

/// What another service said: its JSON with status 200, or an error to show with the status it came with.
pub struct Part {
    pub status: StatusCode,
    pub body: Value,
}

struct Productpage {
    settings: Settings,
    results: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

#[derive(Deserialize)]
struct Login {
    username: String,
}

pub const PRODUCT: Product = Product {
    id: 0,
    title: "The Comedy of Errors",
    description_html: "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Wikipedia Summary</a>: one of <b>William Shakespeare's</b> \
                       early plays, his shortest and among his most farcical, living on slapstick, mistaken identity, puns and word play.",
};

pub fn router(settings: Settings) -> Router {
    let app = Arc::new(Productpage {
        settings,
        results: Mutex::default(),
    });
    Router::new()
        .route("/", get(index))
        .route("/index.html", get(index))
        .route("/health", get(async || "Product page is healthy"))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/productpage", get(front))
        .route("/metrics", get(metrics))
        .route("/api/v1/products", get(async || Json([PRODUCT])))
        .route("/api/v1/products/{id}", get(api))
        .route("/api/v1/products/{id}/reviews", get(api))
        .route("/api/v1/products/{id}/ratings", get(api))
        .with_state(app)
}

async fn index(State(app): State<Arc<Productpage>>) -> Html<String> {
    let Settings {
        details,
        reviews,
        ratings,
        flood_factor: _,
    } = &app.settings;
    Html(page::index(details.base(), reviews.base(), ratings.base()))
}

async fn login(headers: HeaderMap, Form(login): Form<Login>) -> Response {
    if !session::acceptable(&login.username) {
        let error = "a user name is 1 to 64 letters, digits or any of . _ @ -";
        return (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response();
    }
    back(&headers, &session::sign_in(&login.username))
}

async fn logout(headers: HeaderMap) -> Response {
    back(&headers, session::SIGN_OUT)
}

async fn front(State(app): State<Arc<Productpage>>, headers: HeaderMap) -> Html<String> {
    let outgoing = outgoing(&headers);
    let details = app.details("0", &outgoing).await;
    for _ in 0..app.settings.flood_factor {
        app.reviews("0", &outgoing).await;
    }
    let reviews = app.reviews("0", &outgoing).await;
    Html(page::product(
        &PRODUCT,
        &details,
        &reviews,
        session::user(&headers),
    ))
}

/// `/api/v1/products/ID[/reviews|/ratings]`; ID goes on as it was written.
async fn api(
    State(app): State<Arc<Productpage>>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> Response {
    let outgoing = outgoing(&headers);
    let mut segments = uri
        .path()
        .trim_start_matches("/api/v1/products/")
        .split('/');
    let id = segments.next().unwrap_or_default();
    let Part { status, body } = match segments.next() {
        None => app.details(id, &outgoing).await,
        Some("reviews") => app.reviews(id, &outgoing).await,
        Some(_) => app.ratings(id, &outgoing).await,
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(app): State<Arc<Productpage>>) -> Response {
    let mut text = String::from(
        "# HELP request_result_total Results of requests\n# TYPE request_result_total counter\n",
    );
    for ((app, code), count) in app.results.lock().iter() {
        let _ = writeln!(
            text,
            "request_result_total{{destination_app=\"{app}\",response_code=\"{code}\"}} {count}"
        );
    }
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
        .into_response()
}

impl Productpage {
    async fn details(&self, id: &str, headers: &HeaderMap) -> Part {
        let part = ask(&self.settings.details, &format!("/details/{id}"), headers).await;
        self.part(
            "details",
            part,
            "Sorry, product details are currently unavailable for this book.",
        )
    }

    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Part {
        let mut part = Err(StatusCode::INTERNAL_SERVER_ERROR);
        for _ in 0..REVIEWS_TRIES {
            part = ask(&self.settings.reviews, &format!("/reviews/{id}"), headers).await;
            if part.is_ok() {
                break;
            }
        }
        self.part(
            "reviews",
            part,
            "Sorry, product reviews are currently unavailable for this book.",
        )
    }

    async fn ratings(&self, id: &str, headers: &HeaderMap) -> Part {
        let part = ask(&self.settings.ratings, &format!("/ratings/{id}"), headers).await;
        self.part(
            "ratings",
            part,
            "Sorry, product ratings are currently unavailable for this book.",
        )
    }

    /// Counts the result and puts the words for the visitor in place of a failure.
    fn part(
        &self,
        destination: &'static str,
        result: Result<Value, StatusCode>,
        sorry: &str,
    ) -> Part {
        let part = match result {
            Ok(body) => Part {
                status: StatusCode::OK,
                body,
            },
            Err(status) => Part {
                status,
                body: json!({"error": sorry}),
            },
        };
        *self
            .results
            .lock()
            .entry((destination, part.status.as_u16()))
            .or_default() += 1;
        part
    }
}

/// One try: JSON of a 200, else the status; 500 stands for no answer and for one that is no JSON.
async fn ask(upstream: &Upstream, path: &str, headers: &HeaderMap) -> Result<Value, StatusCode> {
    let answer = upstream
        .get(path, headers)
        .await
        .ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
    if answer.status != StatusCode::OK {
        return Err(answer.status);
    }
    serde_json::from_slice(&answer.body).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn outgoing(incoming: &HeaderMap) -> HeaderMap {
    let mut headers = forwarded(incoming);
    if let Some(user) = session::user(incoming)
        && let Ok(user) = HeaderValue::from_str(user)
    {
        headers.insert(HeaderName::from_static("end-user"), user);
    }
    headers
}

/// Back to the page the visitor came from. Only its path is taken, so that no foreign page can be named.
fn back(headers: &HeaderMap, cookie: &str) -> Response {
    let path = headers
        .get(REFERER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<Uri>().ok())
        .and_then(|uri| uri.path_and_query().map(|path| path.as_str().to_owned()))
        .filter(|path| path.starts_with('/') && !path.starts_with("//") && !path.starts_with("/\\"))
        .unwrap_or_else(|| "/productpage".to_owned());
    (
        StatusCode::FOUND,
        [(LOCATION, path), (SET_COOKIE, cookie.to_owned())],
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(referer: &'static str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REFERER, HeaderValue::from_static(referer));
        let response = back(&headers, "c");
        response
            .headers()
            .get(LOCATION)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[test]
    fn signing_in_leads_back_to_a_page_of_ours_only() {
        assert_eq!(
            location("http://127.0.0.1:8080/productpage?u=test"),
            "/productpage?u=test"
        );
        assert_eq!(
            location("http://evil.example//other.example/"),
            "/productpage"
        );
        assert_eq!(location("nonsense"), "/productpage");
    }

    #[test]
    fn end_user_is_the_session_and_not_the_visitors_header() {
        let mut incoming = HeaderMap::new();
        incoming.insert("end-user", HeaderValue::from_static("eve"));
        assert_eq!(outgoing(&incoming).get("end-user"), None);
        incoming.insert("cookie", HeaderValue::from_static("session=jason"));
        assert_eq!(outgoing(&incoming).get("end-user").unwrap(), "jason");
    }
}
