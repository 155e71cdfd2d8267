//! `ratings`: stars per reviewer, kept in memory, with the modes of failure that Istio's faulty versions have.
//!
//! `GET /ratings/ID` → `{"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}`; `POST /ratings/ID` with a JSON object replaces the stars;
//! `GET /health`. ID is the leading number of the last path segment. At most [`MAX_KEPT`] products are kept; a further one is refused with 507.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Products whose stars can be replaced.
const MAX_KEPT: usize = 1_000;
/// How late `v-delayed` is.
const DELAY: Duration = Duration::from_secs(7);

/// What the service does to its callers (`SERVICE_VERSION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Always answers.
    Sound,
    /// Half of the answers are 503.
    Faulty,
    /// Half of the answers come seven seconds late.
    Delayed,
    /// A minute of answers, a minute of 503, and so on.
    Unavailable,
    /// The same in quarters of an hour, and `/health` fails along.
    Unhealthy,
}

/// What one request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Answer,
    AnswerLate,
    Unavailable,
}

struct Ratings {
    mode: Mode,
    start: Instant,
    kept: Mutex<HashMap<u64, Value>>,
}

impl Mode {
    /// Fails for `v2`, which reads a database that is not part of this sample. Other names are sound, as in Istio's service.
    pub fn parse(version: &str) -> anyhow::Result<Self> {
        match version {
            "v2" => bail!("version v2 is not supported: it needs a MongoDB or MySQL server"),
            "v-faulty" => Ok(Mode::Faulty),
            "v-delayed" => Ok(Mode::Delayed),
            "v-unavailable" => Ok(Mode::Unavailable),
            "v-unhealthy" => Ok(Mode::Unhealthy),
            _ => Ok(Mode::Sound),
        }
    }

    /// `up` is the time since start; `chance` is even over 0..1.
    fn outcome(self, up: Duration, chance: f64) -> Outcome {
        match self {
            Mode::Faulty if chance < 0.5 => Outcome::Unavailable,
            Mode::Delayed if chance < 0.5 => Outcome::AnswerLate,
            Mode::Unavailable if odd_period(up, 60) => Outcome::Unavailable,
            Mode::Unhealthy if odd_period(up, 900) => Outcome::Unavailable,
            _ => Outcome::Answer,
        }
    }
}

pub fn router(mode: Mode) -> Router {
    let ratings = Arc::new(Ratings {
        mode,
        start: Instant::now(),
        kept: Mutex::default(),
    });
    Router::new()
        .route("/health", any(health))
        .route("/ratings", get(read).post(replace))
        .route("/ratings/{*id}", get(read).post(replace))
        .with_state(ratings)
}

async fn health(State(ratings): State<Arc<Ratings>>) -> Response {
    if ratings.mode == Mode::Unhealthy && odd_period(ratings.start.elapsed(), 900) {
        return (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({"status": "Ratings is not healthy"})),
        )
            .into_response();
    }
    Json(json!({"status": "Ratings is healthy"})).into_response()
}

async fn read(State(ratings): State<Arc<Ratings>>, OriginalUri(uri): OriginalUri) -> Response {
    let Some(id) = product(uri.path()) else {
        return bad_request("please provide numeric product ID");
    };
    match ratings
        .mode
        .outcome(ratings.start.elapsed(), fastrand::f64())
    {
        Outcome::Unavailable => {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                Json(json!({"error": "Service unavailable"})),
            )
                .into_response();
        }
        Outcome::AnswerLate => tokio::time::sleep(DELAY).await,
        Outcome::Answer => {}
    }
    Json(ratings.of(id)).into_response()
}

async fn replace(
    State(ratings): State<Arc<Ratings>>,
    OriginalUri(uri): OriginalUri,
    body: Bytes,
) -> Response {
    let Some(id) = product(uri.path()) else {
        return bad_request("please provide numeric product ID");
    };
    let Ok(stars) = serde_json::from_slice::<Value>(&body) else {
        return bad_request("please provide valid ratings JSON");
    };
    let mut kept = ratings.kept.lock();
    if kept.len() >= MAX_KEPT && !kept.contains_key(&id) {
        let error = format!("ratings of at most {MAX_KEPT} products are kept");
        return (
            StatusCode::INSUFFICIENT_STORAGE,
            Json(json!({"error": error})),
        )
            .into_response();
    }
    kept.insert(id, stars);
    drop(kept);
    Json(ratings.of(id)).into_response()
}

impl Ratings {
    fn of(&self, id: u64) -> Value {
        let stars = self.kept.lock().get(&id).cloned();
        json!({"id": id, "ratings": stars.unwrap_or_else(|| json!({"Reviewer1": 5, "Reviewer2": 4}))})
    }
}

/// The leading number of the last segment, as JavaScript's parseInt would read it.
fn product(path: &str) -> Option<u64> {
    let last = path.rsplit('/').next()?;
    let digits = last.bytes().take_while(u8::is_ascii_digit).count();
    last.get(..digits)?.parse().ok()
}

/// Whether `up` lies in the second, fourth, … stretch of `seconds`.
fn odd_period(up: Duration, seconds: u64) -> bool {
    (up.as_secs() / seconds) % 2 == 1
}

fn bad_request(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": error}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_is_the_leading_number() {
        assert_eq!(product("/ratings/0"), Some(0));
        assert_eq!(product("/ratings/12abc"), Some(12));
        assert_eq!(product("/ratings/abc"), None);
        assert_eq!(product("/ratings/"), None);
    }

    #[test]
    fn modes_fail_when_they_should() {
        let second = Duration::from_secs(1);
        assert_eq!(Mode::Sound.outcome(second, 0.0), Outcome::Answer);
        assert_eq!(Mode::Faulty.outcome(second, 0.49), Outcome::Unavailable);
        assert_eq!(Mode::Faulty.outcome(second, 0.5), Outcome::Answer);
        assert_eq!(Mode::Delayed.outcome(second, 0.1), Outcome::AnswerLate);
        assert_eq!(Mode::Unavailable.outcome(59 * second, 0.0), Outcome::Answer);
        assert_eq!(
            Mode::Unavailable.outcome(60 * second, 0.9),
            Outcome::Unavailable
        );
        assert_eq!(
            Mode::Unavailable.outcome(120 * second, 0.9),
            Outcome::Answer
        );
        assert_eq!(Mode::Unhealthy.outcome(899 * second, 0.0), Outcome::Answer);
        assert_eq!(
            Mode::Unhealthy.outcome(900 * second, 0.0),
            Outcome::Unavailable
        );
    }

    #[test]
    fn database_backed_version_is_refused_by_name() {
        assert!(
            Mode::parse("v2")
                .unwrap_err()
                .to_string()
                .contains("MongoDB")
        );
        assert_eq!(Mode::parse("v1").unwrap(), Mode::Sound);
    }
}
