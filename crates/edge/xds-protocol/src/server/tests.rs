//! The server alone, and then the client and the server together under any schedule.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::{Client, ClientInput, ClientOutput, Interest, Rejection};

const TYPES: [&str; 4] = [
    type_url::CLUSTER,
    type_url::ENDPOINT,
    type_url::LISTENER,
    type_url::ROUTE,
];

fn resource(name: &str, version: u8) -> Resource {
    // Field 1, as every named type has it.
    let mut body = vec![0x0a, u8::try_from(name.len()).unwrap()];
    body.extend_from_slice(name.as_bytes());
    Resource {
        name: name.into(),
        version: version.to_string().into(),
        body: body.into(),
    }
}

fn offer(server: &mut Server, type_url: &str, resources: &[(&str, u8)]) {
    let set: Vec<Resource> = resources
        .iter()
        .map(|(name, version)| resource(name, *version))
        .collect();
    let version: Arc<str> = format!("{resources:?}").into();
    server.offer(type_url, &version, set.into());
}

fn ask(server: &mut Server, type_url: &str, names: &[&str]) -> ServerEvent {
    let request = DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: names.iter().map(|n| (*n).into()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    server.receive(Request::Delta(request)).unwrap()
}

fn answer(server: &mut Server, response: &Response, error: Option<&str>) -> Acknowledged {
    let error_detail = error.map(|message| wire_envoy::pb::google::rpc::Status {
        code: 3,
        message: message.into(),
        details: vec![],
    });
    let request = DeltaDiscoveryRequest {
        type_url: response.type_url().into(),
        response_nonce: response.nonce().into(),
        error_detail,
        ..DeltaDiscoveryRequest::default()
    };
    server
        .receive(Request::Delta(request))
        .unwrap()
        .acknowledged
}

fn contents(response: &Response) -> (Vec<String>, Vec<String>) {
    match response {
        Response::Delta(r) => (
            r.resources.iter().map(|r| r.name.clone()).collect(),
            r.removed_resources.clone(),
        ),
        Response::StateOfTheWorld(r) => {
            let names = r
                .resources
                .iter()
                .filter_map(|any| crate::resource_name(&r.type_url, any));
            (names.collect(), vec![])
        }
    }
}

#[test]
fn a_change_is_made_before_it_is_broken() {
    let mut server = Server::new(Flavour::Delta);
    ask(&mut server, type_url::CLUSTER, &[]);
    ask(&mut server, type_url::LISTENER, &[]);
    ask(&mut server, type_url::ROUTE, &["80"]);
    offer(&mut server, type_url::CLUSTER, &[("old", 1)]);
    offer(&mut server, type_url::LISTENER, &[("l", 1)]);
    offer(&mut server, type_url::ROUTE, &[("80", 1)]);
    let clusters = server.next_response().unwrap();
    assert_eq!(clusters.type_url(), type_url::CLUSTER);
    assert!(
        server.next_response().is_none(),
        "listeners wait for the clusters' acknowledgement"
    );
    assert_eq!(answer(&mut server, &clusters, None), Acknowledged::Accepted);
    let (listeners, routes) = (
        server.next_response().unwrap(),
        server.next_response().unwrap(),
    );
    assert_eq!(
        (listeners.type_url(), routes.type_url()),
        (type_url::LISTENER, type_url::ROUTE)
    );
    answer(&mut server, &listeners, None);
    answer(&mut server, &routes, None);
    assert!(server.is_settled());

    offer(&mut server, type_url::CLUSTER, &[("new", 1)]);
    offer(&mut server, type_url::ROUTE, &[("80", 2)]);
    let added = server.next_response().unwrap();
    assert_eq!(contents(&added), (vec!["new".into()], vec![]));
    answer(&mut server, &added, None);
    let routes = server.next_response().unwrap();
    assert_eq!(routes.type_url(), type_url::ROUTE);
    assert!(
        server.next_response().is_none(),
        "the old cluster stays until the routes are acknowledged"
    );
    answer(&mut server, &routes, None);
    assert_eq!(
        contents(&server.next_response().unwrap()),
        (vec![], vec!["old".into()])
    );
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    let mut server = Server::new(Flavour::Delta);
    ask(&mut server, type_url::CLUSTER, &[]);
    ask(&mut server, type_url::ENDPOINT, &["a", "b"]);
    offer(&mut server, type_url::CLUSTER, &[("a", 1), ("b", 1)]);
    offer(&mut server, type_url::ENDPOINT, &[("a", 1), ("b", 1)]);
    for _ in 0..2 {
        let response = server.next_response().unwrap();
        answer(&mut server, &response, None);
    }
    assert!(server.is_settled());

    offer(&mut server, type_url::CLUSTER, &[("a", 2), ("b", 1)]);
    let clusters = server.next_response().unwrap();
    assert_eq!(contents(&clusters), (vec!["a".into()], vec![]));
    let endpoints = server.next_response().expect("before the clusters' answer");
    assert_eq!(endpoints.type_url(), type_url::ENDPOINT);
    assert_eq!(contents(&endpoints), (vec!["a".into()], vec![]));
    answer(&mut server, &endpoints, None);
    answer(&mut server, &clusters, None);
    assert!(server.is_settled());
}

#[test]
fn newest_state_is_sent_when_the_client_is_ready() {
    let mut server = Server::new(Flavour::Delta);
    ask(&mut server, type_url::CLUSTER, &[]);
    offer(&mut server, type_url::CLUSTER, &[("a", 1)]);
    let first = server.next_response().unwrap();
    for version in 2..9 {
        offer(&mut server, type_url::CLUSTER, &[("a", version)]);
        assert!(server.next_response().is_none());
    }
    let Acknowledged::Rejected { detail } = answer(&mut server, &first, Some("a: no")) else {
        panic!()
    };
    assert_eq!(detail, "a: no");
    let Some(Response::Delta(second)) = server.next_response() else {
        panic!()
    };
    assert_eq!(second.resources[0].version, "8");
    assert_eq!(answer(&mut server, &first, None), Acknowledged::Stale);
    assert!(!server.is_settled());
    let status = server.status(type_url::CLUSTER).unwrap();
    assert_eq!(
        (status.rejected, status.last_rejection.as_deref()),
        (1, Some("a: no"))
    );
    answer(&mut server, &Response::Delta(second), None);
    assert_eq!(
        server.status(type_url::CLUSTER).unwrap().last_rejection,
        None
    );
    assert!(server.is_settled());
}

#[test]
fn a_first_wildcard_request_is_answered_even_with_nothing() {
    for flavour in [Flavour::Delta, Flavour::StateOfTheWorld] {
        let mut server = Server::new(flavour);
        let request = match flavour {
            Flavour::Delta => Request::Delta(DeltaDiscoveryRequest {
                type_url: type_url::CLUSTER.into(),
                ..Default::default()
            }),
            Flavour::StateOfTheWorld => Request::StateOfTheWorld(DiscoveryRequest {
                type_url: type_url::CLUSTER.into(),
                ..Default::default()
            }),
        };
        assert!(server.receive(request).unwrap().subscription_changed);
        assert!(server.next_response().is_none());
        offer(&mut server, type_url::CLUSTER, &[]);
        assert_eq!(contents(&server.next_response().unwrap()), (vec![], vec![]));
        assert!(server.next_response().is_none());
    }
}

#[test]
fn wanted_names_that_do_not_exist_are_told_once_and_sent_when_they_appear() {
    let mut server = Server::new(Flavour::Delta);
    ask(&mut server, type_url::ENDPOINT, &["a", "b"]);
    offer(
        &mut server,
        type_url::ENDPOINT,
        &[("a", 1), ("not wanted", 1)],
    );
    let first = server.next_response().unwrap();
    assert_eq!(contents(&first), (vec!["a".into()], vec!["b".into()]));
    answer(&mut server, &first, None);
    offer(&mut server, type_url::ENDPOINT, &[("a", 1)]);
    assert!(server.next_response().is_none());
    offer(&mut server, type_url::ENDPOINT, &[("a", 1), ("b", 1)]);
    let second = server.next_response().unwrap();
    assert_eq!(contents(&second), (vec!["b".into()], vec![]));
    answer(&mut server, &second, None);
    ask(&mut server, type_url::ENDPOINT, &["a"]);
    assert_eq!(
        contents(&server.next_response().unwrap()),
        (vec!["a".into()], vec![]),
        "asked for again, sent again"
    );
}

#[test]
fn a_reconnected_client_gets_the_difference() {
    let mut server = Server::new(Flavour::Delta);
    let held = [("same", "1"), ("changed", "1"), ("gone", "1")];
    let request = DeltaDiscoveryRequest {
        type_url: type_url::CLUSTER.into(),
        initial_resource_versions: held.map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
        ..DeltaDiscoveryRequest::default()
    };
    server.receive(Request::Delta(request)).unwrap();
    offer(
        &mut server,
        type_url::CLUSTER,
        &[("same", 1), ("changed", 2), ("new", 1)],
    );
    let Some(response) = server.next_response() else {
        panic!()
    };
    assert_eq!(
        contents(&response),
        (vec!["changed".into(), "new".into()], vec!["gone".into()])
    );
}

#[test]
fn a_stale_nonce_of_the_state_of_the_world_changes_nothing() {
    let mut server = Server::new(Flavour::StateOfTheWorld);
    let request = |names: &[&str], nonce: &str| {
        Request::StateOfTheWorld(DiscoveryRequest {
            type_url: type_url::ENDPOINT.into(),
            resource_names: names.iter().map(|n| (*n).into()).collect(),
            response_nonce: nonce.into(),
            ..DiscoveryRequest::default()
        })
    };
    server.receive(request(&["a"], "")).unwrap();
    offer(&mut server, type_url::ENDPOINT, &[("a", 1), ("b", 1)]);
    let first = server.next_response().unwrap();
    let event = server
        .receive(request(&["a", "b"], "no such nonce"))
        .unwrap();
    assert_eq!(
        (event.acknowledged, event.subscription_changed),
        (Acknowledged::Stale, false)
    );
    let event = server.receive(request(&["a", "b"], first.nonce())).unwrap();
    assert_eq!(
        (event.acknowledged, event.subscription_changed),
        (Acknowledged::Accepted, true)
    );
    assert_eq!(contents(&server.next_response().unwrap()).0, ["a", "b"]);
}

#[test]
fn bad_requests_are_errors() {
    let mut server = Server::new(Flavour::Delta);
    let typed = |type_url: &str| {
        Request::Delta(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            ..Default::default()
        })
    };
    assert_eq!(server.receive(typed("")), Err(ProtocolError::NoType));
    let other = Request::StateOfTheWorld(DiscoveryRequest {
        type_url: "a".into(),
        ..Default::default()
    });
    assert_eq!(server.receive(other), Err(ProtocolError::Flavour));
    let results: Vec<_> = (0..MAX_TYPES + 1)
        .map(|n| server.receive(typed(&n.to_string())))
        .collect();
    assert!(matches!(
        results.last(),
        Some(Err(ProtocolError::TooManyTypes { .. }))
    ));
}

/// Both sides with queues between them; the client rejects what has version 13.
struct World {
    client: Client,
    server: Server,
    upward: VecDeque<Request>,
    downward: VecDeque<Response>,
    desired: BTreeMap<&'static str, BTreeMap<String, u8>>,
}

#[derive(Debug, Clone)]
enum Step {
    Change {
        which: usize,
        name: u8,
        version: Option<u8>,
    },
    Want {
        which: usize,
        names: Vec<u8>,
    },
    Up,
    Down,
    Push,
    Reconnect,
}

impl World {
    fn new(flavour: Flavour) -> Self {
        let mut world = Self {
            client: Client::new(flavour, Node::default()),
            server: Server::new(flavour),
            upward: VecDeque::new(),
            downward: VecDeque::new(),
            desired: TYPES.map(|t| (t, BTreeMap::new())).into(),
        };
        for type_url in [type_url::CLUSTER, type_url::LISTENER] {
            world.tell(ClientInput::Want {
                type_url: type_url.into(),
                interest: Interest::all(),
            });
        }
        world.tell(ClientInput::Connected);
        world
    }

    fn tell(&mut self, input: ClientInput) {
        for output in self.client.handle(input) {
            match output {
                ClientOutput::Send(request) => self.upward.push_back(request),
                ClientOutput::Deliver(delivery) => {
                    let bad = delivery.set.iter().filter(|r| r.version == "13");
                    let rejected = bad
                        .map(|r| Rejection {
                            name: r.name.clone(),
                            why: "unlucky".into(),
                        })
                        .collect();
                    self.tell(ClientInput::Judged {
                        type_url: delivery.type_url,
                        nonce: delivery.nonce,
                        rejected,
                    });
                }
                ClientOutput::Ignored { .. } => {}
            }
        }
    }

    fn offer(&mut self, type_url: &str) {
        let set: Vec<Resource> = self.desired[type_url]
            .iter()
            .map(|(n, v)| resource(n, *v))
            .collect();
        let version: Arc<str> = format!("{set:?}").into();
        self.server.offer(type_url, &version, set.into());
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change {
                which,
                name,
                version,
            } => {
                let type_url = TYPES[which % TYPES.len()];
                let set = self.desired.get_mut(type_url).unwrap();
                match version {
                    Some(version) => set.insert(name.to_string(), *version),
                    None => set.remove(&name.to_string()),
                };
                self.offer(type_url);
            }
            Step::Want { which, names } => {
                let type_url = [type_url::ENDPOINT, type_url::ROUTE][which % 2];
                let interest = Interest::names(names.iter().map(u8::to_string));
                self.tell(ClientInput::Want {
                    type_url: type_url.into(),
                    interest,
                });
            }
            Step::Up => {
                if let Some(request) = self.upward.pop_front() {
                    let event = self.server.receive(request).unwrap();
                    if event.subscription_changed {
                        self.offer(&event.type_url.clone());
                    }
                }
            }
            Step::Down => {
                if let Some(response) = self.downward.pop_front() {
                    self.tell(ClientInput::Response(response));
                }
            }
            Step::Push => {
                if let Some(response) = self.server.next_response() {
                    self.downward.push_back(response);
                }
            }
            Step::Reconnect => {
                self.tell(ClientInput::Disconnected);
                self.upward.clear();
                self.downward.clear();
                self.server = Server::new(self.server.flavour());
                self.tell(ClientInput::Connected);
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..1000 {
            for step in [Step::Up, Step::Push, Step::Down] {
                self.step(&step);
            }
            if self.upward.is_empty() && self.downward.is_empty() && self.server.is_settled() {
                return;
            }
        }
        panic!("the two sides do not come to rest: {:?}", self.server);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4usize, 0..6u8, prop::option::weighted(0.7, 1..15u8))
            .prop_map(|(which, name, version)| Step::Change { which, name, version }),
        2 => (0..2usize, prop::collection::vec(0..6u8, 0..5)).prop_map(|(which, names)| Step::Want { which, names }),
        5 => Just(Step::Up),
        5 => Just(Step::Down),
        5 => Just(Step::Push),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn both_sides_agree_in_the_end(delta in any::<bool>(), steps in prop::collection::vec(step(), 0..120)) {
        let flavour = if delta { Flavour::Delta } else { Flavour::StateOfTheWorld };
        let mut world = World::new(flavour);
        for step in &steps {
            world.step(step);
        }
        world.drain();
        for type_url in TYPES {
            let Some((wildcard, names)) = world.server.wanted(type_url) else { continue };
            let held = world.client.held(type_url).cloned().unwrap_or_default();
            let good = |version: &u8| *version != 13;
            let desired = &world.desired[type_url];
            for (name, version) in desired.iter().filter(|(n, v)| (wildcard || names.contains(*n)) && good(v)) {
                prop_assert!(held.contains_key(name), "{type_url} {name} is missing: {held:?}");
                if delta {
                    prop_assert_eq!(&held[name], &version.to_string());
                }
            }
            if delta || wildcard {
                for name in held.keys() {
                    prop_assert!(desired.contains_key(name), "{type_url} {name} should be gone");
                }
            }
        }
    }
}
