use super::*;
use crate::fake_api::{FakeApi, PATIENCE};
use serde_json::json;

fn domain() -> TrustDomain {
    TrustDomain::parse("cluster.local").expect("a trust domain")
}

fn place(api: &FakeApi, folder: &Path) -> Place {
    Place {
        client: api.client.clone(),
        root_namespace: "istio-system".into(),
        directory: folder.to_owned(),
    }
}

async fn load_from(api: &FakeApi, folder: &Path) -> Result<CertificateAuthority, ControlError> {
    load(&place(api, folder), &domain(), SystemTime::now()).await
}

/// Puts the Secret `cacerts`.
fn plug(api: &FakeApi, pem: &AuthorityPem) {
    let bytes = |text: &str| k8s_openapi::ByteString(text.as_bytes().to_vec());
    let data = [
        ("ca-cert.pem", pem.ca_cert.as_str()),
        ("ca-key.pem", pem.ca_key.as_str()),
        ("cert-chain.pem", &pem.cert_chain),
        ("root-cert.pem", &pem.root_cert),
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
}

/// An intermediate authority under a root.
fn intermediate(root: &AuthorityPem, name: &str) -> AuthorityPem {
    let root_key = rcgen::KeyPair::from_pem(&root.ca_key).expect("the root's key");
    let issuer = rcgen::Issuer::from_ca_cert_pem(&root.root_cert, root_key).expect("an issuer");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let certificate = params.signed_by(&key, &issuer).expect("signed").pem();
    AuthorityPem {
        ca_cert: certificate.clone(),
        ca_key: key.serialize_pem().into(),
        cert_chain: format!("{certificate}{}", root.root_cert),
        root_cert: root.root_cert.clone(),
    }
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
    plug(&api, &pem);
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
        .expect_err("a broken key")
        .to_string();
    assert!(
        error.contains("ca-key.pem") && error.contains(&folder.path().display().to_string()),
        "{error}"
    );

    let plugged = folder.path().join(PLUGGED_SECRET);
    fs::create_dir(&plugged).expect("a folder");
    let error = load_from(&api, folder.path())
        .await
        .expect_err("a folder without files")
        .to_string();
    assert!(error.contains("cacerts/ca-cert.pem"), "{error}");

    api.put(json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "data": {}}));
    let error = load_from(&api, folder.path())
        .await
        .expect_err("a Secret without keys")
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

#[tokio::test]
async fn a_new_plugged_authority_of_the_same_root_takes_over_and_another_root_is_refused() {
    let api = FakeApi::start();
    let folder = tempfile::tempdir().expect("a folder");
    let root = CertificateAuthority::self_signed(&domain(), SystemTime::now())
        .expect("a root")
        .to_pem();
    plug(&api, &intermediate(&root, "first"));
    let place = place(&api, folder.path());
    let authority = load(&place, &domain(), SystemTime::now())
        .await
        .expect("the first authority");
    let current: Current = Arc::new(ArcSwap::from_pointee(authority));
    let signing = || current.load().to_pem().ca_cert;
    let first = signing();
    assert_eq!(reload(&place, &current).await.expect("nothing new"), None);

    plug(&api, &intermediate(&root, "second"));
    let source = reload(&place, &current).await.expect("a new authority");
    assert_eq!(source.as_deref(), Some("Secret istio-system/cacerts"));
    let second = signing();
    assert_ne!(first, second);

    let other = CertificateAuthority::self_signed(&domain(), SystemTime::now()).expect("a root");
    plug(&api, &intermediate(&other.to_pem(), "third"));
    let error = reload(&place, &current).await.expect_err("another root");
    assert!(error.to_string().contains("root rotation"), "{error}");
    assert_eq!(signing(), second);

    api.put(json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "cacerts", "namespace": "istio-system"}, "data": {}}));
    reload(&place, &current).await.expect_err("no key");
    api.remove("secrets", "istio-system", "cacerts");
    assert_eq!(
        reload(&place, &current).await.expect("nothing plugged"),
        None
    );
    assert_eq!(signing(), second, "what signs stays until there is better");
}
