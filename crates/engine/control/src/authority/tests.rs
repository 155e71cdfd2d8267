use super::*;
use crate::fake_api::{FakeApi, PATIENCE};
use serde_json::json;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

async fn load_from(api: &FakeApi, folder: &Path) -> Result<CertificateAuthority, ControlError> {
    load(&api.client, "istio-system", folder, &domain()).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test]
async fn a_root_is_made_once_with_restrictive_modes_and_found_again() {
    let api = FakeApi::start();
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("ca");
    fs::DirBuilder::new()
        .mode(0o755)
        .create(&own)
        .expect("a folder of a wider mode");
    let first = load_from(&api, &own).await.expect("a new root");
    assert_eq!(mode(&own), 0o700);
    let names: Vec<_> = fs::read_dir(&own)
        .expect("files")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for file in &names {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
    let second = load_from(&api, &own).await.expect("the root of before");
    assert_eq!(first.bundle().to_pem(), second.bundle().to_pem());
}

#[tokio::test]
async fn a_plugged_folder_wins_and_a_plugged_secret_wins_over_it() {
    let api = FakeApi::start();
    let folder = tempfile::tempdir().expect("a folder");
    load_from(&api, folder.path())
        .await
        .expect("a self-signed root");
    let plugged = CertificateAuthority::self_signed(&domain(), SystemTime::now()).expect("a root");
    write_files(&folder.path().join(PLUGGED_SECRET), &plugged.to_pem()).expect("files");
    let found = load_from(&api, folder.path())
        .await
        .expect("the plugged root");
    assert_eq!(found.bundle().to_pem(), plugged.bundle().to_pem());

    let secret = CertificateAuthority::self_signed(&domain(), SystemTime::now()).expect("a root");
    let pem = secret.to_pem();
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    let data = [
        ("ca-cert.pem", pem.ca_cert.as_str()),
        ("ca-key.pem", pem.ca_key.as_str()),
        ("root-cert.pem", pem.root_cert.as_str()),
    ];
    let data: std::collections::BTreeMap<String, _> = data
        .into_iter()
        .map(|(name, text)| (name.to_owned(), bytes(text)))
        .collect();
    let object = Secret {
        metadata: ObjectMeta {
            name: Some("cacerts".into()),
            namespace: Some("istio-system".into()),
            ..Default::default()
        },
        data: Some(data),
        ..Default::default()
    };
    let mut object = serde_json::to_value(object).expect("JSON");
    object["kind"] = json!("Secret");
    api.put(object);
    let found = load_from(&api, folder.path())
        .await
        .expect("the plugged Secret");
    assert_eq!(found.bundle().to_pem(), secret.bundle().to_pem());
}

#[tokio::test]
async fn what_is_there_but_unusable_ends_the_start_and_names_the_file() {
    let api = FakeApi::start();
    let folder = tempfile::tempdir().expect("a folder");
    load_from(&api, folder.path()).await.expect("a root");
    fs::write(folder.path().join("ca-key.pem"), "no key").expect("written");
    let error = load_from(&api, folder.path())
        .await
        .err()
        .expect("a broken key")
        .to_string();
    assert!(
        error.contains("ca-key.pem") && error.contains(&folder.path().display().to_string()),
        "{error}"
    );

    let plugged = folder.path().join(PLUGGED_SECRET);
    fs::create_dir(&plugged).expect("a folder");
    let error = load_from(&api, folder.path())
        .await
        .err()
        .expect("a folder without files")
        .to_string();
    assert!(error.contains("cacerts/ca-cert.pem"), "{error}");

    api.put(json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "data": {}}));
    let error = load_from(&api, folder.path())
        .await
        .err()
        .expect("a Secret without keys")
        .to_string();
    assert!(
        error.contains("Secret istio-system/cacerts has no key `ca-cert.pem`"),
        "{error}"
    );
}

#[tokio::test]
async fn the_root_comes_to_every_namespace_even_when_a_write_fails() {
    let api = FakeApi::start();
    api.fail_writes(1);
    let mut store = ingest::Store::new(ingest::default_mesh());
    for name in ["a", "b"] {
        store.apply(Arc::new(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        ));
    }
    let (_publish, snapshots) = watch::channel(Some(store.build()));
    api.put(json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": ROOT_CONFIG_MAP, "namespace": "b"}, "data": {ROOT_KEY: "old"}}));
    let task = tokio::spawn(keep_roots_published(
        api.client.clone(),
        "new".into(),
        snapshots,
    ));
    for namespace in ["a", "b"] {
        api.wait_for("configmaps", namespace, ROOT_CONFIG_MAP, |map| {
            map["data"][ROOT_KEY] == "new"
        })
        .await;
    }
    let made = api.get("configmaps", "a", ROOT_CONFIG_MAP).expect("a map");
    assert_eq!(made["metadata"]["labels"]["istio.io/config"], "true");
    task.abort();
    assert!(ROOT_RETRY_INTERVAL < PATIENCE);
}
