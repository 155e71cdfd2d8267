use wire_envoy::{
    pb::{cluster::Cluster, discovery::Resource as WireResource, endpoint::ClusterLoadAssignment},
    type_url,
};

use super::*;

fn client(flavour: Flavour) -> Client {
    Client::new(
        flavour,
        Node {
            id: "sidecar~10.0.0.1~a.b~b.svc".into(),
            ..Node::default()
        },
    )
}

fn want(client: &mut Client, type_url: &str, interest: Interest) -> Vec<ClientOutput> {
    client.handle(ClientInput::Want {
        type_url: type_url.into(),
        interest,
    })
}

fn delta(request: &ClientOutput) -> &DeltaDiscoveryRequest {
    match request {
        ClientOutput::Send(Request::Delta(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn world(request: &ClientOutput) -> &DiscoveryRequest {
    match request {
        ClientOutput::Send(Request::StateOfTheWorld(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn delivery(outputs: Vec<ClientOutput>) -> Delivery {
    match outputs.into_iter().next() {
        Some(ClientOutput::Deliver(delivery)) => delivery,
        other => panic!("{other:?}"),
    }
}

fn delta_response(
    type_url: &str,
    nonce: &str,
    set: &[(&str, &str)],
    removed: &[&str],
) -> ClientInput {
    let resources = set
        .iter()
        .map(|(name, version)| WireResource {
            name: (*name).into(),
            version: (*version).into(),
            resource: Some(Any {
                type_url: type_url.into(),
                value: vec![],
            }),
            ..WireResource::default()
        })
        .collect();
    ClientInput::Response(Response::Delta(DeltaDiscoveryResponse {
        type_url: type_url.into(),
        nonce: nonce.into(),
        resources,
        removed_resources: removed.iter().map(|n| (*n).into()).collect(),
        ..DeltaDiscoveryResponse::default()
    }))
}

fn judged(
    client: &mut Client,
    type_url: &str,
    nonce: &str,
    rejected: &[&str],
) -> Vec<ClientOutput> {
    let rejected = rejected
        .iter()
        .map(|name| Rejection {
            name: (*name).into(),
            why: "bad".into(),
        })
        .collect();
    client.handle(ClientInput::Judged {
        type_url: type_url.into(),
        nonce: nonce.into(),
        rejected,
    })
}

#[test]
fn a_new_stream_asks_in_push_order_and_names_the_node_once() {
    let mut client = client(Flavour::Delta);
    assert!(want(&mut client, type_url::LISTENER, Interest::all()).is_empty());
    want(&mut client, type_url::ROUTE, Interest::default());
    want(&mut client, type_url::CLUSTER, Interest::all());
    let sent = client.handle(ClientInput::Connected);
    let types: Vec<&str> = sent.iter().map(|r| delta(r).type_url.as_str()).collect();
    assert_eq!(types, [type_url::CLUSTER, type_url::LISTENER]);
    assert!(delta(&sent[0]).node.is_some() && delta(&sent[1]).node.is_none());
    assert!(delta(&sent[0]).resource_names_subscribe.is_empty());
}

#[test]
fn delta_subscriptions_are_differences() {
    let mut client = client(Flavour::Delta);
    client.handle(ClientInput::Connected);
    let first = want(&mut client, type_url::ENDPOINT, Interest::names(["a", "b"]));
    assert_eq!(delta(&first[0]).resource_names_subscribe, ["a", "b"]);
    assert!(want(&mut client, type_url::ENDPOINT, Interest::names(["a", "b"])).is_empty());
    let second = want(&mut client, type_url::ENDPOINT, Interest::names(["b", "c"]));
    assert_eq!(delta(&second[0]).resource_names_subscribe, ["c"]);
    assert_eq!(delta(&second[0]).resource_names_unsubscribe, ["a"]);
    let late = client.handle(delta_response(
        type_url::ENDPOINT,
        "1",
        &[("a", "1"), ("b", "1")],
        &[],
    ));
    let names: Vec<String> = delivery(late).set.into_iter().map(|r| r.name).collect();
    assert_eq!(names, ["b"]);
    let star = want(&mut client, type_url::ENDPOINT, Interest::all());
    assert_eq!(delta(&star[0]).resource_names_subscribe, ["*"]);
    let fewer = want(&mut client, type_url::ENDPOINT, Interest::names(["b"]));
    assert_eq!(delta(&fewer[0]).resource_names_unsubscribe, ["*"]);
}

#[test]
fn a_rejection_names_the_resource_which_a_new_stream_is_sent_again() {
    let mut client = client(Flavour::Delta);
    want(&mut client, type_url::CLUSTER, Interest::all());
    client.handle(ClientInput::Connected);
    client.handle(delta_response(
        type_url::CLUSTER,
        "1",
        &[("a", "1"), ("b", "1")],
        &[],
    ));
    let ack = judged(&mut client, type_url::CLUSTER, "1", &[]);
    assert_eq!(
        (
            delta(&ack[0]).response_nonce.as_str(),
            &delta(&ack[0]).error_detail
        ),
        ("1", &None)
    );
    client.handle(delta_response(
        type_url::CLUSTER,
        "2",
        &[("a", "2"), ("c", "2")],
        &["b"],
    ));
    let nack = judged(&mut client, type_url::CLUSTER, "2", &["a"]);
    assert_eq!(
        delta(&nack[0]).error_detail.as_ref().unwrap().message,
        "a: bad"
    );
    client.handle(ClientInput::Disconnected);
    let sent = client.handle(ClientInput::Connected);
    let held: BTreeMap<_, _> = delta(&sent[0])
        .initial_resource_versions
        .clone()
        .into_iter()
        .collect();
    assert_eq!(
        held,
        BTreeMap::from([("a".into(), String::new()), ("c".into(), "2".into())])
    );
}

#[test]
fn a_verdict_for_an_earlier_stream_sends_nothing() {
    let mut client = client(Flavour::Delta);
    want(&mut client, type_url::CLUSTER, Interest::all());
    client.handle(ClientInput::Connected);
    client.handle(delta_response(type_url::CLUSTER, "1", &[("a", "1")], &[]));
    client.handle(ClientInput::Disconnected);
    client.handle(ClientInput::Connected);
    assert!(judged(&mut client, type_url::CLUSTER, "1", &[]).is_empty());
    assert!(judged(&mut client, "unknown", "1", &[]).is_empty());
}

#[test]
fn what_was_not_asked_for_is_ignored() {
    let mut client = client(Flavour::Delta);
    client.handle(ClientInput::Connected);
    let outputs = client.handle(delta_response(type_url::SECRET, "1", &[("a", "1")], &[]));
    assert!(matches!(outputs.as_slice(), [ClientOutput::Ignored { .. }]));
    want(&mut client, type_url::SECRET, Interest::names(["a"]));
    let other = Response::StateOfTheWorld(DiscoveryResponse {
        type_url: type_url::SECRET.into(),
        ..DiscoveryResponse::default()
    });
    assert!(matches!(
        client.handle(ClientInput::Response(other)).as_slice(),
        [ClientOutput::Ignored { .. }]
    ));
}

fn world_response(version: &str, clusters: &[&str]) -> ClientInput {
    let resources = clusters
        .iter()
        .map(|name| {
            wire_envoy::any(&Cluster {
                name: (*name).into(),
                ..Cluster::default()
            })
        })
        .collect();
    ClientInput::Response(Response::StateOfTheWorld(DiscoveryResponse {
        version_info: version.into(),
        nonce: format!("n{version}"),
        type_url: type_url::CLUSTER.into(),
        resources,
        ..DiscoveryResponse::default()
    }))
}

#[test]
fn the_state_of_the_world_removes_what_is_absent_and_answers_with_versions() {
    let mut client = client(Flavour::StateOfTheWorld);
    want(&mut client, type_url::CLUSTER, Interest::all());
    let first = client.handle(ClientInput::Connected);
    assert_eq!(world(&first[0]).version_info, "");
    client.handle(world_response("1", &["a", "b"]));
    let ack = judged(&mut client, type_url::CLUSTER, "n1", &[]);
    assert_eq!(
        (
            world(&ack[0]).version_info.as_str(),
            world(&ack[0]).response_nonce.as_str()
        ),
        ("1", "n1")
    );
    let second = delivery(client.handle(world_response("2", &["b", "c"])));
    assert_eq!(second.removed, ["a"]);
    let nack = judged(&mut client, type_url::CLUSTER, "n2", &["c"]);
    assert_eq!(
        (
            world(&nack[0]).version_info.as_str(),
            world(&nack[0]).response_nonce.as_str()
        ),
        ("1", "n2")
    );
    assert!(world(&nack[0]).error_detail.is_some());
    client.handle(ClientInput::Disconnected);
    let again = client.handle(ClientInput::Connected);
    assert_eq!(
        (
            world(&again[0]).version_info.as_str(),
            world(&again[0]).response_nonce.as_str()
        ),
        ("1", "")
    );
}

#[test]
fn names_of_the_state_of_the_world_are_read_from_the_resources() {
    let any = wire_envoy::any(&ClusterLoadAssignment {
        cluster_name: "x".into(),
        ..Default::default()
    });
    assert_eq!(
        resource_name(type_url::ENDPOINT, &any).as_deref(),
        Some("x")
    );
    let broken = Any {
        type_url: type_url::CLUSTER.into(),
        value: vec![0xff; 3],
    };
    assert_eq!(resource_name(type_url::CLUSTER, &broken), None);
}
