//! The program as it is started in a pod: real processes on ports the system chose, spoken to over HTTP. Where a test needs to see or hold
//! what a service is asked, a server of the test stands in for it.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};

struct Service {
    process: Child,
    address: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(arguments: &[&str], environment: &[(&str, String)]) -> Service {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tanbark-bookinfo"))
        .args(arguments)
        .args(["--listen", "127.0.0.1:0"])
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    // Read on, so that the service never blocks on a full pipe.
    std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
    let address = line
        .trim()
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("no address in {line:?}"));
    Service { process, address }
}

fn at(name: &str, address: SocketAddr) -> [(&'static str, String); 2] {
    let name = match name {
        "details" => ("DETAILS_HOSTNAME", "DETAILS_SERVICE_PORT"),
        "reviews" => ("REVIEWS_HOSTNAME", "REVIEWS_SERVICE_PORT"),
        "ratings" => ("RATINGS_HOSTNAME", "RATINGS_SERVICE_PORT"),
        other => panic!("no service {other}"),
    };
    [
        (name.0, address.ip().to_string()),
        (name.1, address.port().to_string()),
    ]
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

async fn send(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(20), client.request(request))
        .await
        .unwrap()
        .unwrap();
    let (parts, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    }
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    send("GET", address, path, &[], "").await
}

/// A service of the test's own, answering by `answer`.
async fn stand_in<F, Fut, R>(answer: F) -> SocketAddr
where
    F: Fn(Request) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = R> + Send,
    R: IntoResponse + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    address
}

fn all_services(reviews: &[(&str, String)]) -> (Service, Vec<Service>) {
    let ratings = start(&["ratings"], &[]);
    let details = start(&["details"], &[]);
    let mut environment = at("ratings", ratings.address).to_vec();
    environment.extend_from_slice(reviews);
    let reviews = start(&["reviews"], &environment);
    let mut environment = at("ratings", ratings.address).to_vec();
    environment.extend(at("details", details.address));
    environment.extend(at("reviews", reviews.address));
    (
        start(&["productpage"], &environment),
        vec![ratings, details, reviews],
    )
}

#[tokio::test]
async fn page_shows_each_version_of_the_reviews() {
    let on = || ("ENABLE_RATINGS", "true".to_owned());
    for (environment, stars) in [
        (vec![("ENABLE_RATINGS", "false".to_owned())], None),
        (vec![on()], Some("black")),
        (vec![on(), ("STAR_COLOR", "red".to_owned())], Some("red")),
    ] {
        let (page, _others) = all_services(&environment);
        let answer = get(page.address, "/productpage?u=normal").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.body.contains("<title>Simple Bookstore App</title>"));
        assert!(
            answer.body.contains("PublisherA") && answer.body.contains("slapstick humour"),
            "{}",
            answer.body
        );
        for color in ["black", "red"] {
            assert_eq!(
                answer.body.contains(&format!("class=\"stars {color}\"")),
                stars == Some(color),
                "{environment:?}"
            );
        }
    }
}

#[tokio::test]
async fn interface_has_istios_shapes() {
    let (page, _others) = all_services(&[
        ("ENABLE_RATINGS", "true".into()),
        ("HOSTNAME", "reviews-v2-abc".into()),
    ]);
    let products = get(page.address, "/api/v1/products").await;
    assert_eq!(products.json()[0]["title"], "The Comedy of Errors");
    assert_eq!(products.headers["content-type"], "application/json");
    assert_eq!(
        get(page.address, "/api/v1/products/0").await.json()["ISBN-13"],
        "123-1234567890"
    );
    assert_eq!(
        get(page.address, "/api/v1/products/0/ratings").await.json(),
        json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})
    );
    let reviews = get(page.address, "/api/v1/products/0/reviews").await.json();
    assert_eq!(reviews["podname"], "reviews-v2-abc");
    assert_eq!(reviews["clustername"], "null");
    assert_eq!(reviews["id"], "0");
    assert_eq!(
        reviews["reviews"][1]["rating"],
        json!({"stars": 4, "color": "black"})
    );
    let bad = get(page.address, "/api/v1/products/abc").await;
    assert_eq!(bad.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        bad.json()["error"],
        "Sorry, product details are currently unavailable for this book."
    );
    assert_eq!(
        get(page.address, "/health").await.body,
        "Product page is healthy"
    );
    let metrics = get(page.address, "/metrics").await.body;
    assert!(
        metrics
            .contains("request_result_total{destination_app=\"details\",response_code=\"400\"} 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn posted_ratings_are_kept() {
    let ratings = start(&["ratings"], &[]);
    let posted = send(
        "POST",
        ratings.address,
        "/ratings/7",
        &[],
        r#"{"Reviewer1":1}"#,
    )
    .await;
    assert_eq!(posted.json(), json!({"id": 7, "ratings": {"Reviewer1": 1}}));
    assert_eq!(
        get(ratings.address, "/ratings/7").await.json()["ratings"]["Reviewer1"],
        1
    );
    assert_eq!(
        get(ratings.address, "/ratings/8").await.json()["ratings"]["Reviewer1"],
        5
    );
    assert_eq!(
        send("POST", ratings.address, "/ratings/7", &[], "nonsense")
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        get(ratings.address, "/ratings/x").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn trace_headers_and_user_travel_to_the_last_service() {
    let seen = Arc::new(Mutex::new(Vec::<HeaderMap>::new()));
    let keep = seen.clone();
    let ratings = stand_in(move |request| {
        keep.lock().push(request.headers().clone());
        async { axum::Json(json!({"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}})) }
    })
    .await;
    let mut environment = at("ratings", ratings).to_vec();
    environment.push(("ENABLE_RATINGS", "true".into()));
    let reviews = start(&["reviews"], &environment);
    let page = start(&["productpage"], &at("reviews", reviews.address));
    let sent = [
        ("x-request-id", "r-1"),
        ("traceparent", "00-1-2-01"),
        ("tracestate", "a=b"),
        ("x-b3-traceid", "1"),
        ("x-b3-sampled", "1"),
        ("authorization", "Bearer x"),
        ("user-agent", "tester"),
        ("cookie", "session=jason"),
        ("end-user", "eve"),
        ("x-private", "no"),
    ];
    assert_eq!(
        send("GET", page.address, "/api/v1/products/0/reviews", &sent, "")
            .await
            .status,
        StatusCode::OK
    );
    let seen = seen.lock();
    let headers = seen.first().expect("ratings were asked");
    for (name, value) in &sent[..8] {
        assert_eq!(headers[*name], *value, "{name}");
    }
    assert_eq!(headers["end-user"], "jason");
    assert!(!headers.contains_key("x-private"));
}

#[tokio::test]
async fn reviews_are_tried_twice_and_details_once() {
    let asked = Arc::new(Mutex::new(Vec::<String>::new()));
    let keep = asked.clone();
    let failing = stand_in(move |request: Request| {
        keep.lock().push(request.uri().path().to_owned());
        async { StatusCode::SERVICE_UNAVAILABLE }
    })
    .await;
    let mut environment = at("reviews", failing).to_vec();
    environment.extend(at("details", failing));
    let page = start(&["productpage"], &environment);
    let answer = get(page.address, "/productpage").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer
            .body
            .contains("Sorry, product reviews are currently unavailable for this book.")
    );
    assert!(
        answer
            .body
            .contains("Sorry, product details are currently unavailable for this book.")
    );
    assert_eq!(*asked.lock(), ["/details/0", "/reviews/0", "/reviews/0"]);
    assert_eq!(
        get(page.address, "/api/v1/products/0/reviews").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn slow_and_absent_services_become_500() {
    let slow = stand_in(|_| std::future::pending::<StatusCode>()).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut environment = at("reviews", slow).to_vec();
    environment.extend(at("details", nobody));
    let page = start(&["productpage", "--timeout-ms", "50"], &environment);
    for path in ["/api/v1/products/0", "/api/v1/products/0/reviews"] {
        let answer = get(page.address, path).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(
            answer.json()["error"]
                .as_str()
                .unwrap()
                .starts_with("Sorry, product")
        );
    }
}

#[tokio::test]
async fn signing_in_and_out() {
    let page = start(&["productpage"], &[]);
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("referer", "http://shop.example/productpage?u=test"),
    ];
    let answer = send(
        "POST",
        page.address,
        "/login",
        &form,
        "username=jason&passwd=x",
    )
    .await;
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(answer.headers["location"], "/productpage?u=test");
    assert!(
        answer.headers["set-cookie"]
            .to_str()
            .unwrap()
            .starts_with("session=jason;")
    );
    assert_eq!(
        send("POST", page.address, "/login", &form, "username=a%0d%0ab")
            .await
            .status,
        StatusCode::BAD_REQUEST
    );
    let answer = get(page.address, "/logout").await;
    assert!(
        answer.headers["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
}

#[tokio::test]
async fn request_under_way_survives_the_signal_to_stop() {
    let (arrived, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let (tell, hold) = (arrived.clone(), gate.clone());
    let details = stand_in(move |_| {
        let (tell, hold) = (tell.clone(), hold.clone());
        async move {
            tell.notify_one();
            let _permit = hold.acquire().await;
            axum::Json(json!({"id": 0}))
        }
    })
    .await;
    let mut page = start(&["productpage"], &at("details", details));
    let address = page.address;
    let request = tokio::spawn(async move { get(address, "/api/v1/products/0").await.status });
    arrived.notified().await;
    let killed = Command::new("sh")
        .args(["-c", &format!("kill -TERM {}", page.process.id())])
        .status()
        .unwrap();
    assert!(killed.success());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "still accepting after SIGTERM"
        );
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    assert_eq!(request.await.unwrap(), StatusCode::OK);
    let status = tokio::task::spawn_blocking(move || page.process.wait().unwrap())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn what_needs_a_database_or_the_internet_is_refused_by_name() {
    for (service, variable, value, word) in [
        ("ratings", "SERVICE_VERSION", "v2", "MongoDB"),
        (
            "details",
            "ENABLE_EXTERNAL_BOOK_SERVICE",
            "true",
            "internet",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tanbark-bookinfo"))
            .arg(service)
            .env_clear()
            .env(variable, value)
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(word));
    }
}
