//! The blocks of a traffic policy: load balancer, connection pool, outlier detection, TLS.
//!
//! DestinationRule, MeshConfig and Sidecar share them.

use std::time::Duration;

use mesh_model::destination_rule::{
    Algorithm, ClientTls, ClientTlsMode, ConnectionPool, Distribute, H2Upgrade, HashKey, HashTable,
    HttpPool, Keepalive, LoadBalancer, LocalityLb, OutlierDetection, ProxyProtocolVersion,
    RetryBudget, TcpPool, TrafficPolicy, Tunnel, Warmup,
};
use mesh_model::object::Text;
use wire_kube::istio::destination_rule as wire;
use wire_kube::istio::virtual_service::PortSelector;

use crate::cx::Cx;
use crate::problem::{Severity, code};
use crate::value::{text, texts, whole_percent};

pub(crate) fn traffic_policy(cx: &mut Cx, value: wire::TrafficPolicy) -> TrafficPolicy {
    let wire::TrafficPolicy {
        load_balancer: lb,
        connection_pool: pool,
        outlier_detection: outlier,
        tls,
        port_level_settings,
        tunnel: through,
        proxy_protocol,
        retry_budget: budget,
    } = value;
    let port_level = cx.collect("portLevelSettings", port_level_settings, port_policy);
    for (index, (port, _)) in port_level.iter().enumerate() {
        if port_level
            .iter()
            .take(index)
            .any(|(before, _)| before == port)
        {
            cx.error_at("portLevelSettings", format!("port {port} has two entries"));
        }
    }
    TrafficPolicy {
        load_balancer: cx.optional("loadBalancer", lb, load_balancer),
        connection_pool: cx.optional("connectionPool", pool, connection_pool),
        outlier_detection: cx.optional("outlierDetection", outlier, outlier_detection),
        tls: cx.optional("tls", tls, client_tls),
        port_level: port_level.into(),
        tunnel: cx.optional("tunnel", through, tunnel),
        proxy_protocol: proxy_protocol.map(|wire::ProxyProtocol { version }| match version {
            wire::ProxyProtocolVersion::V1 => ProxyProtocolVersion::V1,
            wire::ProxyProtocolVersion::V2 => ProxyProtocolVersion::V2,
        }),
        retry_budget: cx.optional("retryBudget", budget, retry_budget),
    }
}

fn port_policy(cx: &mut Cx, value: wire::PortTrafficPolicy) -> Option<(u16, TrafficPolicy)> {
    let wire::PortTrafficPolicy {
        port,
        load_balancer: lb,
        connection_pool: pool,
        outlier_detection: outlier,
        tls,
    } = value;
    let Some(PortSelector { number }) = port else {
        cx.error_at("port", "is needed");
        return None;
    };
    let number = cx.within("port", |cx| {
        cx.within("number", |cx| cx.port_number(number))
    });
    let policy = TrafficPolicy {
        load_balancer: cx.optional("loadBalancer", lb, load_balancer),
        connection_pool: cx.optional("connectionPool", pool, connection_pool),
        outlier_detection: cx.optional("outlierDetection", outlier, outlier_detection),
        tls: cx.optional("tls", tls, client_tls),
        ..TrafficPolicy::default()
    };
    Some((number?, policy))
}

fn load_balancer(cx: &mut Cx, value: wire::LoadBalancerSettings) -> Option<LoadBalancer> {
    let wire::LoadBalancerSettings {
        simple,
        consistent_hash: hash,
        locality_lb_setting,
        warmup_duration_secs,
        warmup,
        zone_aware_lb_setting,
    } = value;
    if simple.is_some() && hash.is_some() {
        cx.error("only one of simple and consistentHash may be set");
    }
    cx.unsupported("zoneAwareLbSetting", zone_aware_lb_setting.is_some());
    cx.deprecated(
        "warmupDurationSecs",
        warmup_duration_secs.is_some(),
        "warmup.duration",
    );
    let algorithm = match (simple, hash) {
        (_, Some(hash)) => cx.within("consistentHash", |cx| consistent_hash(cx, hash))?,
        (Some(wire::SimpleLb::LeastConn), None) => {
            cx.deprecated("simple", true, "LEAST_REQUEST");
            Algorithm::LeastRequest
        }
        (Some(wire::SimpleLb::LeastRequest), None) => Algorithm::LeastRequest,
        (Some(wire::SimpleLb::RoundRobin), None) => Algorithm::RoundRobin,
        (Some(wire::SimpleLb::Random), None) => Algorithm::Random,
        (Some(wire::SimpleLb::Passthrough), None) => Algorithm::Passthrough,
        (Some(wire::SimpleLb::Unspecified) | None, None) => Algorithm::Default,
    };
    let warmup = match (warmup, warmup_duration_secs) {
        (Some(warmup), _) => cx.within("warmup", |cx| warmup_of(cx, warmup)),
        (None, Some(duration)) => Some(Warmup {
            duration,
            minimum_percent: 10.0,
            aggression: 1.0,
        }),
        (None, None) => None,
    };
    if warmup.is_some()
        && !matches!(
            algorithm,
            Algorithm::Default | Algorithm::LeastRequest | Algorithm::RoundRobin
        )
    {
        cx.warning("warm-up works only with ROUND_ROBIN and LEAST_REQUEST");
    }
    let locality = cx.optional("localityLbSetting", locality_lb_setting, |cx, l| {
        Some(locality_lb(cx, l))
    });
    Some(LoadBalancer {
        algorithm,
        locality,
        warmup,
    })
}

fn warmup_of(cx: &mut Cx, value: wire::WarmupConfiguration) -> Option<Warmup> {
    let wire::WarmupConfiguration {
        duration,
        minimum_percent,
        aggression,
    } = value;
    let Some(duration) = duration else {
        cx.error_at("duration", "is needed");
        return None;
    };
    if minimum_percent.is_some_and(|p| !(0.0..=100.0).contains(&p)) {
        cx.error_at("minimumPercent", "must be from 0 to 100");
    }
    if aggression.is_some_and(|a| a < 1.0) {
        cx.error_at("aggression", "must be 1 or more");
    }
    Some(Warmup {
        duration,
        minimum_percent: minimum_percent.unwrap_or(10.0),
        aggression: aggression.unwrap_or(1.0),
    })
}

/// Envoy's limit of a Maglev table.
const MAGLEV_SIZE_MAX: u64 = 5_000_011;

fn consistent_hash(cx: &mut Cx, value: wire::ConsistentHashLb) -> Option<Algorithm> {
    let wire::ConsistentHashLb {
        http_header_name,
        http_cookie,
        use_source_ip,
        http_query_parameter_name,
        ring_hash,
        maglev,
        minimum_ring_size,
    } = value;
    cx.deprecated(
        "minimumRingSize",
        minimum_ring_size != 0,
        "ringHash.minimumRingSize",
    );
    let cookie = cx.optional("httpCookie", http_cookie, cookie_key);
    let mut keys: Vec<HashKey> = Vec::new();
    keys.extend(http_header_name.map(|name| HashKey::Header(name.into())));
    keys.extend(cookie);
    keys.extend(use_source_ip.filter(|on| *on).map(|_| HashKey::SourceIp));
    keys.extend(http_query_parameter_name.map(|name| HashKey::QueryParameter(name.into())));
    if keys.len() > 1 {
        cx.error("only one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName may be set");
    }
    let Some(key) = keys.pop() else {
        cx.error(
            "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is needed",
        );
        return None;
    };
    let table = match (ring_hash, maglev) {
        (Some(_), Some(_)) => {
            cx.error("only one of ringHash and maglev may be set");
            return None;
        }
        (Some(wire::RingHash { minimum_ring_size }), None) => HashTable::RingHash {
            minimum_size: if minimum_ring_size == 0 {
                1024
            } else {
                minimum_ring_size
            },
        },
        (None, Some(wire::Maglev { table_size })) => {
            let table_size = if table_size == 0 { 65_537 } else { table_size };
            if table_size >= MAGLEV_SIZE_MAX || !is_prime(table_size) {
                cx.within("maglev", |cx| {
                    cx.error_at(
                        "tableSize",
                        format!("{table_size}: must be a prime below {MAGLEV_SIZE_MAX}"),
                    )
                });
            }
            HashTable::Maglev { table_size }
        }
        (None, None) => HashTable::RingHash {
            minimum_size: if minimum_ring_size == 0 {
                1024
            } else {
                minimum_ring_size
            },
        },
    };
    Some(Algorithm::ConsistentHash { key, table })
}

fn is_prime(n: u64) -> bool {
    n >= 2
        && (2..)
            .take_while(|d| d * d <= n)
            .all(|d| !n.is_multiple_of(d))
}

fn cookie_key(cx: &mut Cx, value: wire::HttpCookie) -> Option<HashKey> {
    let wire::HttpCookie {
        name,
        path,
        ttl,
        attributes,
    } = value;
    if name.is_empty() {
        cx.error_at("name", "is needed");
    }
    let attributes = attributes
        .into_iter()
        .map(|wire::CookieAttribute { name, value }| (Text::from(name), Text::from(value)));
    Some(HashKey::Cookie {
        name: name.into(),
        path: text(&path),
        ttl,
        attributes: attributes.collect(),
    })
}

pub(crate) fn locality_lb(cx: &mut Cx, value: wire::LocalityLbSetting) -> LocalityLb {
    let wire::LocalityLbSetting {
        distribute,
        failover,
        failover_priority,
        enabled,
    } = value;
    if !distribute.is_empty() && (!failover.is_empty() || !failover_priority.is_empty()) {
        cx.error("only one of distribute and failover may be set");
    }
    let distribute = cx.collect("distribute", distribute, |cx, entry| {
        let wire::LocalityDistribute { from, to } = entry;
        let total: u64 = to.values().map(|w| u64::from(*w)).sum();
        if total != 100 {
            cx.error_at(
                "to",
                format!("weights add up to {total}: they must add up to 100"),
            );
        }
        Some(Distribute {
            from: from.into(),
            to: to
                .into_iter()
                .map(|(locality, weight)| (Text::from(locality), weight))
                .collect(),
        })
    });
    let failover = cx.collect("failover", failover, |cx, entry| {
        let wire::LocalityFailover { from, to } = entry;
        if from == to {
            cx.error(format!("{from:?} fails over to itself"));
        }
        if from.contains(['/', '*']) || to.contains(['/', '*']) {
            cx.error("failover is from region to region: no zones and no wildcards");
        }
        Some((Text::from(from), Text::from(to)))
    });
    LocalityLb {
        enabled,
        distribute: distribute.into(),
        failover: failover.into(),
        failover_priority: texts(&failover_priority),
    }
}

pub(crate) fn connection_pool(
    cx: &mut Cx,
    value: wire::ConnectionPoolSettings,
) -> Option<ConnectionPool> {
    let wire::ConnectionPoolSettings { tcp, http } = value;
    if tcp.is_none() && http.is_none() {
        cx.error("one of tcp and http is needed");
    }
    let tcp = cx.optional("tcp", tcp, |cx, tcp| {
        let wire::TcpSettings {
            max_connections,
            connect_timeout,
            tcp_keepalive,
            max_connection_duration,
            idle_timeout,
        } = tcp;
        at_least_a_millisecond(cx, "connectTimeout", connect_timeout);
        at_least_a_millisecond(cx, "maxConnectionDuration", max_connection_duration);
        Some(TcpPool {
            max_connections: count(cx, "maxConnections", max_connections),
            connect_timeout,
            keepalive: tcp_keepalive.map(keepalive),
            max_connection_duration,
            idle_timeout,
        })
    });
    let http = cx.optional("http", http, http_pool);
    Some(ConnectionPool {
        tcp: tcp.unwrap_or_default(),
        http: http.unwrap_or_default(),
    })
}

pub(crate) fn keepalive(value: wire::TcpKeepalive) -> Keepalive {
    let wire::TcpKeepalive {
        probes,
        time,
        interval,
    } = value;
    Keepalive {
        probes: (probes > 0).then_some(probes),
        time,
        interval,
    }
}

fn http_pool(cx: &mut Cx, value: wire::HttpSettings) -> Option<HttpPool> {
    let wire::HttpSettings {
        http1_max_pending_requests,
        http2_max_requests,
        max_requests_per_connection,
        max_retries,
        idle_timeout,
        h2_upgrade_policy,
        use_client_protocol,
        max_concurrent_streams,
        http2_keep_alive,
    } = value;
    if use_client_protocol && h2_upgrade_policy == wire::H2UpgradePolicy::Upgrade {
        cx.error("only one of useClientProtocol and h2UpgradePolicy: UPGRADE may be set");
    }
    let http2_keepalive = cx.optional("http2KeepAlive", http2_keep_alive, |cx, value| {
        let wire::Http2KeepAlive { interval, timeout } = value;
        match (interval, timeout) {
            (Some(interval), Some(timeout)) => Some((interval, timeout)),
            _ => {
                cx.error("interval and timeout are both needed");
                None
            }
        }
    });
    Some(HttpPool {
        http1_max_pending_requests: count(
            cx,
            "http1MaxPendingRequests",
            http1_max_pending_requests,
        ),
        http2_max_requests: count(cx, "http2MaxRequests", http2_max_requests),
        max_requests_per_connection: count(
            cx,
            "maxRequestsPerConnection",
            max_requests_per_connection,
        ),
        max_retries: count(cx, "maxRetries", max_retries),
        idle_timeout,
        h2_upgrade: match h2_upgrade_policy {
            wire::H2UpgradePolicy::Default => None,
            wire::H2UpgradePolicy::DoNotUpgrade => Some(H2Upgrade::DoNotUpgrade),
            wire::H2UpgradePolicy::Upgrade => Some(H2Upgrade::Upgrade),
        },
        use_client_protocol,
        max_concurrent_streams: count(cx, "maxConcurrentStreams", max_concurrent_streams),
        http2_keepalive,
    })
}

/// 0 means unset, as Istio has it.
fn count(cx: &mut Cx, field: &str, value: i32) -> Option<u32> {
    if value < 0 {
        cx.error_at(field, format!("{value}: must not be negative"));
    }
    u32::try_from(value).ok().filter(|n| *n > 0)
}

fn at_least_a_millisecond(cx: &mut Cx, field: &str, value: Option<Duration>) {
    if value.is_some_and(|d| d < Duration::from_millis(1)) {
        cx.error_at(field, "must be at least 1ms");
    }
}

pub(crate) fn outlier_detection(
    cx: &mut Cx,
    value: wire::OutlierDetection,
) -> Option<OutlierDetection> {
    let wire::OutlierDetection {
        consecutive_errors,
        split_external_local_origin_errors,
        consecutive_local_origin_failures,
        consecutive_gateway_errors,
        consecutive_5xx_errors,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        outlier_detection_http_error_codes,
    } = value;
    cx.deprecated(
        "consecutiveErrors",
        consecutive_errors != 0,
        "consecutive5xxErrors or consecutiveGatewayErrors",
    );
    at_least_a_millisecond(cx, "interval", interval);
    at_least_a_millisecond(cx, "baseEjectionTime", base_ejection_time);
    let max_ejection_percent = (max_ejection_percent != 0)
        .then(|| whole_percent(cx, "maxEjectionPercent", max_ejection_percent));
    let min_health_percent = whole_percent(cx, "minHealthPercent", min_health_percent);
    let codes = cx.collect(
        "outlierDetectionHttpErrorCodes",
        &outlier_detection_http_error_codes,
        |cx, status| {
            if !(100..600).contains(status) {
                cx.error(format!("{status}: an HTTP status must be from 100 to 599"));
            }
            u16::try_from(*status).ok()
        },
    );
    if consecutive_local_origin_failures.is_some() && !split_external_local_origin_errors {
        cx.error("consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors: true");
    }
    let old_errors = u32::try_from(consecutive_errors).ok().filter(|n| *n > 0);
    Some(OutlierDetection {
        consecutive_5xx: consecutive_5xx_errors,
        consecutive_gateway: consecutive_gateway_errors.or(old_errors),
        split_external_local_origin: split_external_local_origin_errors,
        consecutive_local_origin: consecutive_local_origin_failures,
        interval,
        base_ejection_time,
        max_ejection_percent,
        min_health_percent,
        http_error_codes: codes.into(),
    })
}

pub(crate) fn client_tls(cx: &mut Cx, value: wire::ClientTlsSettings) -> Option<ClientTls> {
    let wire::ClientTlsSettings {
        mode,
        client_certificate,
        private_key,
        ca_certificates,
        credential_name,
        subject_alt_names,
        sni,
        insecure_skip_verify,
        ca_crl,
    } = value;
    let mode = match mode {
        wire::ClientTlsMode::Disable => ClientTlsMode::Disable,
        wire::ClientTlsMode::Simple => ClientTlsMode::Simple,
        wire::ClientTlsMode::Mutual => ClientTlsMode::Mutual,
        wire::ClientTlsMode::IstioMutual => ClientTlsMode::IstioMutual,
    };
    let files = [&client_certificate, &private_key, &ca_certificates]
        .iter()
        .any(|f| !f.is_empty());
    if !credential_name.is_empty() && files {
        cx.error(
            "credentialName and clientCertificate, privateKey, caCertificates exclude each other",
        );
    }
    if mode == ClientTlsMode::Mutual && credential_name.is_empty() {
        for (field, value) in [
            ("clientCertificate", &client_certificate),
            ("privateKey", &private_key),
        ] {
            if value.is_empty() {
                cx.error_at(field, "is needed with mode MUTUAL (or credentialName)");
            }
        }
    }
    if mode == ClientTlsMode::IstioMutual && (files || !credential_name.is_empty()) {
        cx.error("mode ISTIO_MUTUAL uses the mesh's own certificates: clientCertificate, privateKey, caCertificates and credentialName must be empty");
    }
    if !credential_name.is_empty() {
        cx.within("credentialName", |cx| {
            let message = "works at gateways only: sidecars connect without it";
            cx.report(Severity::Info, code::DOUBTFUL, message);
        });
    }
    let insecure = insecure_skip_verify.unwrap_or(false);
    if insecure && !(ca_certificates.is_empty() && subject_alt_names.is_empty()) {
        cx.error("with insecureSkipVerify: true, caCertificates and subjectAltNames must be empty");
    }
    if insecure && matches!(mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        cx.report(
            Severity::Warning,
            code::NO_VERIFICATION,
            "the server's certificate is not verified at all",
        );
    }
    Some(ClientTls {
        mode,
        client_certificate: text(&client_certificate),
        private_key: text(&private_key),
        ca_certificates: text(&ca_certificates),
        ca_crl: text(&ca_crl),
        credential_name: text(&credential_name),
        subject_alt_names: texts(&subject_alt_names),
        sni: text(&sni),
        insecure_skip_verify: insecure,
    })
}

fn tunnel(cx: &mut Cx, value: wire::TunnelSettings) -> Option<Tunnel> {
    let wire::TunnelSettings {
        protocol,
        target_host,
        target_port,
    } = value;
    let use_post = match protocol.as_str() {
        "" | "CONNECT" => false,
        "POST" => true,
        other => {
            cx.error_at("protocol", format!("{other:?} is neither CONNECT nor POST"));
            false
        }
    };
    if target_host.is_empty() {
        cx.error_at("targetHost", "is needed");
    }
    let target_port = cx.within("targetPort", |cx| cx.port_number(target_port))?;
    Some(Tunnel {
        use_post,
        target_host: target_host.into(),
        target_port,
    })
}

fn retry_budget(cx: &mut Cx, value: wire::RetryBudget) -> Option<RetryBudget> {
    let wire::RetryBudget {
        percent,
        min_retry_concurrency,
        budget_interval,
    } = value;
    cx.unsupported(
        "budgetInterval",
        budget_interval.is_some_and(|i| !i.is_zero()),
    );
    let percent = percent.unwrap_or(20.0);
    if !(0.0..=100.0).contains(&percent) {
        cx.error_at(
            "percent",
            format!("{percent}: a percentage must be from 0 to 100"),
        );
    }
    let min_retry_concurrency = if min_retry_concurrency == 0 {
        3
    } else {
        min_retry_concurrency
    };
    Some(RetryBudget {
        percent,
        min_retry_concurrency,
    })
}
