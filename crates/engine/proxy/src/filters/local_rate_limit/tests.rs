use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use proxy_config::{
    filter::local_rate_limit::DescriptorActions,
    matcher::{Fraction, HeaderKey},
};
use telemetry::stats::Options;

use super::*;

fn rules(max_tokens: u32, tokens_per_fill: u32, seconds: u64) -> TokenBucket {
    TokenBucket {
        max_tokens,
        tokens_per_fill,
        fill_interval: Duration::from_secs(seconds),
    }
}

fn config(
    bucket: TokenBucket,
    descriptors: Vec<Descriptor>,
    actions: Vec<DescriptorAction>,
) -> LocalRateLimit {
    LocalRateLimit {
        stat_prefix: "limit".into(),
        status: StatusCode::TOO_MANY_REQUESTS,
        bucket: Some(bucket),
        enabled: Fraction::ALL,
        enforced: Fraction::ALL,
        response_headers: Arc::from([]),
        per_connection: false,
        x_ratelimit_headers: true,
        descriptors: descriptors.into(),
        actions: Arc::from([DescriptorActions(actions.into())]),
    }
}

fn taken(bucket: &Bucket, now: Instant) -> usize {
    (0..1_000).take_while(|_| bucket.take(now)).count()
}

#[test]
fn a_bucket_starts_full_and_fills_continuously_up_to_its_size() {
    let now = Instant::now();
    let bucket = Bucket::new(rules(10, 10, 60), now);
    assert_eq!(taken(&bucket, now), 10);
    assert_eq!(taken(&bucket, now + Duration::from_millis(5_999)), 0);
    assert_eq!(taken(&bucket, now + Duration::from_secs(6)), 1);
    assert_eq!(taken(&bucket, now + Duration::from_secs(36)), 5);
    assert_eq!(taken(&bucket, now + Duration::from_secs(100_000)), 10);
    // A clock that other threads read a little earlier takes nothing back.
    assert_eq!(taken(&bucket, now), 0);
}

#[test]
fn what_is_left_is_told_with_the_time_until_there_is_more() {
    let now = Instant::now();
    let bucket = Bucket::new(rules(2, 1, 30), now);
    assert_eq!(
        bucket.standing(now),
        Standing {
            limit: 2,
            remaining: 2,
            reset_seconds: 0
        }
    );
    assert!(bucket.take(now) && bucket.take(now));
    assert_eq!(
        bucket.standing(now + Duration::from_secs(10)),
        Standing {
            limit: 2,
            remaining: 0,
            reset_seconds: 20
        }
    );
}

proptest! {
    /// Over any time no more passes than the size and what was filled in meanwhile.
    #[test]
    fn no_more_passes_than_was_filled_in(
        max in 1u32..50, per_fill in 1u32..20, interval in 50u64..5_000, steps in prop::collection::vec(0u64..2_000, 1..60),
    ) {
        let start = Instant::now();
        let rules = TokenBucket { max_tokens: max, tokens_per_fill: per_fill, fill_interval: Duration::from_millis(interval) };
        let bucket = Bucket::new(rules, start);
        let (mut elapsed, mut passed) = (0, 0);
        for step in steps {
            elapsed += step;
            passed += taken(&bucket, start + Duration::from_millis(elapsed));
            let bound = f64::from(max) + elapsed as f64 * f64::from(per_fill) / interval as f64;
            prop_assert!(passed as f64 <= bound + 1e-6, "{passed} after {elapsed} ms");
        }
    }
}

fn by_user() -> Vec<DescriptorAction> {
    let header = HeaderKey::Name("x-user".parse().unwrap());
    vec![
        DescriptorAction::GenericKey {
            key: "generic_key".into(),
            value: "v".into(),
        },
        DescriptorAction::RequestHeader {
            header,
            key: "user".into(),
            skip_if_absent: false,
        },
    ]
}

fn descriptor(user: &str, bucket: TokenBucket) -> Descriptor {
    Descriptor {
        entries: Arc::from([
            ("generic_key".into(), "v".into()),
            ("user".into(), user.into()),
        ]),
        bucket,
    }
}

fn yielded(config: &LocalRateLimit, user: Option<&'static str>) -> Vec<Vec<Entry>> {
    let headers: HeaderMap = user
        .map(|user| ("x-user".parse().unwrap(), HeaderValue::from_static(user)))
        .into_iter()
        .collect();
    let head = HeaderView {
        headers: &headers,
        authority: "",
        method: "GET",
        path: "/",
        scheme: "",
        protocol: "",
        status: None,
    };
    descriptors(config, &head, Some("10.0.0.1"))
}

#[test]
fn a_descriptor_has_its_own_bucket_beside_the_default() {
    let config = config(
        rules(4, 1, 60),
        vec![descriptor("a", rules(1, 1, 3_600))],
        by_user(),
    );
    let now = Instant::now();
    let buckets = Buckets::new(&config, now).unwrap();
    let ask = |user| {
        let (allowed, standing) = buckets.take(&config, &yielded(&config, user), now);
        (allowed, standing.limit)
    };
    assert_eq!(ask(Some("a")), (true, 1));
    assert_eq!(
        ask(Some("a")),
        (false, 1),
        "and the default bucket pays nothing for it"
    );
    assert_eq!(ask(Some("b")), (true, 4));
    assert_eq!(ask(None), (true, 4));
    assert_eq!(ask(None), (true, 4));
    assert_eq!(ask(None), (false, 4));
}

#[test]
fn actions_yield_entries_or_no_descriptor() {
    let with = |actions| {
        config(
            rules(1, 1, 1),
            vec![descriptor("a", rules(1, 1, 1))],
            actions,
        )
    };
    let pair = |key: &str, value: &str| (Arc::from(key), Arc::from(value));
    assert_eq!(
        yielded(&with(by_user()), Some("a")),
        [vec![pair("generic_key", "v"), pair("user", "a")]]
    );
    assert_eq!(yielded(&with(by_user()), None), Vec::<Vec<Entry>>::new());
    let address = with(vec![DescriptorAction::RemoteAddress]);
    assert_eq!(
        yielded(&address, None),
        [vec![pair("remote_address", "10.0.0.1")]]
    );
    let matches = |expect| {
        let headers = Arc::from([]);
        with(vec![DescriptorAction::HeaderValueMatch {
            key: "header_match".into(),
            value: "yes".into(),
            expect,
            headers,
        }])
    };
    assert_eq!(
        yielded(&matches(true), None),
        [vec![pair("header_match", "yes")]]
    );
    assert_eq!(yielded(&matches(false), None), Vec::<Vec<Entry>>::new());
}

#[test]
fn a_limiter_belongs_to_one_configuration_and_goes_with_it() {
    let registry = Registry::new(Store::new(Options::default()));
    let now = Instant::now();
    let first = Arc::new(config(rules(1, 1, 1), vec![], vec![]));
    let equal = Arc::new((*first).clone());
    let limiter = registry.limiter(&first, now);
    assert!(Arc::ptr_eq(
        &limiter,
        &registry.limiter(&first.clone(), now)
    ));
    assert!(
        !Arc::ptr_eq(&limiter, &registry.limiter(&equal, now)),
        "another filter with equal limits has its own tokens"
    );
    assert_eq!(registry.limiters.read().len(), 2);
    drop((first, limiter));
    let third = Arc::new(config(rules(2, 1, 1), vec![], vec![]));
    registry.limiter(&third, now);
    assert_eq!(registry.limiters.read().len(), 2);
}
