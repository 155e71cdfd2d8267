//! Live objects for tests, from a bootstrap's static resources in YAML.

use std::sync::Arc;

use proxy::{Live, Update};

use crate::{bootstrap, warm::Change};

/// What these `static_resources` (indented by two spaces) publish.
pub(crate) fn live(resources: &str) -> Arc<Live> {
    let text = format!(
        "node: {{id: 'sidecar~10.0.0.1~a.default~default.svc.cluster.local', cluster: a.default}}\nstatic_resources:\n{resources}"
    );
    let read = bootstrap::read(&text, Default::default()).unwrap();
    let mut update = Update::default();
    for change in read.fixed.changes {
        match change {
            Change::Cluster(cluster) => update.clusters.set.push(cluster),
            Change::Listener(listener) => update.listeners.set.push(listener),
            other => panic!("{other:?} is not expected here"),
        }
    }
    let live = Arc::new(Live::default());
    let problems = live.publish(update);
    assert!(problems.is_empty(), "{problems:?}");
    live
}

/// A cluster with one endpoint.
pub(crate) fn cluster(name: &str, address: std::net::SocketAddr) -> String {
    format!(
        "  clusters:
  - name: '{name}'
    type: STATIC
    connect_timeout: 1s
    alt_stat_name: '{name};'
    load_assignment:
      cluster_name: '{name}'
      endpoints:
      - locality: {{region: r, zone: z}}
        lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: '{}', port_value: {}}}}}}}
",
        address.ip(),
        address.port()
    )
}
