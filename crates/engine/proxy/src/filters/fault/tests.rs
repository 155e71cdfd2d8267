use http::HeaderValue;
use stdx::{Rng, SeededRng};

use super::*;

fn config(delay: Option<Delay>, abort: Option<Abort>) -> Fault {
    Fault {
        delay,
        abort,
        ..Fault::default()
    }
}

fn fixed(share: Fraction) -> Delay {
    Delay {
        kind: DelayKind::Fixed(Duration::from_secs(2)),
        fraction: share,
    }
}

fn teapot(share: Fraction) -> Abort {
    Abort {
        kind: AbortKind::Http(StatusCode::IM_A_TEAPOT),
        fraction: share,
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[test]
fn delays_and_aborts_are_drawn_apart() {
    let config = config(
        Some(fixed(Fraction::new(50, 100))),
        Some(teapot(Fraction::new(10, 100))),
    );
    let rng = SeededRng::new(7);
    let all: Vec<Drawn> = (0..10_000)
        .map(|_| draw(&config, &HeaderMap::new(), rng.u64(), rng.u64()))
        .collect();
    let count = |test: fn(&Drawn) -> bool| all.iter().filter(|drawn| test(drawn)).count();
    assert!((4_800..5_200).contains(&count(|d| d.delay.is_some())));
    assert!((900..1_100).contains(&count(|d| d.abort.is_some())));
    // Half of the aborted requests were delayed, too.
    assert!((430..570).contains(&count(|d| d.delay.is_some() && d.abort.is_some())));
}

#[test]
fn shares_of_none_and_all_are_exact() {
    let never = config(Some(fixed(Fraction::NONE)), Some(teapot(Fraction::NONE)));
    let always = config(Some(fixed(Fraction::ALL)), Some(teapot(Fraction::ALL)));
    for random in [0, 1, 99, 100, u64::MAX] {
        assert_eq!(
            draw(&never, &HeaderMap::new(), random, random),
            Drawn::default()
        );
        let both = Drawn {
            delay: Some(Duration::from_secs(2)),
            abort: Some(Answer::Http(StatusCode::IM_A_TEAPOT)),
        };
        assert_eq!(draw(&always, &HeaderMap::new(), random, random), both);
    }
}

#[test]
fn headers_ask_for_faults_where_they_may() {
    let delay = Delay {
        kind: DelayKind::Header,
        fraction: Fraction::ALL,
    };
    let abort = Abort {
        kind: AbortKind::Header,
        fraction: Fraction::ALL,
    };
    let config = config(Some(delay), Some(abort));
    let drawn = |pairs: &[(&'static str, &'static str)]| draw(&config, &headers(pairs), 0, 0);
    assert_eq!(drawn(&[]), Drawn::default());
    assert_eq!(
        drawn(&[("x-envoy-fault-delay-request", "250")]).delay,
        Some(Duration::from_millis(250))
    );
    assert_eq!(drawn(&[("x-envoy-fault-delay-request", "0")]).delay, None);
    assert_eq!(drawn(&[("x-envoy-fault-delay-request", "x")]).delay, None);
    let http = Some(Answer::Http(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(drawn(&[("x-envoy-fault-abort-request", "503")]).abort, http);
    assert_eq!(drawn(&[("x-envoy-fault-abort-request", "99")]).abort, None);
    assert_eq!(
        drawn(&[("x-envoy-fault-abort-grpc-request", "14")]).abort,
        Some(Answer::Grpc(14))
    );
    assert_eq!(
        drawn(&[
            ("x-envoy-fault-abort-request", "503"),
            ("x-envoy-fault-abort-grpc-request", "14")
        ])
        .abort,
        http
    );
}

#[test]
fn a_header_lowers_a_share_and_never_raises_it() {
    let configured = Fraction::new(40, 100);
    let asked = |value: &'static str| {
        share(
            &headers(&[("x-envoy-fault-abort-request-percentage", value)]),
            &ABORT_SHARE,
            configured,
        )
    };
    assert_eq!(asked("10"), Fraction::new(10, 100));
    assert_eq!(asked("90"), configured);
    assert_eq!(asked("nonsense"), configured);
}

#[test]
fn faults_beyond_the_limit_are_left_out_and_counted() {
    let stats = Store::new(telemetry::stats::Options::default());
    let state = Arc::new(State::new(&stats, "http.x."));
    let first = state.enter(Some(1));
    assert!(first.is_some() && state.enter(Some(1)).is_none());
    assert_eq!(
        stats
            .scope("http.x.fault.")
            .counter("faults_overflow")
            .value(),
        1
    );
    assert_eq!(
        stats.scope("http.x.fault.").gauge("active_faults").value(),
        1
    );
    drop(first);
    assert!(state.enter(Some(1)).is_some());
    assert_eq!(
        stats.scope("http.x.fault.").gauge("active_faults").value(),
        0
    );
}
