use super::*;

#[test]
fn flags_print_in_the_order_in_which_they_were_set() {
    let mut flags =
        ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED | ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
    flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
    assert_eq!(flags.to_string(), "URX,UF");
    assert_eq!(
        flags.long().to_string(),
        "UpstreamRetryLimitExceeded,UpstreamConnectionFailure"
    );
    let mut other =
        ResponseFlags::UPSTREAM_CONNECTION_FAILURE | ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
    assert_eq!(other.to_string(), "UF,URX");
    assert!(other.contains(flags) && flags.intersects(other) && flags.bits() == other.bits());
    other.insert(ResponseFlags::NONE);
    assert_eq!(other.to_string(), "UF,URX");
    assert_eq!(ResponseFlags::NONE.to_string(), "-");
    let all: ResponseFlags = ResponseFlags::ALL
        .iter()
        .fold(ResponseFlags::NONE, |all, (flag, _, _)| all | *flag);
    assert_eq!(
        all.to_string(),
        "LH,UH,UT,LR,UR,UF,UC,UO,NR,DI,FI,RL,UAEX,RLSE,DC,URX,SI,IH,DPE,UMSDR,RFCF,NFCF,DT,UPE,NC,OM,DF,DO,DR,UDO"
    );
    assert_eq!(
        ResponseFlags::from_short("NR"),
        Some(ResponseFlags::NO_ROUTE_FOUND)
    );
    assert_eq!(ResponseFlags::from_short("nope"), None);
}

#[test]
fn headers_come_from_fields_and_repeated_values_join() {
    let mut headers = HeaderMap::new();
    headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.2"));
    let record = Record {
        method: Some(Method::GET),
        path: Some(PathAndQuery::from_static("/new?q=1")),
        original_path: Some(PathAndQuery::from_static("/old")),
        authority: Some(HeaderValue::from_static("a.example")),
        request_headers: Some(headers),
        status: Some(204),
        ..Record::default()
    };
    assert_eq!(record.request_header(":path").as_deref(), Some("/new?q=1"));
    assert_eq!(
        record.request_header("x-envoy-original-path").as_deref(),
        Some("/old")
    );
    assert_eq!(record.request_header("host").as_deref(), Some("a.example"));
    assert_eq!(
        record.request_header("x-forwarded-for").as_deref(),
        Some("10.0.0.1,10.0.0.2")
    );
    assert_eq!(record.request_header("absent"), None);
    assert_eq!(record.response_header(":status").as_deref(), Some("204"));
}

#[test]
fn upstream_service_time_is_from_request_sent_to_first_byte() {
    let timings = Timings {
        last_upstream_tx: Some(Duration::from_millis(3)),
        first_upstream_rx: Some(Duration::from_millis(8)),
        ..Timings::default()
    };
    assert_eq!(
        timings.upstream_service_time(),
        Some(Duration::from_millis(5))
    );
    assert_eq!(Timings::default().upstream_service_time(), None);
}
