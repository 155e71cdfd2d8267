//! The feed against a control plane of the same protocol crate, over real sockets and TLS, with a
//! real certificate authority.

pub(crate) mod control_plane;

use std::{path::PathBuf, sync::Arc, time::Duration};

use control_plane::ControlPlane;
use identity::{ServiceAccountName, TrustDomain};
use proxy::Live;
use stdx::drain;
use tokio::task::JoinHandle;
use wire_envoy::{
    any,
    pb::{
        Any,
        cluster::Cluster,
        endpoint::ClusterLoadAssignment,
        route::{RouteConfiguration, VirtualHost},
    },
};

use super::*;
use crate::settings::{Address, Certificates, Discovery, Limits, Server, ServerAuthentication};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

struct Running {
    live: Arc<Live>,
    status: Arc<Status>,
    stop: drain::DrainTrigger,
    task: JoinHandle<()>,
    _files: tempfile::TempDir,
}

pub(crate) fn server(control: &ControlPlane, files: &std::path::Path) -> Server {
    Server {
        address: Address::Host {
            name: "127.0.0.1".into(),
            port: control.port(),
        },
        tls: Some(ServerAuthentication {
            root_file: files.join("root.pem"),
            name: "istiod.test".into(),
        }),
        token_file: Some(files.join("token")),
        mark: None,
    }
}

fn start(control: &ControlPlane, flavour: Flavour, ttl: Duration) -> Running {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("root.pem"), control.root_pem()).unwrap();
    std::fs::write(files.path().join("token"), "good token\n").unwrap();
    let limits = Limits {
        retry_first: Duration::from_millis(20),
        retry_limit: Duration::from_millis(200),
        ..Limits::default()
    };
    let settings = Settings {
        node: Node {
            id: "sidecar~127.0.0.1~a.b~b.svc".into(),
            ..Node::default()
        },
        discovery: Some(Discovery {
            server: server(control, files.path()),
            flavour,
        }),
        certificates: Some(Certificates {
            server: server(control, files.path()),
            trust_domain: TrustDomain::default(),
            account: ServiceAccountName::new("b", "a").unwrap(),
            ttl,
            renew_after: 0.5,
            jitter: 0.01,
            cluster_id: "Kubernetes".into(),
        }),
        environment: Default::default(),
        limits,
    };
    let live = Arc::new(Live::default());
    let feed = Feed::new(settings, Static::default(), live.clone());
    let status = feed.status();
    let (stop, drain) = drain::channel();
    let task = tokio::spawn(feed.run(drain));
    Running {
        live,
        status,
        stop,
        task,
        _files: files,
    }
}

impl Running {
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(
            waited.await.is_ok(),
            "not in time: {what}; {:?}",
            self.status.connection()
        );
    }

    fn has_cluster(&self, name: &str) -> bool {
        self.live.config().clusters.contains_key(name)
    }

    async fn end(self) {
        self.stop.start();
        tokio::time::timeout(DEADLINE, self.task)
            .await
            .expect("the feed ends when told")
            .unwrap();
    }
}

fn cluster(name: &str) -> Any {
    use wire_envoy::pb::{cluster::cluster, core};
    let ads = core::config_source::ConfigSourceSpecifier::Ads(core::AggregatedConfigSource {});
    any(&Cluster {
        name: name.into(),
        cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(
            cluster::DiscoveryType::Eds.into(),
        )),
        eds_cluster_config: Some(cluster::EdsClusterConfig {
            eds_config: Some(core::ConfigSource {
                config_source_specifier: Some(ads),
                ..Default::default()
            }),
            service_name: String::new(),
        }),
        ..Default::default()
    })
}

fn endpoints(name: &str) -> Any {
    any(&ClusterLoadAssignment {
        cluster_name: name.into(),
        ..Default::default()
    })
}

fn routes(name: &str) -> Any {
    let host = VirtualHost {
        name: "all".into(),
        domains: vec!["*".into()],
        ..Default::default()
    };
    any(&RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![host],
        ..Default::default()
    })
}

fn listener(name: &str, table: &str) -> Any {
    crate::warm::tests_support::http_listener(name, table)
}

pub(crate) fn first_configuration(control: &ControlPlane) {
    control.set(&[
        ("a", cluster("a")),
        ("a", endpoints("a")),
        ("l", listener("l", "80")),
        ("80", routes("80")),
    ]);
}

#[tokio::test]
async fn certificate_and_configuration_arrive_in_both_flavours() {
    for flavour in [Flavour::Delta, Flavour::StateOfTheWorld] {
        let control = ControlPlane::start(0).await;
        first_configuration(&control);
        let running = start(&control, flavour, Duration::from_secs(3600));
        running.until("ready", |r| r.status.is_ready()).await;
        assert!(running.has_cluster("a"));
        assert!(running.live.config().listeners.contains_key("l"));
        assert!(running.live.config().routes.contains_key("80"));
        let identity = running.live.tls.identity.load().unwrap();
        assert_eq!(identity.id().as_str(), "spiffe://cluster.local/ns/b/sa/a");
        control.set(&[("b", cluster("b")), ("b", endpoints("b"))]);
        running
            .until("a cluster more", |r| r.has_cluster("b"))
            .await;
        control.remove(&cluster("a").type_url, "a");
        running
            .until("a cluster less", |r| !r.has_cluster("a"))
            .await;
        assert!(
            control
                .tokens()
                .iter()
                .all(|token| token == "Bearer good token")
        );
        let dump = running
            .status
            .config_dump(
                &Default::default(),
                std::time::SystemTime::UNIX_EPOCH,
                Some(&identity),
                true,
            )
            .unwrap()
            .to_string();
        assert!(dump.contains("\"name\":\"b\"") && dump.contains("dynamic_active_secrets"));
        let key = identity.certificate().key().to_pem();
        assert!(
            key.lines()
                .filter(|l| !l.starts_with('-'))
                .all(|line| !dump.contains(line))
        );
        running.end().await;
    }
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_hurts_no_other() {
    let control = ControlPlane::start(0).await;
    first_configuration(&control);
    let running = start(&control, Flavour::Delta, Duration::from_secs(3600));
    running.until("ready", |r| r.status.is_ready()).await;
    let bad = Any {
        value: vec![0x0a, 3, b'b', b'a', b'd', 0xff],
        ..cluster("bad")
    };
    control.set(&[
        ("bad", bad),
        ("good", cluster("good")),
        ("good", endpoints("good")),
    ]);
    running
        .until("the good one", |r| r.has_cluster("good"))
        .await;
    running
        .until("a rejection", |_| !control.rejections().is_empty())
        .await;
    assert!(
        control.rejections()[0].starts_with("bad: "),
        "{:?}",
        control.rejections()
    );
    assert!(!running.has_cluster("bad"));
    assert_eq!(running.status.types()[&cluster("").type_url].rejected, 1);
    running.end().await;
}

/// A listener whose only HTTP filter before the router is of a type that no proxy knows.
fn unreadable_listener(name: &str) -> Any {
    use wire_envoy::{
        pb::{hcm, listener},
        unpack,
    };
    let mut readable: listener::Listener = unpack(&listener(name, "80")).unwrap();
    let Some(listener::filter::ConfigType::TypedConfig(config)) =
        &mut readable.filter_chains[0].filters[0].config_type
    else {
        panic!("no connection manager")
    };
    let mut manager: hcm::HttpConnectionManager = unpack(config).unwrap();
    let unknown = Any {
        type_url: "type.googleapis.com/a.policy.nobody.Knows".into(),
        value: Vec::new(),
    };
    manager.http_filters.insert(
        0,
        hcm::HttpFilter {
            name: "guard".into(),
            config_type: Some(hcm::http_filter::ConfigType::TypedConfig(unknown)),
            ..Default::default()
        },
    );
    *config = any(&manager);
    any(&readable)
}

#[tokio::test]
async fn a_proxy_whose_first_listener_is_refused_is_not_ready_until_it_is_mended() {
    for flavour in [Flavour::Delta, Flavour::StateOfTheWorld] {
        let control = ControlPlane::start(0).await;
        first_configuration(&control);
        control.set(&[("l", unreadable_listener("l"))]);
        let running = start(&control, flavour, Duration::from_secs(3600));
        running
            .until("the listener is in use, refusing", |r| {
                r.live.config().listeners.contains_key("l")
            })
            .await;
        assert!(!running.status.is_ready());
        let told = running.status.refusals();
        assert!(
            told[0].why.starts_with("listener l: filter_chains[0]")
                && told[0].why.contains("a.policy.nobody.Knows"),
            "{told:?}"
        );
        control.set(&[("l", listener("l", "80"))]);
        running.until("ready", |r| r.status.is_ready()).await;
        assert_eq!(running.status.refusals(), []);
        // From now on readiness stays as it is, and the pages tell.
        control.set(&[("l", unreadable_listener("l"))]);
        running
            .until("told again", |r| r.status.refusals().len() == 1)
            .await;
        assert!(running.status.is_ready());
        control.remove(&listener("", "").type_url, "l");
        running
            .until("removed", |r| {
                !r.live.config().listeners.contains_key("l") && r.status.refusals().is_empty()
            })
            .await;
        running.end().await;
    }
}

/// A cluster whose roots are a file's.
fn cluster_with_roots(name: &str, secret: &str) -> Any {
    use wire_envoy::{
        pb::{core, tls},
        unpack,
    };
    let mut plain: Cluster = unpack(&cluster(name)).unwrap();
    let source = plain
        .eds_cluster_config
        .as_ref()
        .and_then(|eds| eds.eds_config.clone());
    let roots = tls::SdsSecretConfig {
        name: secret.into(),
        sds_config: source,
    };
    let context = tls::UpstreamTlsContext {
        common_tls_context: Some(tls::CommonTlsContext {
            validation_context_type: Some(
                tls::common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(
                    roots,
                ),
            ),
            ..Default::default()
        }),
        ..Default::default()
    };
    plain.transport_socket = Some(core::TransportSocket {
        name: "tls".into(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any(
            &context,
        ))),
    });
    any(&plain)
}

#[tokio::test]
async fn secrets_of_files_are_read_here_and_not_asked_for() {
    let control = ControlPlane::start(0).await;
    first_configuration(&control);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let name = format!("file-root:{}", file.display());
    control.set(&[("a", cluster_with_roots("a", &name))]);
    let running = start(&control, Flavour::Delta, Duration::from_secs(3600));
    running
        .until("the missing file is told", |r| {
            r.status
                .refusals()
                .iter()
                .any(|refusal| refusal.why.contains("ca.pem"))
        })
        .await;
    // It is known to be missing, so nothing is waited for.
    running.until("ready", |r| r.status.is_ready()).await;
    std::fs::write(&file, control.root_pem()).unwrap();
    let published = |r: &Running| {
        let secrets = r.live.tls.published();
        secrets.iter().any(|secret| secret.name.as_str() == name)
    };
    running.until("the file's roots", published).await;
    assert_eq!(running.status.refusals(), []);
    std::fs::remove_file(&file).unwrap();
    running
        .until("the loss is told", |r| r.status.refusals().len() == 1)
        .await;
    assert!(published(&running), "the last good value stays");
    running.end().await;
}

#[tokio::test]
async fn the_last_configuration_survives_the_control_plane_and_its_return_brings_the_news() {
    let control = ControlPlane::start(0).await;
    first_configuration(&control);
    let running = start(&control, Flavour::Delta, Duration::from_secs(3600));
    running.until("ready", |r| r.status.is_ready()).await;
    let (port, authority) = (control.port(), control.stop().await);
    running
        .until("the loss is noticed", |r| !r.status.connection().connected)
        .await;
    running
        .until("attempts fail", |r| r.status.connection().failures > 2)
        .await;
    assert!(running.has_cluster("a") && running.status.is_ready());
    let control = ControlPlane::restart(port, authority).await;
    control.set(&[
        ("l", listener("l", "80")),
        ("80", routes("80")),
        ("new", cluster("new")),
        ("new", endpoints("new")),
    ]);
    running
        .until("the news", |r| r.has_cluster("new") && !r.has_cluster("a"))
        .await;
    assert!(running.live.config().listeners.contains_key("l"));
    // The identity is shown now, beside the token.
    running
        .until("the certificate is shown", |_| {
            control
                .peers()
                .iter()
                .any(|p| p.as_deref() == Some("spiffe://cluster.local/ns/b/sa/a"))
        })
        .await;
    running.end().await;
}

#[tokio::test]
async fn certificates_are_renewed_before_they_end() {
    let control = ControlPlane::start(0).await;
    first_configuration(&control);
    let running = start(&control, Flavour::Delta, Duration::from_secs(2));
    running.until("ready", |r| r.status.is_ready()).await;
    let first = running.live.tls.identity.load().unwrap();
    running
        .until("a renewal", |r| r.live.tls.identity.generation() >= 3)
        .await;
    let later = running.live.tls.identity.load().unwrap();
    assert_ne!(
        first.certificate().leaf().serial,
        later.certificate().leaf().serial
    );
    assert_ne!(
        first.certificate().key().public_key_pem(),
        later.certificate().key().public_key_pem()
    );
    assert!(
        later
            .certificate()
            .is_valid_at(std::time::SystemTime::now())
    );
    running.end().await;
}

#[tokio::test]
async fn a_control_plane_of_another_root_is_not_believed() {
    let control = ControlPlane::start(0).await;
    let impostor = ControlPlane::start(0).await;
    first_configuration(&impostor);
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("root.pem"), control.root_pem()).unwrap();
    let dialer = Dialer {
        identity: Default::default(),
        resolver: Arc::new(Resolver::from_system(1)),
        clock: Arc::new(stdx::SystemClock),
        connect_timeout: DEADLINE,
    };
    assert!(dialer.dial(&server(&control, files.path())).await.is_ok());
    let error = dialer
        .dial(&server(&impostor, files.path()))
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(error.contains("certificate"), "{error}");
    let gone: PathBuf = files.path().join("none");
    let missing = Server {
        tls: Some(ServerAuthentication {
            root_file: gone,
            name: "istiod.test".into(),
        }),
        ..server(&control, files.path())
    };
    assert!(
        dialer
            .dial(&missing)
            .await
            .err()
            .expect("refused")
            .to_string()
            .contains("none")
    );
}
