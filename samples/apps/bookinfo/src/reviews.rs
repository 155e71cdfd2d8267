//! `reviews`: two reviews of the book; versions 2 and 3 add the stars that `ratings` gives.
//!
//! `GET /reviews/ID` → `{"id": "0", "podname": …, "clustername": …, "reviews": [{"reviewer", "text", "rating"?}, …]}`; `GET /health`.
//! A rating is `{"stars": 5, "color": "black"}`, or `{"error": …}` where `ratings` gave no answer. Always 200: a missing rating is no error here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get};
use http::{HeaderMap, HeaderName, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::upstream::{Upstream, forwarded};

const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!",
    ),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
];

pub struct Settings {
    /// Where the stars come from; `None` is version 1, which shows none.
    pub ratings: Option<Upstream>,
    pub star_color: String,
    pub pod_name: Option<String>,
    pub cluster_name: Option<String>,
}

/// The answer, in the order of fields of Istio's service. Unset names are the text `null` there, and so here.
#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    podname: &'a str,
    clustername: &'a str,
    reviews: Vec<Review>,
}

#[derive(Serialize)]
struct Review {
    reviewer: &'static str,
    text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<Value>,
}

pub fn router(settings: Settings) -> Router {
    Router::new()
        .route(
            "/health",
            any(async || Json(json!({"status": "Reviews is healthy"}))),
        )
        .route("/reviews/{id}", get(reviews))
        .with_state(Arc::new(settings))
}

async fn reviews(
    State(settings): State<Arc<Settings>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    // The original's path parameter is an int: other paths do not exist.
    let Ok(id) = id.parse::<i32>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let stars = match &settings.ratings {
        None => None,
        Some(ratings) => Some(ask(ratings, id, &headers).await),
    };
    let reviews = REVIEWS
        .map(|(reviewer, text)| Review {
            reviewer,
            text,
            rating: stars
                .as_ref()
                .map(|stars| rating(stars, reviewer, &settings.star_color)),
        })
        .into();
    Json(Answer {
        id: id.to_string(),
        podname: settings.pod_name.as_deref().unwrap_or("null"),
        clustername: settings.cluster_name.as_deref().unwrap_or("null"),
        reviews,
    })
    .into_response()
}

/// The `ratings` object of a whole 200 answer, else null.
async fn ask(ratings: &Upstream, id: i32, incoming: &HeaderMap) -> Value {
    let mut headers = forwarded(incoming);
    let end_user = HeaderName::from_static("end-user");
    if let Some(user) = incoming.get(&end_user) {
        headers.insert(end_user, user.clone());
    }
    let Some(answer) = ratings.get(&format!("/ratings/{id}"), &headers).await else {
        return Value::Null;
    };
    if answer.status != StatusCode::OK {
        println!("ratings answered {}", answer.status);
        return Value::Null;
    }
    serde_json::from_slice::<Value>(&answer.body)
        .ok()
        .and_then(|mut body| body.get_mut("ratings").map(Value::take))
        .unwrap_or_default()
}

fn rating(stars: &Value, reviewer: &str, color: &str) -> Value {
    match stars.get(reviewer).and_then(Value::as_i64) {
        Some(stars) => json!({"stars": stars, "color": color}),
        None => json!({"error": "Ratings service is currently unavailable"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_stars_become_an_error_in_place() {
        assert_eq!(
            rating(&json!({"Reviewer1": 3}), "Reviewer1", "red"),
            json!({"stars": 3, "color": "red"})
        );
        assert_eq!(
            rating(&Value::Null, "Reviewer1", "red"),
            json!({"error": "Ratings service is currently unavailable"})
        );
        assert_eq!(
            rating(&json!({"Reviewer1": "5"}), "Reviewer1", "red"),
            json!({"error": "Ratings service is currently unavailable"})
        );
    }
}
