//! `details`: facts about the book, the same for every id.
//!
//! `GET /details/ID` → 200, or 400 with `{"error": …}` where ID is no number; `GET /health`.

use axum::Router;
use axum::extract::OriginalUri;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::any;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

/// The answer, in the order of fields of Istio's service.
#[derive(Serialize)]
struct Book {
    id: i64,
    author: &'static str,
    year: u16,
    r#type: &'static str,
    pages: u16,
    publisher: &'static str,
    language: &'static str,
    #[serde(rename = "ISBN-10")]
    isbn_10: &'static str,
    #[serde(rename = "ISBN-13")]
    isbn_13: &'static str,
}

pub fn router() -> Router {
    Router::new()
        .route(
            "/health",
            any(async || Json(json!({"status": "Details is healthy"}))),
        )
        .route("/details", any(details))
        .route("/details/{*id}", any(details))
}

async fn details(OriginalUri(uri): OriginalUri) -> Response {
    let last = uri
        .path()
        .trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or_default();
    match last.parse() {
        Ok(id) => Json(book(id)).into_response(),
        Err(_) => (
            StatusCode::BAD_REQUEST,
            Json(json!({"error": "please provide numeric product id"})),
        )
            .into_response(),
    }
}

fn book(id: i64) -> Book {
    Book {
        id,
        author: "William Shakespeare",
        year: 1595,
        r#type: "paperback",
        pages: 200,
        publisher: "PublisherA",
        language: "English",
        isbn_10: "1234567890",
        isbn_13: "123-1234567890",
    }
}
