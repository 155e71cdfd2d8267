//! go-httpbin's endpoints and shapes.

use std::io::Read;

use http::StatusCode;
use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn requests_are_reflected_in_go_httpbins_shape() {
    let server = Server::start(&["httpbin", "--http", "0"]);
    let headers = [
        ("x-request-id", "r1"),
        ("x-forwarded-for", "1.2.3.4, 5.6.7.8"),
        ("x-forwarded-proto", "https"),
    ];
    let answer = server
        .send("GET", "/get?a=1&a=2&b=x%20y", &headers, "")
        .await;
    assert_eq!(
        answer.headers["content-type"],
        "application/json; charset=utf-8"
    );
    let host = server.at("http").to_string();
    assert_eq!(
        answer.json(),
        json!({
            "args": {"a": ["1", "2"], "b": ["x y"]},
            "headers": {"Host": [host], "X-Forwarded-For": ["1.2.3.4, 5.6.7.8"], "X-Forwarded-Proto": ["https"], "X-Request-Id": ["r1"]},
            "method": "GET",
            "origin": "1.2.3.4",
            "url": format!("https://{host}/get?a=1&a=2&b=x%20y"),
        })
    );
    let posted = server
        .send(
            "POST",
            "/post",
            &[("content-type", "application/json")],
            "{\"k\":1}",
        )
        .await
        .json();
    assert_eq!(
        (
            posted["json"].clone(),
            posted["data"].clone(),
            posted["files"].clone()
        ),
        (json!({"k": 1}), json!("{\"k\":1}"), json!({}))
    );
    assert_eq!(
        server.send("PUT", "/anything/x/y", &[], "").await.json()["method"],
        "PUT"
    );
    assert_eq!(
        server.get("/ip").await.json(),
        json!({"origin": "127.0.0.1"})
    );
    assert_eq!(
        server.get("/hostname").await.json(),
        json!({"hostname": "pod-1"})
    );
    let agent = server
        .send("GET", "/user-agent", &[("user-agent", "me")], "")
        .await;
    assert_eq!(agent.json(), json!({"user-agent": "me"}));
    assert!(server.get("/headers").await.json()["headers"]["Host"].is_array());
    assert_eq!(
        server.send("POST", "/get", &[], "").await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let missing = server.get("/nothing").await;
    assert_eq!(
        missing.json(),
        json!({"status_code": 404, "error": "Not Found"})
    );
}

#[tokio::test]
async fn python_httpbins_shape_has_single_values() {
    let server = Server::start(&["httpbin", "--http", "0", "--single-values"]);
    let answer = server
        .send("GET", "/get?a=1&a=2", &[("x-b", "y")], "")
        .await
        .json();
    assert_eq!(
        (
            answer["args"]["a"].clone(),
            answer["headers"]["X-B"].clone()
        ),
        (json!("1,2"), json!("y"))
    );
}

#[tokio::test]
async fn statuses_sizes_and_streams() {
    let server = Server::start(&["serve", "--http", "0"]);
    assert_eq!(server.get("/status/418").await.text(), "I'm a teapot!");
    assert_eq!(
        server.get("/status/503").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        server.get("/status/99").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        server.get("/status/101").await.status,
        StatusCode::BAD_REQUEST
    );
    let bytes = server.get("/bytes/1000?seed=5").await;
    assert_eq!(
        (bytes.body.len(), bytes.headers["content-length"].clone()),
        (1000, "1000".parse().unwrap())
    );
    let streamed = server.get("/stream-bytes/1000?seed=5&chunk_size=300").await;
    assert_eq!(streamed.body, bytes.body);
    assert!(!streamed.headers.contains_key("content-length"));
    assert_eq!(
        server.get("/bytes/1048577").await.status,
        StatusCode::BAD_REQUEST
    );
    let lines: Vec<Value> = server
        .get("/stream/3")
        .await
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        lines
            .iter()
            .map(|line| line["id"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let drip = server
        .get("/drip?numbytes=3&duration=0.02&delay=0&code=206")
        .await;
    assert_eq!((drip.status.as_u16(), drip.text()), (206, "***".to_owned()));
    let events = server.get("/sse?count=2&duration=0.01").await;
    assert_eq!(
        events.text().matches("event: ping\ndata: {\"id\":").count(),
        2
    );
    let delayed = server.get("/delay/20ms").await;
    assert!(
        delayed.headers["server-timing"]
            .to_str()
            .unwrap()
            .starts_with("initial_delay;dur=20.00")
    );
    assert_eq!(
        server.get("/delay/11").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn redirects_cookies_and_authentication() {
    let server = Server::start(&["serve", "--http", "0"]);
    let location = async |path: &str| {
        let answer = server.get(path).await;
        assert_eq!(answer.status, StatusCode::FOUND, "{path}");
        answer.headers["location"].to_str().unwrap().to_owned()
    };
    assert_eq!(location("/redirect/3").await, "/relative-redirect/2");
    assert_eq!(location("/relative-redirect/1").await, "/get");
    assert_eq!(
        location("/absolute-redirect/2").await,
        format!("http://{}/absolute-redirect/1", server.at("http"))
    );
    assert_eq!(
        location("/redirect-to?url=http%3A%2F%2Fx.example%2F").await,
        "http://x.example/"
    );
    assert_eq!(
        server.get("/redirect/0").await.status,
        StatusCode::BAD_REQUEST
    );
    let cookies = server.get("/cookies/set?a=1&b=2").await;
    assert_eq!(
        cookies
            .headers
            .get_all("set-cookie")
            .iter()
            .collect::<Vec<_>>(),
        ["a=1; HttpOnly", "b=2; HttpOnly"]
    );
    assert_eq!(
        server
            .send("GET", "/cookies", &[("cookie", "a=1; b=2")], "")
            .await
            .json(),
        json!({"a": "1", "b": "2"})
    );
    let path = "/basic-auth/jason/secret";
    assert_eq!(server.get(path).await.status, StatusCode::UNAUTHORIZED);
    let right = server
        .send(
            "GET",
            path,
            &[("authorization", "Basic amFzb246c2VjcmV0")],
            "",
        )
        .await;
    assert_eq!(
        right.json(),
        json!({"authenticated": true, "authorized": true, "user": "jason"})
    );
}

#[tokio::test]
async fn encodings_tags_headers_and_documents() {
    let server = Server::start(&["serve", "--http", "0"]);
    let gzip = server.get("/gzip").await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzip.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap()["gzipped"],
        true
    );
    assert_eq!(server.get("/etag/abc").await.headers["etag"], "\"abc\"");
    assert_eq!(
        server
            .send("GET", "/etag/abc", &[("if-none-match", "\"abc\"")], "")
            .await
            .status,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(
        server
            .send("GET", "/etag/abc", &[("if-match", "\"x\"")], "")
            .await
            .status,
        StatusCode::PRECONDITION_FAILED
    );
    assert_eq!(
        server.get("/response-headers?x-a=1").await.headers["x-a"],
        "1"
    );
    let run = server
        .get("/response-headers?content-type=text/html&x=%3Cscript%3E")
        .await;
    assert!(!run.text().contains("<script>"), "{}", run.text());
    assert_eq!(
        server.get("/json").await.json()["slideshow"]["title"],
        "Sample Slide Show"
    );
    assert!(server.get("/html").await.text().contains("<h1>"));
    assert_eq!(
        server.get("/uuid").await.json()["uuid"]
            .as_str()
            .unwrap()
            .len(),
        36
    );
}

#[tokio::test]
async fn cors_headers_are_go_httpbins_only_there() {
    let httpbin = Server::start(&["httpbin", "--http", "0"]);
    let preflight = httpbin
        .send("OPTIONS", "/get", &[("origin", "http://a.example")], "")
        .await;
    assert_eq!(
        (
            preflight.status,
            &preflight.headers["access-control-allow-origin"]
        ),
        (StatusCode::OK, &"http://a.example".parse().unwrap())
    );
    let plain = Server::start(&["serve", "--http", "0"]);
    assert!(
        !plain
            .get("/get")
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn large_request_bodies_are_refused() {
    let server = Server::start(&["serve", "--http", "0", "--max-body-size", "10"]);
    assert_eq!(
        server
            .send("POST", "/post", &[], "12345678901")
            .await
            .status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
}
