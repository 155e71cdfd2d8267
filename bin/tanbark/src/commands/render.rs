//! `tanbark render DIR --for POD`: what the control plane would send to a proxy, as JSON, with nothing running.
//!
//! The files go through the runtime's own store and controllers in memory (pods, endpoints and addresses come out the same each time), then through
//! the control plane's `ingest` and `xds-encode`. So the result is what a proxy of the running mesh would get, and can be compared
//! between two states of the files. Private keys are never printed: secrets are named only.

mod encode;
mod node;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::ValueEnum as _;
use ingest::Store;
use inject::Injection;
use inject::ProxyKind;
use machine::controllers::rehearse::{Rehearsal, rehearse};
use machine::store::selector::Labels;
use serde_json::Value;
use wire_envoy::{Descriptors, Unknown};
use wire_kube::manifest::Document;
use xds_encode::{Client, View};

use crate::commands::up::args::Proxy;
use crate::manifests::{self, Depth};
use crate::output::{self, Colour, Report};
use crate::scope::Scope;
use crate::target::{Target, selector_of};
use crate::{object, problems};

/// Shown below the flags.
const EXAMPLES: &str = "Examples:\n  tanbark render samples/demo --for deploy/reviews-v1\n  tanbark render mesh/ --for reviews-v1.shop --only routes,clusters -o yaml\n  diff <(git stash -q; tanbark render mesh/ --for a; git stash pop -q) <(tanbark render mesh/ --for a)";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("proxy-of").required(true).args(["pod", "node"])))]
pub struct Args {
    /// Files or folders, or `-`
    #[arg(required = true, value_name = "DIR")]
    paths: Vec<PathBuf>,
    /// POD, POD.NAMESPACE, KIND/NAME[.NAMESPACE], or the name of a workload
    #[arg(long = "for", value_name = "POD")]
    pod: Option<String>,
    /// A proxy's node as JSON, as it stands in a DiscoveryRequest
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    #[command(flatten)]
    pub scope: Scope,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_enum)]
    only: Vec<encode::Part>,
    /// Which proxy stands beside the pods
    #[arg(long, value_enum, default_value_t = Proxy::Tanbark)]
    proxy: Proxy,
    /// MeshConfig as a file
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    #[arg(short, long, value_enum)]
    output: Option<Report>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let read = manifests::read(&args.paths, Depth::Below)?;
    if let Some(broken) = read.broken.first() {
        bail!("{broken}");
    }
    let colour = Colour::of(&std::io::stderr());
    for finding in problems::check(&read.documents) {
        output::note(&finding.line(colour));
    }
    let rehearsal = play(&args, &read.documents);
    let mut store = Store::with_auto_addresses(mesh(&args)?);
    for object in &rehearsal.objects {
        store.apply(object.clone());
    }
    let snapshot = store.build();
    let descriptors = Descriptors::load()?;
    let node = match &args.node {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", file.display()))?
        }
        None => node::of_pod(find(&args, &rehearsal.objects)?)?,
    };
    let node = descriptors
        .from_json(node, Unknown::Skip)
        .context("the node")?;
    let client = Arc::new(Client::from_node(&node)?);
    let view = View::new(&snapshot, &client);
    for problem in xds_encode::problems(&view) {
        output::note(&problem.to_string());
    }
    let parts = if args.only.is_empty() {
        encode::Part::value_variants().to_vec()
    } else {
        args.only.clone()
    };
    let rendered = encode::render(&view, &descriptors, &client.id, &parts)?;
    output::emit(&match args.output {
        Some(Report::Yaml) => output::yaml(&rendered)?,
        Some(Report::Json | Report::Table) | None => output::json(&rendered)?,
    });
    Ok(ExitCode::SUCCESS)
}

fn play(args: &Args, documents: &[Document]) -> Rehearsal {
    let given: Vec<Value> = documents
        .iter()
        .map(|document| document.object.clone())
        .collect();
    let proxy = match args.proxy {
        Proxy::Tanbark => ProxyKind::Tanbark,
        Proxy::Envoy => ProxyKind::Envoy,
    };
    let rehearsal = rehearse(
        &given,
        Injection {
            proxy,
            trust_domain: "cluster.local".into(),
        },
    );
    for (index, why) in &rehearsal.refused {
        if let Some(document) = documents.get(*index) {
            output::note(&format!("{}: {why}", document.place("")));
        }
    }
    rehearsal
}

fn mesh(args: &Args) -> Result<mesh_model::MeshConfig> {
    let Some(file) = &args.mesh_config else {
        return Ok(ingest::default_mesh());
    };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let value: Value =
        serde_saphyr::from_str(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let (mesh, found) = ingest::parse_mesh(&value);
    for problem in found {
        output::note(&format!("{}: {problem}", file.display()));
    }
    mesh.with_context(|| format!("{} cannot be used", file.display()))
}

/// The pod that is meant, among those that would be.
fn find<'a>(args: &Args, objects: &'a [Arc<Value>]) -> Result<&'a Value> {
    let wanted = args.pod.as_deref().context("which pod?")?;
    let pods: Vec<&Value> = objects
        .iter()
        .map(|object| &**object)
        .filter(|object| object::text(object, "/kind") == "Pod")
        .collect();
    let found = match Target::parse(wanted)? {
        Target::Pod(name) => by_name(&pods, &name, args.scope.namespace()),
        Target::Owner { kind, name } => {
            let owned = |name: &str, namespace: &str| {
                let owner = objects.iter().map(|object| &**object).find(|object| {
                    object::text(object, "/kind") == kind.kind
                        && object::name(object) == name
                        && object::namespace(object) == namespace
                })?;
                let selector = Labels::parse(&selector_of(owner).unwrap_or_default()).ok()?;
                Some(
                    pods.iter()
                        .copied()
                        .find(|pod| object::namespace(pod) == namespace && selector.matches(pod)),
                )
            };
            let elsewhere = || {
                name.rsplit_once('.')
                    .and_then(|(name, namespace)| owned(name, namespace))
            };
            owned(&name, args.scope.namespace())
                .or_else(elsewhere)
                .with_context(|| {
                    format!(
                        "there is no {} {}/{name} in these files",
                        kind.kind,
                        args.scope.namespace()
                    )
                })?
        }
    };
    let pod = found.ok_or_else(|| {
        let names: Vec<String> = pods
            .iter()
            .filter(|pod| object::has_proxy(pod))
            .map(|pod| format!("{}.{}", object::name(pod), object::namespace(pod)))
            .collect();
        anyhow!(
            "no pod {wanted} in namespace {} would come of these files; pods with a proxy: {}",
            args.scope.namespace(),
            object::or_none(names.join(", "))
        )
    })?;
    if !object::has_proxy(pod) {
        bail!(
            "pod {}.{} would have no proxy: label its namespace istio-injection=enabled",
            object::name(pod),
            object::namespace(pod)
        );
    }
    Ok(pod)
}

/// A pod by its name, by `NAME.NAMESPACE`, or by the name of its workload.
fn by_name<'a>(pods: &[&'a Value], name: &str, namespace: &str) -> Option<&'a Value> {
    let exact = |name: &str, namespace: &str| {
        pods.iter()
            .find(|pod| object::name(pod) == name && object::namespace(pod) == namespace)
            .copied()
    };
    let of_workload = |name: &str, namespace: &str| {
        pods.iter()
            .find(|pod| object::namespace(pod) == namespace && inject::workload_of(pod).0 == name)
            .copied()
    };
    let one = |name: &str, namespace: &str| {
        exact(name, namespace).or_else(|| of_workload(name, namespace))
    };
    one(name, namespace).or_else(|| {
        name.rsplit_once('.')
            .and_then(|(name, namespace)| one(name, namespace))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_pod_is_found_in_all_of_istioctls_ways() {
        let pod = |name: &str, namespace: &str, app: &str| json!({"kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": app}, "annotations": {"sidecar.istio.io/status": "{}"}}});
        let objects: Vec<Arc<Value>> = [
            pod("a-1", "default", "a"),
            pod("b-1", "shop", "b"),
            json!({"kind": "Deployment", "metadata": {"name": "b", "namespace": "shop"}, "spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["b", "c"]}]}}}),
        ]
        .map(Arc::new)
        .into();
        let found = |words: &str| {
            let line = format!("render x --for {words}");
            let args = Line::parse_from(line.split(' ')).args;
            find(&args, &objects)
                .map(|pod| object::name(pod).to_owned())
                .map_err(|error| error.to_string())
        };
        for (words, name) in [
            ("a-1", "a-1"),
            ("b-1.shop", "b-1"),
            ("deploy/b -n shop", "b-1"),
            ("deploy/b.shop", "b-1"),
        ] {
            assert_eq!(found(words).as_deref(), Ok(name), "{words}");
        }
        assert!(
            found("deploy/b")
                .expect_err("elsewhere")
                .contains("no Deployment default/b")
        );
        assert!(
            found("c")
                .expect_err("none")
                .contains("a-1.default, b-1.shop")
        );
    }
}
