use std::time::Duration;

use super::*;
use crate::session::tests::control_plane::ControlPlane;

const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn envoy_gets_the_secrets_of_files_that_it_asks_for_and_their_changes() {
    let control = ControlPlane::start(0).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, control.root_pem()).unwrap();
    let name = format!("file-root:{}", file.display());
    let secrets = Secrets {
        identity: IdentityHandle::new(),
        status: Arc::new(Status::default()),
    };
    let ask = DeltaDiscoveryRequest {
        type_url: type_url::SECRET.into(),
        resource_names_subscribe: vec![name.clone()],
        ..Default::default()
    };
    let (sender, requests) = mpsc::channel(4);
    sender.send(Ok(AdsRequest::Delta(ask))).await.unwrap();
    let requests: Responses<AdsRequest> = Box::pin(ReceiverStream::new(requests));
    let mut responses = secrets.stream(Flavour::Delta, requests);
    for change in ["", "\n"] {
        std::fs::write(&file, format!("{}{change}", control.root_pem())).unwrap();
        let response = tokio::time::timeout(DEADLINE, responses.next());
        let response = response.await.expect("in time").expect("a response");
        let Ok(AdsResponse::Delta(response)) = response else {
            panic!("{response:?}")
        };
        assert_eq!(response.resources[0].name, name);
        let ack = DeltaDiscoveryRequest {
            type_url: type_url::SECRET.into(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        sender.send(Ok(AdsRequest::Delta(ack))).await.unwrap();
    }
}
